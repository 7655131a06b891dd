"""Convolutions over sequences and pictures, channels last."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from alm_jax.models.layers.weight_norm import normed_kernel


class Conv(nn.Module):
    """Convolution over one or two axes (the number of sizes).

    Parameters are float32: ``kernel`` [*size, in / groups, features], ``bias`` [features]; with
    ``weight_norm`` ``kernel_v`` of the kernel's shape and ``kernel_g`` [features] instead.

    Attributes:
      features: channels of the result.
      size: of the kernel along each axis.
      stride: along each axis; None is 1.
      padding: 'VALID', 'SAME', or (before, after) for each axis.
      dilation: along each axis; None is 1.
      groups: of channels.
      use_bias: whether a bias is added.
      weight_norm: whether each feature's kernel is g v / |v|.
      dtype: compute and result dtype.
    """

    features: int
    size: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    padding: str | Sequence[tuple[int, int]] = 'VALID'
    dilation: tuple[int, ...] | None = None
    groups: int = 1
    use_bias: bool = True
    weight_norm: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        """[b, *lengths, in] of any float dtype -> [b, *lengths', features] in ``dtype``."""
        shape = (*self.size, x.shape[-1] // self.groups, self.features)
        init = nn.initializers.lecun_normal()
        if self.weight_norm:
            kernel = normed_kernel(self, init, shape)
        else:
            kernel = self.param('kernel', init, shape)
        axes = 'HW'[: len(self.size)]
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            self.stride or (1,) * len(self.size),
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'),
            feature_group_count=self.groups,
        )
        if not self.use_bias:
            return y
        return y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
