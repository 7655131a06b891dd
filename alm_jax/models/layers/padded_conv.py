"""Convolutions of neural codecs, padded so that t samples become ceil(t / stride) positions.

As EnCodec's code has them (Defossez et al. 2022, https://arxiv.org/abs/2210.13438, section 3.1):
causal ones are padded on their left by size - stride, others on both sides.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.conv import Conv
from alm_jax.models.layers.conv_transpose import ConvTranspose
from alm_jax.models.layers.norm import GroupNorm

NORMS = ('weight', 'group', 'none')


def padded_length(length: int, stride: int) -> int:
    """``length`` rounded up to whole strides."""
    return -(-length // stride) * stride


def pad(x_btd, before: int, after: int, mode: str):
    """Pads the time axis as jnp.pad's ``mode`` says.

    A sequence too short to be reflected gets zeros at its end first, which are cut off again.
    """
    lacking = 0
    if mode == 'reflect':
        lacking = max(0, max(before, after) - x_btd.shape[1] + 1)
        x_btd = jnp.pad(x_btd, ((0, 0), (0, lacking), (0, 0)))
    x_btd = jnp.pad(x_btd, ((0, 0), (before, after), (0, 0)), mode)
    return x_btd[:, : x_btd.shape[1] - lacking]


class PaddedConv(nn.Module):
    """Padding, Conv ``conv`` and, with the norm 'group', GroupNorm ``norm`` of one group.

    Attributes:
      features, size, stride, dilation, use_bias: of Conv, along its one axis.
      causal: whether all padding but what fills up the last stride is on the left.
      pad_mode: 'reflect', 'constant' (zeros) or 'edge'.
      norm: one of NORMS; 'weight' is weight normalisation of the kernel.
      dtype: compute and result dtype.
    """

    features: int
    size: int
    stride: int = 1
    dilation: int = 1
    use_bias: bool = True
    causal: bool = True
    pad_mode: str = 'reflect'
    norm: str = 'weight'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, in] -> [b, ceil(t / stride), features]."""
        length = x_btd.shape[1]
        total = (self.size - 1) * self.dilation + 1 - self.stride
        after = 0 if self.causal else total // 2
        extra = padded_length(length, self.stride) - length
        x = Conv(
            self.features,
            (self.size,),
            stride=(self.stride,),
            dilation=(self.dilation,),
            use_bias=self.use_bias,
            weight_norm=self.norm == 'weight',
            dtype=self.dtype,
            name='conv',
        )(pad(x_btd, total - after, after + extra, self.pad_mode))
        return GroupNorm(name='norm')(x) if self.norm == 'group' else x


class PaddedConvTranspose(nn.Module):
    """ConvTranspose ``conv``, GroupNorm ``norm`` with the norm 'group', and trimming.

    Attributes:
      features, size, stride, groups, use_bias: of ConvTranspose.
      causal: whether the end is trimmed rather than both sides.
      trim_right_ratio: share of the trimming at the end where it is causal.
      norm: one of NORMS.
      dtype: compute and result dtype.
    """

    features: int
    size: int
    stride: int
    groups: int = 1
    use_bias: bool = True
    causal: bool = True
    trim_right_ratio: float = 1.0
    norm: str = 'weight'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, in] -> [b, t * stride, features]."""
        total = self.size - self.stride
        end = math.ceil(total * self.trim_right_ratio) if self.causal else total // 2
        trim, late = (total - end, end), self.norm == 'group'
        x = ConvTranspose(
            self.features,
            self.size,
            self.stride,
            trim=(0, 0) if late else trim,  # group norm counts what is trimmed
            groups=self.groups,
            use_bias=self.use_bias,
            weight_norm=self.norm == 'weight',
            dtype=self.dtype,
            name='conv',
        )(x_btd)
        if not late:
            return x
        x = GroupNorm(name='norm')(x)
        return x[:, trim[0] : x.shape[1] - trim[1]]
