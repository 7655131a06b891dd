"""Heads that map an encoder's pooled output into the shared embedding space."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import ACTIVATIONS

KINDS = ('linear', 'residual', 'mlp')


class Projection(nn.Module):
    """A linear map, the residual MLP of MS-CLAP, or the MLP of LAION-CLAP.

    'linear' is linear(dropout(x)). 'residual' is norm(h + dropout(expand(gelu(h)))) with h =
    linear(x) (Elizalde et al. 2022, arXiv:2206.04769). 'mlp' is expand(activation(linear(x))), with
    biases (Wu et al. 2022, arXiv:2211.06687). Parameters: ``linear``, ``expand``, ``norm``.

    Attributes:
      features: size of the embedding.
      kind: one of KINDS.
      dropout: rate.
      activation: of 'mlp'.
      norm_epsilon: of the norm of 'residual'.
      dtype: compute dtype.
    """

    features: int
    kind: str = 'linear'
    dropout: float = 0.0
    activation: str = 'relu'
    norm_epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        """[b, d] -> float32 [b, features]."""
        if self.kind not in KINDS:
            hint = config_lib.did_you_mean(str(self.kind), KINDS)
            raise config_lib.ConfigError(f'config.model.projection is {self.kind!r}. {hint}')
        drop = nn.Dropout(self.dropout, deterministic=not train)

        def dense(name):
            return Dense(self.features, use_bias=self.kind == 'mlp', dtype=self.dtype, name=name)

        if self.kind == 'linear':
            x = dense('linear')(drop(x))
        elif self.kind == 'residual':
            x = dense('linear')(x)
            y = dense('expand')(jax.nn.gelu(x, approximate=False))
            x = LayerNorm(self.norm_epsilon, name='norm')(x + drop(y))
        else:
            x = dense('expand')(drop(ACTIVATIONS[self.activation](dense('linear')(x))))
        return x.astype(jnp.float32)
