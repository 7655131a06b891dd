"""Multi-head attention with a key mask."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.dense import Dense


class MultiHeadAttention(nn.Module):
    """Self-attention (Vaswani et al. 2017, section 3.2), softmax in float32.

    Parameters: Dense layers ``query``, ``key``, ``value``, ``out``, each [d, d].

    Attributes:
      heads: number of heads; must divide d.
      dtype: compute and result dtype.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd, mask_bt=None):
        """Attends from every position to the positions where the mask is True.

        Args:
          x_btd: [b, t, d].
          mask_bt: bool [b, t], or None for all positions. A row without any True attends evenly,
            so a wholly padded row stays finite.

        Returns:
          [b, t, d] in ``dtype``.
        """
        d = x_btd.shape[-1]

        def heads(name):
            y = Dense(d, dtype=self.dtype, name=name)(x_btd)
            return y.reshape(*y.shape[:-1], self.heads, d // self.heads)

        mask = None if mask_bt is None else mask_bt[:, None, None, :]
        y = jax.nn.dot_product_attention(heads('query'), heads('key'), heads('value'), mask=mask)
        return Dense(d, dtype=self.dtype, name='out')(y.reshape(x_btd.shape))
