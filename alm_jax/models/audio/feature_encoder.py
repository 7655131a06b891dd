"""The convolutions that turn a waveform into vectors (Baevski et al. 2020, section 2)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import ACTIVATIONS

EPSILON = 1e-5  # of its norms


class FeatureEncoder(nn.Module):
    """Strided convolutions with norms and activations, without padding.

    Parameters: for every convolution i ``conv_<i>``; with the norm 'layer' as many ``norm_<i>``,
    with 'group' only ``norm_0``.

    Attributes:
      widths, sizes, strides: of the convolutions, one each.
      norm: 'layer' normalises each vector after each convolution; 'group' normalises each channel
        over time, after the first one. Over all the time there is, padding included, as the
        original does; so what it says of a clip depends on the padding behind it.
      clip_statistics: of 'group', over the clip alone instead.
      use_bias: of the convolutions.
      activation: a key of ACTIVATIONS.
      dtype: compute and result dtype; norms are float32.
    """

    widths: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    norm: str = 'group'
    clip_statistics: bool = False
    use_bias: bool = False
    activation: str = 'gelu'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, waveform_bn, num_samples_b):
        """float32 [b, n] and int [b], the samples of each clip -> [b, t, d], see ``num_frames``."""
        x = waveform_bn[..., None].astype(self.dtype)
        for i, (width, size, stride) in enumerate(zip(self.widths, self.sizes, self.strides)):
            x = Conv(
                width,
                (size,),
                (stride,),
                use_bias=self.use_bias,
                dtype=self.dtype,
                name=f'conv_{i}',
            )(x)
            if self.norm == 'layer':
                x = LayerNorm(EPSILON, name=f'norm_{i}')(x)
            elif i == 0:
                frames_b = num_frames(num_samples_b, self.sizes[:1], self.strides[:1])
                x = _TimeNorm(name='norm_0')(x, frames_b if self.clip_statistics else None)
            x = ACTIVATIONS[self.activation](x)
        return x


def num_frames(num_samples: Any, sizes: Sequence[int], strides: Sequence[int]) -> Any:
    """Vectors that are of a clip's samples alone, at least one; an int or an integer array."""
    for size, stride in zip(sizes, strides):
        num_samples = (num_samples - size) // stride + 1
    return max(num_samples, 1) if isinstance(num_samples, int) else num_samples.clip(1)


def min_samples(sizes: Sequence[int], strides: Sequence[int]) -> int:
    """What one vector is made of, in samples."""
    samples = 1
    for size, stride in zip(reversed(sizes), reversed(strides)):
        samples = (samples - 1) * stride + size
    return samples


class _TimeNorm(nn.Module):
    """torch's GroupNorm with a group for every channel: float32 statistics over time."""

    @nn.compact
    def __call__(self, x_btc, frames_b=None):
        """[b, t, c], and how many of its positions are counted; None is all."""
        scale = self.param('scale', nn.initializers.ones, x_btc.shape[-1:])
        bias = self.param('bias', nn.initializers.zeros, x_btc.shape[-1:])
        x = x_btc.astype(jnp.float32)

        def mean(x):
            if frames_b is None:
                return jnp.mean(x, axis=1, keepdims=True)
            counted_bt = jnp.arange(x.shape[1]) < frames_b[:, None]
            total = jnp.sum(jnp.where(counted_bt[..., None], x, 0), axis=1, keepdims=True)
            return total / frames_b[:, None, None]

        x = x - mean(x)
        x = x * jax.lax.rsqrt(mean(jnp.square(x)) + EPSILON)
        return (x * scale + bias).astype(x_btc.dtype)
