"""Scores of attention that depend on the query and on the distance of the key.

Modules for ``MultiHeadAttention.relative``: they take the queries and the scale of the scores and
give the queries of the content's scores and what is added to these, by query and key.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.dense import Dense


class SinusoidScores(nn.Module):
    """Transformer-XL's (Dai et al. 2019, section 3.3, https://arxiv.org/abs/1901.02860).

    As the Conformer has them: (query + u) key + (query + v) W sinusoids(distance).

    Parameters: ``content_bias`` (u) and ``position_bias`` (v) [heads, head_dim], Dense
    ``position`` (W) without a bias.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, query_bthd, scale: float):
        """([b, t, h, d], scale) -> ([b, t, h, d], [b, h, t, t]) in ``dtype``."""
        t, heads, size = query_bthd.shape[1:]

        def bias(name):
            start = nn.initializers.xavier_uniform()
            return self.param(name, start, (heads, size)).astype(self.dtype)

        by_distance = sinusoids(t, heads * size)
        by_distance = Dense(heads * size, use_bias=False, dtype=self.dtype, name='position')(
            by_distance
        ).reshape(-1, heads, size)
        turned = query_bthd + bias('position_bias')
        scores = jnp.einsum('bthd,rhd->bhtr', turned, by_distance)
        return query_bthd + bias('content_bias'), by_pair(scores) * scale


class EmbeddingScores(nn.Module):
    """Shaw et al. 2018, https://arxiv.org/abs/1803.02155: a learned vector for each distance.

    Parameter ``embedding`` [behind + 1 + ahead, head_dim], which all heads share.

    Attributes:
      behind, ahead: the farthest distances with a vector of their own, before and after the query.
      dtype: compute dtype.
    """

    behind: int
    ahead: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, query_bthd, scale: float):
        """([b, t, h, d], scale) -> ([b, t, h, d], [b, h, t, t]) in ``dtype``."""
        t, _, size = query_bthd.shape[1:]
        rows = self.behind + 1 + self.ahead
        table = self.param('embedding', nn.initializers.normal(0.02), (rows, size))
        scores = jnp.einsum('bthd,rd->bhtr', query_bthd, table.astype(self.dtype))
        # One column a distance, 1 - t to t - 1: outer ones cut off, or repeated.
        scores = scores[..., max(self.behind - t + 1, 0) : self.behind + t]
        lacking = (max(t - 1 - self.behind, 0), max(t - 1 - self.ahead, 0))
        scores = jnp.pad(scores, ((0, 0), (0, 0), (0, 0), lacking), mode='edge')
        return query_bthd, by_pair(scores) * scale


def sinusoids(length: int, width: int):
    """float32 [2 * length - 1, width]: of how far the key is behind, length - 1 to 1 - length.

    Sines and cosines alternate.
    """
    rate = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width))
    angle = jnp.arange(length - 1, -length, -1, dtype=jnp.float32)[:, None] * rate
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(-1, width)


def by_pair(scores_bhtr):
    """[b, h, t, 2t - 1], by place of key less query, from 1 - t -> [b, h, t, t], by key.

    Without a gather: rows that are one longer, laid end to end and cut at 2t - 1, are each one
    further to the right (Dai et al. 2019, appendix B).
    """
    b, h, t, count = scores_bhtr.shape
    flat = jnp.pad(scores_bhtr, ((0, 0), (0, 0), (0, 0), (0, 1))).reshape(b, h, -1)
    return flat[..., t - 1 : t - 1 + t * count].reshape(b, h, t, count)[..., :t]
