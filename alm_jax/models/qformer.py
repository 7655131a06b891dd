"""The querying transformer of BLIP-2 (Li et al. 2023, arXiv:2301.12597)."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import transformer_stack


@dataclasses.dataclass(frozen=True)
class Size:
    """Shape of the transformer, BERT-base's but for the depth.

    Attributes:
      queries: vectors that come out, whatever goes in.
    """

    width: int = 768
    depth: int = 2
    heads: int = 12
    mlp_width: int = 3072
    queries: int = 1
    norm_epsilon: float = 1e-12
    activation: str = 'gelu'


class QFormer(nn.Module):
    """Learned queries that attend to themselves and to a memory, in every layer.

    Parameters: ``queries`` [queries, width], ``embedding_norm``, ``layers`` (see
    transformer_stack, with ``cross_attn``).

    Attributes:
      size: see Size.
      dtype: compute and result dtype.
    """

    size: Size = Size()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, memory_bsd, memory_mask_bs=None):
        """[b, s, e], bool [b, s] or None for all -> {'tokens' [b, queries, width], 'hidden'}."""
        size = self.size
        shape = (size.queries, size.width)
        queries = self.param('queries', nn.initializers.normal(0.02), shape)
        x = LayerNorm(size.norm_epsilon, name='embedding_norm')(queries).astype(self.dtype)
        stack = transformer_stack(
            size.depth,
            heads=size.heads,
            mlp_width=size.mlp_width,
            post_norm=True,
            norm_epsilon=size.norm_epsilon,
            activation=size.activation,
            cross=True,
            dtype=self.dtype,
        )
        x = jnp.broadcast_to(x, (len(memory_bsd), *shape))
        tokens, hidden = stack(x, None, None, None, memory_bsd.astype(self.dtype), memory_mask_bs)
        return {'tokens': tokens, 'hidden': hidden}
