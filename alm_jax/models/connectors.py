"""From an audio encoder's vectors to a language model's.

A connector takes ([b, n, e], bool [b, n]), the vectors of clips and which of them count, the first
ones of each clip, and gives ([b, m, features], bool [b, m]) of the same kind. How many count it
also says without running: ``num_vectors`` of so many, an int or an array of numpy.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models import qformer
from alm_jax.models.clapcap import PrefixMapper
from alm_jax.models.gated_cross_attention import GatedCrossAttention
from alm_jax.models.layers import windows
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.transformer import ACTIVATIONS
from alm_jax.models.perceiver import Perceiver
from alm_jax.models.projection import Projection
from alm_jax.models.two_tower import unit_norm


class MlpConnector(nn.Module):
    """A linear map (Qwen2-Audio), or two around an activation (Audio Flamingo 3, Voxtral).

    Parameters: Dense ``out`` and, with ``hidden``, Dense ``hidden`` before it.

    Attributes:
      features: size of the result, the width of the language model.
      hidden: size between two maps; 0 is ``features``, None is one map.
      stack: so many neighbouring vectors, laid end to end, become one (Voxtral).
      pool: so many neighbouring vectors become their mean (LTU), before any are stacked.
      activation: between the maps, a key of ACTIVATIONS.
      use_bias: of the maps.
      dtype: compute and result dtype.
    """

    features: int
    hidden: int | None = None
    stack: int = 1
    pool: int = 1
    activation: str = 'gelu'
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bnd, mask_bn):
        """([b, n, d], bool [b, n]) -> ([b, m, features], bool [b, m]), see ``num_vectors``.

        A stack or pool counts when all of its vectors do; what fills none is left out.
        """
        b, n, d = x_bnd.shape
        together = self.stack * self.pool
        length = n // together
        x = x_bnd[:, : length * together].reshape(b, length, self.stack, self.pool, d)
        x = jnp.mean(x, axis=3).reshape(b, length, self.stack * d)
        mask = mask_bn[:, : length * together].reshape(b, length, together).all(axis=2)

        def dense(features, name):
            return Dense(features, use_bias=self.use_bias, dtype=self.dtype, name=name)

        if self.hidden is not None:
            hidden = dense(self.hidden or self.features, 'hidden')
            x = ACTIVATIONS[self.activation](hidden(x))
        return dense(self.features, 'out')(x), mask

    def num_vectors(self, num_tokens):
        """How many of the result count: an int or an array."""
        return num_tokens // (self.stack * self.pool)


class QFormerConnector(nn.Module):
    """Queries of one QFormer to the clip or to every window of it, then a linear map.

    Windows that the vectors that count do not fill are left out. SALMONN (Tang et al. 2023,
    arXiv:2310.13289, section 3.1) has windows, GAMA (https://arxiv.org/abs/2406.11768) none.

    Parameters: ``qformer``, ``out``.

    Attributes:
      features: size of the result, the width of the language model.
      size: of the QFormer.
      window, stride: vectors of a window, and between the starts of two; None is the whole clip.
      dtype: compute and result dtype.
    """

    features: int
    size: qformer.Size = qformer.Size()
    window: int | None = None
    stride: int | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bnd, mask_bn):
        """([b, n, d], bool [b, n]) -> ([b, windows * queries, features], bool of these)."""
        b, length, d = x_bnd.shape
        if self.window is None:
            memory, inside, counts = x_bnd, mask_bn, mask_bn[:, :1]
        else:
            starts = np.arange(max(self._windows(length), 0)) * self.stride
            cut = starts[:, None] + np.arange(self.window)
            memory, inside = x_bnd[:, cut].reshape(-1, self.window, d), None
            counts = mask_bn[:, cut].all(axis=2)
        tokens = qformer.QFormer(self.size, self.dtype, name='qformer')(memory, inside)['tokens']
        out = Dense(self.features, dtype=self.dtype, name='out')(tokens)
        counts = jnp.repeat(counts, self.size.queries, axis=1)
        return out.reshape(b, -1, self.features), counts

    def num_vectors(self, num_tokens):
        """How many of the result count: an int or an array."""
        if self.window is None:
            return self.size.queries * (num_tokens > 0)
        count = self._windows(num_tokens)
        return self.size.queries * count * (count > 0)

    def _windows(self, length):
        return (length - self.window) // self.stride + 1


def _q_former(
    features,
    dtype,
    queries=32,
    width=768,
    depth=2,
    heads=12,
    mlp_width=3072,
    window=None,
    stride=None,
):
    size = qformer.Size(width, depth, heads, mlp_width, queries)
    return QFormerConnector(features, size, window, stride or window, dtype)


class Mapper(nn.Module):
    """The mean of a clip's vectors to a prefix, by a transformer (Pengi, ClipCap).

    Parameters: ``mapper``; with ``embed_dim``, ``projection`` before it.

    Attributes:
      features: size of the result, the width of the language model.
      length: vectors that come out.
      clip_length: positions that the mean is spread over.
      depth: of the transformer.
      embed_dim: of a residual Projection between (MS-CLAP's, arXiv:2305.11834); None is none.
      dtype: compute and result dtype.
    """

    features: int
    length: int = 40
    clip_length: int = 40
    depth: int = 4
    embed_dim: int | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bnd, mask_bn):
        """([b, n, d], bool [b, n]) -> ([b, length, features], all True if any vector counts)."""
        x = windows.masked_mean(x_bnd, mask_bn)
        if self.embed_dim is not None:
            x = Projection(self.embed_dim, 'residual', dtype=self.dtype, name='projection')(x)
        mapper = PrefixMapper(
            self.length, self.clip_length, self.features, self.depth, self.dtype, name='mapper'
        )
        out = mapper(unit_norm(x))
        return out, jnp.broadcast_to(mask_bn[:, :1], out.shape[:2])

    def num_vectors(self, num_tokens):
        """How many of the result count: an int or an array."""
        return self.length * (num_tokens > 0)


# name -> what makes it of features, dtype and the user's options
CONNECTORS: dict[str, Callable[..., nn.Module]] = {
    'linear': MlpConnector,
    'mlp': functools.partial(MlpConnector, hidden=0),
    'stack': functools.partial(MlpConnector, hidden=0, stack=4),
    'pool': functools.partial(MlpConnector, pool=2),
    'q_former': _q_former,
    'window_q_former': functools.partial(_q_former, queries=1, window=17),
    'perceiver': Perceiver,
    'mapper': Mapper,
    'gated_cross_attention': GatedCrossAttention,
}
