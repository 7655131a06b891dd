"""Convolutions over sequences and pictures, channels last."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike


class Conv(nn.Module):
    """Convolution over one or two axes (the number of sizes).

    Parameters are float32: ``kernel`` [*size, in / groups, features], ``bias`` [features].

    Attributes:
      features: channels of the result.
      size: of the kernel along each axis.
      stride: along each axis; None is 1.
      padding: 'VALID', 'SAME', or (before, after) for each axis.
      dilation: along each axis; None is 1.
      groups: of channels.
      use_bias: whether a bias is added.
      dtype: compute and result dtype.
    """

    features: int
    size: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    padding: str | Sequence[tuple[int, int]] = 'VALID'
    dilation: tuple[int, ...] | None = None
    groups: int = 1
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        """[b, *lengths, in] of any float dtype -> [b, *lengths', features] in ``dtype``."""
        shape = (*self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape).astype(self.dtype)
        axes = 'HW'[: len(self.size)]
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel,
            self.stride or (1,) * len(self.size),
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=(f'N{axes}C', f'{axes}IO', f'N{axes}C'),
            feature_group_count=self.groups,
        )
        if not self.use_bias:
            return y
        return y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
