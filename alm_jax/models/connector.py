"""From an audio encoder's vectors to a language model's: linear, or an MLP over stacked frames."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.transformer import ACTIVATIONS


class MlpConnector(nn.Module):
    """A linear map (Qwen2-Audio), or two around an activation (Audio Flamingo 3, Voxtral).

    Parameters: Dense ``out`` and, with ``hidden``, Dense ``hidden`` before it.

    Attributes:
      features: size of the result, the width of the language model.
      hidden: size between two maps; None is one map.
      stack: so many neighbouring vectors, laid end to end, become one.
      activation: between the maps, a key of ACTIVATIONS.
      use_bias: of the maps.
      dtype: compute and result dtype.
    """

    features: int
    hidden: int | None = None
    stack: int = 1
    activation: str = 'gelu'
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bnd, mask_bn):
        """([b, n, d], bool [b, n]) -> ([b, n // stack, features], bool [b, n // stack]).

        A stack counts when all of its vectors do; what fills no stack is left out.
        """
        b, length, d = x_bnd.shape
        length //= self.stack
        x = x_bnd[:, : length * self.stack].reshape(b, length, self.stack * d)
        mask = mask_bn[:, : length * self.stack].reshape(b, length, self.stack).all(axis=2)

        def dense(features, name):
            return Dense(features, use_bias=self.use_bias, dtype=self.dtype, name=name)

        if self.hidden is not None:
            x = ACTIVATIONS[self.activation](dense(self.hidden, 'hidden')(x))
        return dense(self.features, 'out')(x), mask

    def num_vectors(self, num_tokens):
        """How many of the result count: an int or an array."""
        return num_tokens // self.stack
