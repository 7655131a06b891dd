"""Heads that map an encoder's pooled output into the shared embedding space."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm


class Projection(nn.Module):
    """A linear map, or the residual MLP of MS-CLAP (Elizalde et al. 2022, arXiv 2206.04769).

    Two layers compute norm(h + dropout(expand(gelu(h)))) with h = linear(x); one layer is
    linear(dropout(x)). Parameters: ``linear`` and, with two layers, ``expand`` and ``norm``.

    Attributes:
      features: size of the embedding.
      layers: 1 or 2.
      dropout: rate.
      dtype: compute dtype.
    """

    features: int
    layers: int = 1
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        """[b, d] -> float32 [b, features]."""
        if self.layers not in (1, 2):
            raise config_lib.ConfigError(
                f'config.model.projection_layers is {self.layers}; it must be 1 or 2.'
            )
        drop = nn.Dropout(self.dropout, deterministic=not train)
        if self.layers == 1:
            x = drop(x)
        x = Dense(self.features, use_bias=False, dtype=self.dtype, name='linear')(x)
        if self.layers == 2:
            y = jax.nn.gelu(x, approximate=False)
            y = Dense(self.features, use_bias=False, dtype=self.dtype, name='expand')(y)
            x = LayerNorm(name='norm')(x + drop(y))
        return x.astype(jnp.float32)
