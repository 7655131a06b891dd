"""EnCodec, a neural codec (Defossez et al. 2022, https://arxiv.org/abs/2210.13438)."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.audio import seanet
from alm_jax.models.layers.padded_conv import padded_length
from alm_jax.models.layers.residual_vq import ResidualVectorQuantizer


@dataclasses.dataclass(frozen=True)
class Size:
    """Encoder, decoder, codebooks and chunks.

    Attributes:
      halves: of encoder and decoder.
      codebooks: there are.
      rows: codes of each.
      chunk: samples that are coded at a time; None is all.
      chunk_stride: samples between the starts of two chunks; overlaps are faded.
      normalise: whether each chunk is divided by its root mean square, which is kept.
    """

    halves: seanet.Size = dataclasses.field(default_factory=seanet.Size)
    codebooks: int = 32
    rows: int = 1024
    chunk: int | None = None
    chunk_stride: int | None = None
    normalise: bool = False

    @property
    def hop(self) -> int:
        """Samples a code."""
        return math.prod(self.halves.ratios)


VARIANTS = {
    'mu': Size(seanet.Size(16, filters=4, ratios=(4, 2)), codebooks=4, rows=64),
    '24khz': Size(),  # facebook/encodec_24khz
    '48khz': Size(  # facebook/encodec_48khz
        seanet.Size(channels=2, causal=False, norm='group'),
        codebooks=16,
        chunk=48_000,
        chunk_stride=47_520,
        normalise=True,
    ),
    '32khz': Size(  # facebook/encodec_32khz, MusicGen's
        seanet.Size(filters=64, ratios=(8, 5, 4, 4), causal=False, shortcut=False),
        codebooks=4,
        rows=2048,
    ),
}


class Encodec(nn.Module):
    """Waveforms to codes and back.

    Parameters: ``encoder`` and ``decoder`` (see ``seanet``), ``quantizer``.

    As published, padding is heard: a causal model's codes are the same in any bucket but for the
    last one of a clip that is not a multiple of ``hop``; one that is not causal hears what stands
    behind the end within its receptive field, and group norm (48 kHz) hears the whole chunk, which
    is therefore to be filled up with zeros to its full length.

    Attributes:
      size: see Size.
      dtype: compute dtype; norms, quantisation and the waveform are float32.
    """

    size: Size = dataclasses.field(default_factory=Size)
    dtype: DTypeLike = jnp.float32

    def setup(self):
        size = self.size
        self.encoder = seanet.SeanetEncoder(size.halves, self.dtype)
        self.decoder = seanet.SeanetDecoder(size.halves, self.dtype)
        self.quantizer = ResidualVectorQuantizer(size.codebooks, size.rows, size.halves.width)

    def __call__(self, waveform_bnc, num_samples_b=None, *, codebooks: int | None = None):
        """``encode`` and ``decode``: what both return, 'decoder' with the latter's intermediates.

        'waveform' is cut to the n samples given.
        """
        outputs = self.encode(waveform_bnc, num_samples_b, codebooks=codebooks)
        decoded = self.decode(outputs['codes'], outputs.get('scales'))
        waveform = decoded.pop('waveform')[:, : waveform_bnc.shape[1]]
        return outputs | {'waveform': waveform, 'decoder': decoded}

    def encode(self, waveform_bnc, num_samples_b=None, *, codebooks: int | None = None):
        """Codes of waveforms, chunk after chunk.

        Args:
          waveform_bnc: float [b, n, channels], or [b, n] of mono models.
          num_samples_b: int [b]; what stands behind a clip's end is heard as zeros. None is n.
          codebooks: how many of them, the first ones; None is all.

        Returns:
          'encoder', a tuple: the intermediates of SeanetEncoder for all chunks of one length
          [b * m, ...], then those of a shorter last one; 'latents' [b, t, d], those of all chunks
          in their order; 'codes' int32 [b, q, t]; 'quantised' float32 [b, t, d]; 'frame_mask' bool
          [b, t], the codes that begin within a clip; 'scales' float32 [b, chunks] if there are any.

        Raises:
          ValueError: chunks whose last but one is short as well; fill the waveform up.
        """
        size = self.size
        x = waveform_bnc[..., None] if waveform_bnc.ndim == 2 else waveform_bnc
        length = x.shape[1]
        if num_samples_b is not None:
            own = jnp.arange(length) < num_samples_b[:, None]
            x = jnp.where(own[..., None], x, 0)
        outputs: dict[str, Any] = {'encoder': ()}
        starts, latents, scales = [], [], []
        for offsets, samples in self._chunks(length):
            chunks = jnp.stack([x[:, start : start + samples] for start in offsets], axis=1)
            chunks = chunks.astype(jnp.float32)
            if size.normalise:
                power = jnp.mean(jnp.square(jnp.mean(chunks, axis=-1)), axis=-1)
                scale = jnp.sqrt(jnp.maximum(power, 1e-30)) + 1e-8  # no NaN gradient of silence
                chunks = chunks / scale[..., None, None]
                scales.append(scale)
            coded = self.encoder(chunks.reshape(-1, *chunks.shape[2:]).astype(self.dtype))
            outputs['encoder'] += (coded,)
            frames = coded['latents'].shape[1]
            latents.append(coded['latents'].reshape(x.shape[0], -1, size.halves.width))
            starts += [start + np.arange(frames) * size.hop for start in offsets]
        outputs['latents'] = jnp.concatenate(latents, axis=1)
        coded = self.quantizer(outputs['latents'], codebooks)
        outputs['codes'], outputs['quantised'] = coded
        ends_b = jnp.full(x.shape[0], length) if num_samples_b is None else num_samples_b
        outputs['frame_mask'] = jnp.concatenate([jnp.asarray(s) for s in starts]) < ends_b[:, None]
        if size.normalise:
            outputs['scales'] = jnp.concatenate(scales, axis=1)
        return outputs

    def decode(self, codes_bqt, scales_bm=None):
        """Waveforms of codes.

        Args:
          codes_bqt: int32 [b, q, t], q at most the number of codebooks. Of a chunked model all
            chunks but the last have as many codes as a full one.
          scales_bm: float [b, chunks], if the model has them.

        Returns:
          'quantised' float32 [b, t, d]; 'decoder', a tuple: the intermediates of SeanetDecoder for
          all chunks of one length, then those of a shorter last one; 'waveform' float32
          [b, samples, channels], at least as long as what was coded.
        """
        size = self.size
        quantised = self.quantizer.decode(codes_bqt)
        batch, count = quantised.shape[:2]
        full = count if size.chunk is None else padded_length(size.chunk, size.hop) // size.hop
        outputs: dict[str, Any] = {'quantised': quantised, 'decoder': ()}
        waves = []
        whole = count // full * full
        for start, stop, frames in ((0, whole, full), (whole, count, count - whole)):
            if start == stop:
                continue
            latents = quantised[:, start:stop].reshape(-1, frames, quantised.shape[-1])
            decoded = self.decoder(latents.astype(self.dtype))
            outputs['decoder'] += (decoded,)
            wave = decoded['waveform'].reshape(batch, -1, frames * size.hop, size.halves.channels)
            waves += [wave[:, i] for i in range(wave.shape[1])]
        if scales_bm is not None:
            waves = [wave * scales_bm[:, i, None, None] for i, wave in enumerate(waves)]
        stride = waves[0].shape[1] if size.chunk_stride is None else size.chunk_stride
        return outputs | {'waveform': overlap_add(waves, stride)}

    def _chunks(self, length: int) -> list[tuple[list[int], int]]:
        """(starts, samples) of the chunks of one length: full ones, then a shorter last one."""
        chunk = self.size.chunk or length
        starts = list(range(0, length, self.size.chunk_stride or length))
        full = [start for start in starts if start + chunk <= length]
        short = starts[len(full) :]
        if len(short) > 1:
            raise ValueError(
                f'{length} samples leave {len(short)} short chunks; fill them up to '
                f'{short[0] + chunk} samples.'
            )
        groups = [(full, chunk), (short, length - short[0] if short else 0)]
        return [(starts, samples) for starts, samples in groups if starts]


def overlap_add(waves, stride: int):
    """Chunks joined, each weighted by its distance to its nearer end where chunks overlap.

    Args:
      waves: of [b, n, c] each; the last may be shorter.
      stride: samples between the starts of two.

    Returns:
      float32 [b, samples, c].
    """
    if len(waves) == 1:
        return waves[0]
    size = waves[0].shape[1]
    ramp = np.linspace(0, 1, size + 2)[1:-1]
    weight = (0.5 - np.abs(ramp - 0.5)).astype(np.float32)
    length = stride * (len(waves) - 1) + waves[-1].shape[1]
    total, weights = 0.0, np.zeros(length, np.float32)
    for i, wave in enumerate(waves):
        start, samples = i * stride, wave.shape[1]
        after = length - start - samples
        part = wave * weight[:samples, None]
        total = total + jnp.pad(part, ((0, 0), (start, max(after, 0)), (0, 0)))[:, :length]
        weights[start : start + samples] += weight[: min(samples, length - start)]
    return total / weights[:, None]
