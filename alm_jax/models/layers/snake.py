"""The snake activation (Ziyin et al. 2020, https://arxiv.org/abs/2006.08195)."""

import jax.numpy as jnp
from flax import linen as nn


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, parameter ``alpha`` [d] float32, in the dtype of the input."""

    @nn.compact
    def __call__(self, x):
        """[..., d] -> [..., d]."""
        alpha = self.param('alpha', nn.initializers.ones, (x.shape[-1],))
        y = x.astype(jnp.float32)
        return (y + jnp.square(jnp.sin(alpha * y)) / (alpha + 1e-9)).astype(x.dtype)
