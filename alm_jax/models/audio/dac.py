"""DAC, the Descript audio codec (Kumar et al. 2023, https://arxiv.org/abs/2306.06546)."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.conv_transpose import ConvTranspose
from alm_jax.models.layers.factorized_vq import FactorizedQuantizer
from alm_jax.models.layers.snake import Snake

DILATIONS = (1, 3, 9)
KERNEL = 7


@dataclasses.dataclass(frozen=True)
class Size:
    """Encoder, decoder and codebooks.

    Attributes:
      filters: channels at the waveform's rate; each stage of the encoder doubles them.
      decoder_width: channels of the decoder's start; each of its stages halves them.
      ratios: strides of the encoder's stages; the decoder's are reversed.
      codebooks: there are.
      rows: codes of each.
      code_width: of a code.
    """

    filters: int = 64
    decoder_width: int = 1536
    ratios: tuple[int, ...] = (2, 4, 8, 8)
    codebooks: int = 9
    rows: int = 1024
    code_width: int = 8

    @property
    def width(self) -> int:
        """Of the latents."""
        return self.filters * 2 ** len(self.ratios)

    @property
    def hop(self) -> int:
        """Samples a code."""
        return math.prod(self.ratios)


VARIANTS = {
    'mu': Size(4, 32, (2, 4), codebooks=3, rows=32, code_width=4),
    '16khz': Size(ratios=(2, 4, 5, 8), codebooks=12),  # descript/dac_16khz
    '24khz': Size(ratios=(2, 4, 5, 8), codebooks=32),  # descript/dac_24khz
    '44khz': Size(),  # descript/dac_44khz
}


def _conv(features, size, dtype, name, *, stride=1, dilation=1, padding=None):
    """Zeros on both sides: of size 2 stride half a stride, else as many as keep the length."""
    padding = (size - 1) * dilation // 2 if padding is None else padding
    return Conv(
        features,
        (size,),
        stride=(stride,),
        padding=((padding, padding),),
        dilation=(dilation,),
        dtype=dtype,
        name=name,
    )


class ResidualUnit(nn.Module):
    """x + ``pointwise``(``snake_1``(``dilated``(``snake_0``(x))))."""

    dilation: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> [b, t, d]."""
        width = x_btd.shape[-1]
        y = Snake(name='snake_0')(x_btd)
        y = _conv(width, KERNEL, self.dtype, 'dilated', dilation=self.dilation)(y)
        y = Snake(name='snake_1')(y)
        return x_btd + _conv(width, 1, self.dtype, 'pointwise')(y)


class Stage(nn.Module):
    """Units ``unit_0``, ..., and ``snake`` with the strided ``down`` after or ``up`` before them.

    Attributes:
      features: channels of the result.
      ratio: of the rates.
      up: whether this is the decoder's.
      dtype: compute and result dtype.
    """

    features: int
    ratio: int
    up: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> [b, about t / ratio or t * ratio, features]."""
        half, size, x = -(-self.ratio // 2), 2 * self.ratio, x_btd
        if self.up:
            up = ConvTranspose(
                self.features, size, self.ratio, (half, half), dtype=self.dtype, name='up'
            )
            x = up(Snake(name='snake')(x))
        for i, dilation in enumerate(DILATIONS):
            x = ResidualUnit(dilation, self.dtype, name=f'unit_{i}')(x)
        if self.up:
            return x
        down = _conv(self.features, size, self.dtype, 'down', stride=self.ratio, padding=half)
        return down(Snake(name='snake')(x))


class DacEncoder(nn.Module):
    """Waveform in, latents out: ``conv_in``, ``stage_0``, ..., ``snake``, ``conv_out``."""

    size: Size = dataclasses.field(default_factory=Size)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, waveform_bn1) -> dict[str, Any]:
        """Encodes waveforms.

        Args:
          waveform_bn1: [b, n, 1], n at best a multiple of the hop.

        Returns:
          'conv_in' [b, n, filters]; 'stages', each stage's output, a tuple; 'latents'
          [b, t, width], t = n / hop.
        """
        size, dtype = self.size, self.dtype
        x = _conv(size.filters, KERNEL, dtype, 'conv_in')(waveform_bn1)
        outputs: dict[str, Any] = {'conv_in': x, 'stages': ()}
        for i, ratio in enumerate(size.ratios):
            x = Stage(size.filters * 2 ** (i + 1), ratio, dtype=dtype, name=f'stage_{i}')(x)
            outputs['stages'] += (x,)
        x = _conv(size.width, 3, dtype, 'conv_out')(Snake(name='snake')(x))
        return outputs | {'latents': x}


class DacDecoder(nn.Module):
    """Latents in, waveform out: ``conv_in``, ``stage_0``, ..., ``snake``, ``conv_out``."""

    size: Size = dataclasses.field(default_factory=Size)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, latents_btd) -> dict[str, Any]:
        """Decodes latents.

        Args:
          latents_btd: [b, t, width].

        Returns:
          'conv_in' [b, t, d]; 'stages', each stage's output, a tuple; 'waveform' float32
          [b, n, 1], about t * hop samples in [-1, 1].
        """
        size, dtype = self.size, self.dtype
        x = _conv(size.decoder_width, KERNEL, dtype, 'conv_in')(latents_btd)
        outputs: dict[str, Any] = {'conv_in': x, 'stages': ()}
        for i, ratio in enumerate(reversed(size.ratios)):
            features = size.decoder_width // 2 ** (i + 1)
            x = Stage(features, ratio, up=True, dtype=dtype, name=f'stage_{i}')(x)
            outputs['stages'] += (x,)
        x = _conv(1, KERNEL, dtype, 'conv_out')(Snake(name='snake')(x))
        return outputs | {'waveform': jnp.tanh(x.astype(jnp.float32))}


class Dac(nn.Module):
    """Waveforms to codes and back.

    Parameters: ``encoder``, ``decoder``, ``quantizer`` (see ``layers.factorized_vq``).

    As published, padding is heard: convolutions reach to both sides and nothing is masked within,
    so the last codes of a clip depend on how much silence follows it, up to the receptive field.

    Attributes:
      size: see Size.
      dtype: compute dtype; quantisation and the waveform are float32.
    """

    size: Size = dataclasses.field(default_factory=Size)
    dtype: DTypeLike = jnp.float32

    def setup(self):
        size = self.size
        self.encoder = DacEncoder(size, self.dtype)
        self.decoder = DacDecoder(size, self.dtype)
        self.quantizer = FactorizedQuantizer(size.codebooks, size.rows, size.code_width, size.width)

    def __call__(self, waveform_bnc, num_samples_b=None, *, codebooks: int | None = None):
        """``encode``, and 'waveform' and 'decoder' of the decoded 'quantised'.

        Gradients of the waveform reach the encoder, straight through the choice of codes.
        """
        outputs = self.encode(waveform_bnc, num_samples_b, codebooks=codebooks)
        decoded = self.decoder(outputs['quantised'].astype(self.dtype))
        waveform = decoded['waveform'][:, : waveform_bnc.shape[1]]
        return outputs | {'waveform': waveform, 'decoder': decoded}

    def encode(self, waveform_bnc, num_samples_b=None, *, codebooks: int | None = None):
        """Codes of waveforms.

        Args:
          waveform_bnc: float [b, n, 1] or [b, n]; the original fills n up to a multiple of the hop.
          num_samples_b: int [b]; what stands behind a clip's end is heard as zeros. None is n.
          codebooks: how many of them, the first ones; None is all.

        Returns:
          'encoder', the intermediates of DacEncoder; 'latents' [b, t, d]; 'codes' int32 [b, q, t];
          'projected' float32 [b, t, q * code_width], what each codebook looked up; 'quantised'
          float32 [b, t, d]; 'frame_mask' bool [b, t], the codes that begin within a clip.
        """
        x = waveform_bnc[..., None] if waveform_bnc.ndim == 2 else waveform_bnc
        samples = jnp.arange(x.shape[1])
        if num_samples_b is None:
            num_samples_b = jnp.full(x.shape[0], x.shape[1])
        x = jnp.where((samples < num_samples_b[:, None])[..., None], x, 0)
        encoded = self.encoder(x.astype(self.dtype))
        codes, projected, quantised = self.quantizer(encoded['latents'], codebooks)
        frames = jnp.arange(codes.shape[-1]) * self.size.hop
        return {
            'encoder': encoded,
            'latents': encoded['latents'],
            'codes': codes,
            'projected': projected,
            'quantised': quantised,
            'frame_mask': frames < num_samples_b[:, None],
        }

    def decode(self, codes_bqt):
        """Waveforms of codes.

        Args:
          codes_bqt: int32 [b, q, t], q at most the number of codebooks.

        Returns:
          'quantised' float32 [b, t, d]; 'decoder', the intermediates of DacDecoder; 'waveform'
          float32 [b, n, 1].
        """
        quantised = self.quantizer.decode(codes_bqt)
        decoded = self.decoder(quantised.astype(self.dtype))
        return {'quantised': quantised, 'decoder': decoded, 'waveform': decoded['waveform']}
