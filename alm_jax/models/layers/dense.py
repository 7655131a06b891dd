"""The linear layer and the lookup table of every model here; parameters are float32."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike


class Dense(nn.Module):
    """``x @ kernel + bias`` over the last axis.

    Parameters are float32: ``kernel`` [in, features] and, with ``use_bias``, ``bias`` [features].

    Attributes:
      features: size of the last axis of the result.
      use_bias: whether a bias is added.
      dtype: compute and result dtype.
    """

    features: int
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x):
        """[..., in] of any float dtype -> [..., features] in ``dtype``."""
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        # Rows flattened: XLA's CPU backward pass of a product with several row axes is 2 to 3 times
        # slower.
        y = x.astype(self.dtype).reshape(-1, x.shape[-1]) @ kernel.astype(self.dtype)
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


class Embedding(nn.Module):
    """A float32 lookup table, parameter ``embedding`` [rows, features]."""

    rows: int
    features: int
    embedding_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self):
        """The whole table; index it."""
        return self.param('embedding', self.embedding_init, (self.rows, self.features))
