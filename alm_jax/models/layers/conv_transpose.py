"""Transposed convolution over sequences, channels last."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.weight_norm import normed_kernel


class ConvTranspose(nn.Module):
    """The transpose of a strided convolution: positions add ``size`` samples, ``stride`` apart.

    Written as one product and a sum of shifted blocks of ``stride`` samples, so that no zeros
    between the positions are multiplied.

    Parameters are float32: ``kernel`` [size, in, features / groups], ``bias`` [features]; with
    ``weight_norm`` ``kernel_v`` of the kernel's shape and ``kernel_g`` [in] instead.

    Attributes:
      features: channels of the result.
      size: of the kernel.
      stride: samples a position.
      trim: samples cut off at the start and at the end.
      groups: of channels.
      use_bias: whether a bias is added.
      weight_norm: whether each input channel's kernel is g v / |v|, as torch has it.
      dtype: compute and result dtype.
    """

    features: int
    size: int
    stride: int
    trim: tuple[int, int] = (0, 0)
    groups: int = 1
    use_bias: bool = True
    weight_norm: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, in] of any float dtype -> [b, (t - 1) stride + size - trims, features]."""
        b, t, d = x_btd.shape
        shape = (self.size, d, self.features // self.groups)
        init = nn.initializers.lecun_normal()
        if self.weight_norm:
            kernel = normed_kernel(self, init, shape, axis=1)
        else:
            kernel = self.param('kernel', init, shape)
        blocks = -(-self.size // self.stride)
        kernel = jnp.pad(kernel, ((0, blocks * self.stride - self.size), (0, 0), (0, 0)))
        kernel = kernel.reshape(blocks * self.stride, self.groups, d // self.groups, -1)
        x = x_btd.astype(self.dtype).reshape(b, t, self.groups, d // self.groups)
        y = jnp.einsum('btgi,kgio->btkgo', x, kernel.astype(self.dtype))
        y = y.reshape(b, t, blocks, self.stride, self.features)
        y = sum(
            jnp.pad(y[:, :, i], ((0, 0), (i, blocks - 1 - i), (0, 0), (0, 0)))
            for i in range(blocks)
        )
        start, end = self.trim
        y = y.reshape(b, -1, self.features)[:, start : (t - 1) * self.stride + self.size - end]
        if not self.use_bias:
            return y
        return y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
