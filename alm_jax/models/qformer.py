"""The querying transformer of BLIP-2 (Li et al. 2023, arXiv:2301.12597), over windows of time.

As a connector of SALMONN (Tang et al. 2023, arXiv:2310.13289, section 3.1): each window of an audio
encoder's vectors becomes a few vectors for a language model.
"""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.dense import Dense
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


class WindowQFormer(nn.Module):
    """A connector: queries of one QFormer to every window, then a linear map.

    Windows that the vectors do not fill are left out. All vectors of a window count, padding
    included, as in SALMONN, whose encoders always hear 30 s.

    Parameters: ``qformer``, ``out``.

    Attributes:
      features: size of the result, the width of the language model.
      size: of the QFormer.
      window, stride: vectors of a window, and between the starts of two.
      dtype: compute and result dtype.
    """

    features: int
    size: Size = Size()
    window: int = 17
    stride: int = 17
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bnd, mask_bn=None):
        """([b, n, d], not used) -> ([b, windows * queries, features], bool, all True)."""
        del mask_bn
        b, length, d = x_bnd.shape
        starts = jnp.arange(self._windows(length)) * self.stride
        cut = x_bnd[:, starts[:, None] + jnp.arange(self.window)]
        qformer = QFormer(self.size, self.dtype, name='qformer')
        tokens = qformer(cut.reshape(-1, self.window, d))['tokens']
        out = Dense(self.features, dtype=self.dtype, name='out')(tokens)
        out = out.reshape(b, -1, self.features)
        return out, jnp.ones(out.shape[:2], bool)

    def num_vectors(self, num_tokens):
        """How many come of so many vectors: an int or an array."""
        return self._windows(num_tokens) * self.size.queries

    def _windows(self, length):
        return (length - self.window) // self.stride + 1
