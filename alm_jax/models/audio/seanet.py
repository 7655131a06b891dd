"""SEANet, the convolutional encoder and decoder of neural codecs (EnCodec, Mimi).

Tagliasacchi et al. 2020 (https://arxiv.org/abs/2009.02095), as Defossez et al. 2022
(https://arxiv.org/abs/2210.13438, section 3.1) build it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.lstm import lstm_stack
from alm_jax.models.layers.padded_conv import PaddedConv, PaddedConvTranspose


@dataclasses.dataclass(frozen=True)
class Size:
    """What encoder and decoder share.

    Attributes:
      width: of the latents.
      channels: of the waveform.
      filters: channels at the waveform's rate; each stage doubles them.
      ratios: strides of the decoder's stages, in its order; the encoder's are reversed.
      kernel, last_kernel, residual_kernel: sizes of the first and last convolution and of those in
        residual units.
      units: residual units a stage.
      dilation_growth: of a unit's dilation over that of the one before it.
      compress: what a unit divides its channels by.
      shortcut: whether a unit's residual goes through a convolution of size 1.
      lstm_layers: LSTM layers around the latents, or 0.
      causal, pad_mode, norm, trim_right_ratio: see PaddedConv and PaddedConvTranspose.
    """

    width: int = 128
    channels: int = 1
    filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 3
    units: int = 1
    dilation_growth: int = 2
    compress: int = 2
    shortcut: bool = True
    lstm_layers: int = 2
    causal: bool = True
    pad_mode: str = 'reflect'
    norm: str = 'weight'
    trim_right_ratio: float = 1.0

    def conv(self, features: int, size: int, **options: Any) -> PaddedConv:
        """A convolution with what all of them share."""
        return PaddedConv(
            features,
            size,
            causal=self.causal,
            pad_mode=self.pad_mode,
            norm=self.norm,
            **options,
        )


class ResidualUnit(nn.Module):
    """x + conv(elu(conv(elu(x)))) by ``dilated`` and ``pointwise``; the first x by ``shortcut``.

    Attributes:
      size: see Size.
      dilation: of the first convolution.
      dtype: compute and result dtype.
    """

    size: Size
    dilation: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> [b, t, d]."""
        size, width = self.size, x_btd.shape[-1]

        def conv(features, kernel, name, **options):
            return size.conv(features, kernel, dtype=self.dtype, name=name, **options)

        hidden = width // size.compress
        y = conv(hidden, size.residual_kernel, 'dilated', dilation=self.dilation)(nn.elu(x_btd))
        y = conv(width, 1, 'pointwise')(nn.elu(y))
        return (conv(width, 1, 'shortcut')(x_btd) if size.shortcut else x_btd) + y


class Stage(nn.Module):
    """Residual units ``unit_0``, ..., and the strided convolution ``down`` after or ``up`` before.

    Attributes:
      size: see Size.
      ratio: of the rates.
      features: channels of the result.
      up: whether this is the decoder's.
      dtype: compute and result dtype.
    """

    size: Size
    ratio: int
    features: int
    up: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> [b, ceil(t / ratio) or t * ratio, features]."""
        size = self.size
        if self.up:
            x_btd = PaddedConvTranspose(
                self.features,
                2 * self.ratio,
                self.ratio,
                causal=size.causal,
                trim_right_ratio=size.trim_right_ratio,
                norm=size.norm,
                dtype=self.dtype,
                name='up',
            )(nn.elu(x_btd))
        for i in range(size.units):
            unit = ResidualUnit(size, size.dilation_growth**i, self.dtype, name=f'unit_{i}')
            x_btd = unit(x_btd)
        if self.up:
            return x_btd
        return size.conv(
            self.features, 2 * self.ratio, stride=self.ratio, dtype=self.dtype, name='down'
        )(nn.elu(x_btd))


class Lstm(nn.Module):
    """LSTM ``layers`` around which the input goes."""

    depth: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> [b, t, d]."""
        return lstm_stack(self.depth, self.dtype)(x_btd)[0] + x_btd


class SeanetEncoder(nn.Module):
    """Waveform in, latents out: ``conv_in``, ``stage_0``, ..., ``lstm``, ``conv_out``."""

    size: Size
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, waveform_bnc) -> dict[str, Any]:
        """Encodes waveforms.

        Args:
          waveform_bnc: [b, n, channels].

        Returns:
          'conv_in' [b, n, filters]; 'stages', each stage's output, a tuple; 'lstm' [b, t, d], if
          there is one; 'latents' [b, t, width], t = n / hop rounded up stage by stage.
        """
        size, dtype = self.size, self.dtype
        x = size.conv(size.filters, size.kernel, dtype=dtype, name='conv_in')(waveform_bnc)
        outputs: dict[str, Any] = {'conv_in': x, 'stages': ()}
        for i, ratio in enumerate(reversed(size.ratios)):
            features = size.filters * 2 ** (i + 1)
            x = Stage(size, ratio, features, dtype=dtype, name=f'stage_{i}')(x)
            outputs['stages'] += (x,)
        if size.lstm_layers:
            x = outputs['lstm'] = Lstm(size.lstm_layers, dtype, name='lstm')(x)
        x = size.conv(size.width, size.last_kernel, dtype=dtype, name='conv_out')(nn.elu(x))
        return outputs | {'latents': x}


class SeanetDecoder(nn.Module):
    """Latents in, waveform out: ``conv_in``, ``lstm``, ``stage_0``, ..., ``conv_out``."""

    size: Size
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, latents_btd: jax.Array) -> dict[str, Any]:
        """Decodes latents.

        Args:
          latents_btd: [b, t, width].

        Returns:
          'conv_in' [b, t, d]; 'lstm' [b, t, d], if there is one; 'stages', each stage's output, a
          tuple; 'waveform' float32 [b, t * hop, channels].
        """
        size, dtype = self.size, self.dtype
        width = size.filters * 2 ** len(size.ratios)
        x = size.conv(width, size.kernel, dtype=dtype, name='conv_in')(latents_btd)
        outputs: dict[str, Any] = {'conv_in': x, 'stages': ()}
        if size.lstm_layers:
            x = outputs['lstm'] = Lstm(size.lstm_layers, dtype, name='lstm')(x)
        for i, ratio in enumerate(size.ratios):
            features = width // 2 ** (i + 1)
            x = Stage(size, ratio, features, up=True, dtype=dtype, name=f'stage_{i}')(x)
            outputs['stages'] += (x,)
        x = size.conv(size.channels, size.last_kernel, dtype=dtype, name='conv_out')(nn.elu(x))
        return outputs | {'waveform': x.astype(jnp.float32)}
