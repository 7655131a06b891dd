"""Positions from a grouped convolution over the sequence itself (wav2vec 2.0, BEATs)."""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from alm_jax.models.layers.norm import FrozenBatchNorm
from alm_jax.models.layers.transformer import ACTIVATIONS
from alm_jax.models.layers.weight_norm import normed_kernel


class PositionalConv(nn.Module):
    """What is added to a sequence as its positions (Baevski et al. 2020, section 2).

    https://arxiv.org/abs/2006.11477. The kernel is weight-normed over all but its length (Salimans
    and Kingma 2016, https://arxiv.org/abs/1602.07868): tap i is
    ``kernel_g[i] * kernel_v[i] / |kernel_v[i]|``.

    Parameters are float32: ``kernel_g`` [size], ``kernel_v`` [size, d / groups, d], ``bias`` [d];
    with ``batch_norm`` a plain ``kernel`` instead of the first two, and ``norm``.

    Attributes:
      size: of the kernel, 128 in the original; position t sees those from t - size // 2 on.
      groups: of channels.
      activation: of the result, a key of ACTIVATIONS.
      batch_norm: of the input, in place of the weight norm (some HuBERT models).
      norm_epsilon: of that norm.
      dtype: compute and result dtype.
    """

    size: int
    groups: int
    activation: str = 'gelu'
    batch_norm: bool = False
    norm_epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> [b, t, d] in ``dtype``; set padding to zero before."""
        if self.batch_norm:
            x_btd = FrozenBatchNorm(self.norm_epsilon, use_scale=True, name='norm')(x_btd)
        kernel = self._kernel(x_btd.shape[-1]).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, x_btd.shape[-1:])
        before = self.size // 2
        padding = [(before, self.size - 1 - before)]
        # A convolution for each group: XLA's grouped one takes twice as long on a CPU, and its
        # gradient twenty times.
        parts = zip(
            jnp.split(x_btd.astype(self.dtype), self.groups, axis=-1),
            jnp.split(kernel, self.groups, axis=-1),
        )
        layout = ('NHC', 'HIO', 'NHC')
        y = jnp.concatenate(
            [lax.conv_general_dilated(x, k, (1,), padding, None, None, layout) for x, k in parts],
            axis=-1,
        )
        return ACTIVATIONS[self.activation](y + bias.astype(self.dtype))

    def _kernel(self, width: int):
        """float32 [size, width / groups, width]."""
        shape = (self.size, width // self.groups, width)
        start = nn.initializers.normal((4 / (self.size * width)) ** 0.5)
        if self.batch_norm:
            return self.param('kernel', start, shape)
        return normed_kernel(self, start, shape, axis=0)
