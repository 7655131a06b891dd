"""Biases of attention scores that depend on the distance of two positions (T5, WavLM, BEATs)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.dense import Dense, Embedding


def buckets(distances: np.ndarray, count: int, farthest: int) -> np.ndarray:
    """int: the bucket of every distance (Raffel et al. 2020, section 2.1; its released code).

    The lower half of the buckets is for keys at or before the query, the upper half for those
    after it. Half of each is for one distance a bucket, the rest grows with the logarithm.

    Args:
      distances: int, place of the key less that of the query.
      count: of buckets, even.
      farthest: this distance and all beyond it share the last bucket.
    """
    half = count // 2
    exact = half // 2
    far = np.maximum(np.abs(distances), 1).astype(np.float32)
    # In float32, as the original: the result is cut to a whole number.
    steps = np.log(far / np.float32(exact)) / np.float32(math.log(farthest / exact))
    far = np.minimum(exact + (steps * np.float32(half - exact)).astype(np.int64), half - 1)
    near = np.abs(distances)
    return np.where(distances > 0, half, 0) + np.where(near < exact, near, far)


class RelativeBias(nn.Module):
    """A learned number for every head and bucket of distances; parameter ``embedding``.

    Attributes:
      heads: of the attention.
      count, farthest: see ``buckets``.
    """

    heads: int
    count: int = 320
    farthest: int = 800

    @nn.compact
    def __call__(self, length: int):
        """float32 [1, heads, length, length], for queries and keys of the same sequence."""
        table = Embedding(self.count, self.heads, name='embedding')()
        distances = np.arange(1 - length, length)
        by_distance = table[buckets(distances, self.count, self.farthest)].T
        return by_pair(by_distance)[None]


def by_pair(values_hr):
    """[h, 2t - 1], by distances 1 - t to t - 1, -> [h, t, t], by query and key.

    Without a gather, whose gradient adds up t * t single numbers: rows of 2t numbers laid end to
    end and cut at 2t - 1 are each one further to the right.
    """
    h, count = values_hr.shape
    t = (count + 1) // 2
    rows = jnp.broadcast_to(jnp.pad(values_hr, ((0, 0), (0, 1)))[:, None], (h, t, 2 * t))
    flat = rows.reshape(h, -1)[:, : t * count]
    return flat.reshape(h, t, count)[:, :, t - 1 :]


class BiasGate(nn.Module):
    """Scales the bias of every query by what the query is (Chi et al. 2022, XLM-E, section 3.3).

    https://arxiv.org/abs/2106.16138; Chen et al. 2021 (WavLM), section 3.1,
    https://arxiv.org/abs/2110.13900. Two gates a head and query, each a sigmoid of a sum of four
    outputs of Dense ``proj``: the bias is multiplied by 2 + a * (b * scale - 1).

    Parameters: ``proj`` [head_dim, 8] with a bias, ``scale`` [heads].
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bthd, bias_bhts):
        """[b, t, heads, head_dim] and a bias that broadcasts to [b, heads, t, s] -> the latter."""
        scale_h = self.param('scale', nn.initializers.ones, x_bthd.shape[2:3])
        y = Dense(8, dtype=self.dtype, name='proj')(x_bthd).astype(jnp.float32)
        y = jax.nn.sigmoid(jnp.sum(y.reshape(*y.shape[:-1], 2, 4), axis=-1))
        gate_bth = 2 + y[..., 0] * (y[..., 1] * scale_h - 1)
        return (gate_bth.swapaxes(1, 2)[..., None] * bias_bhts).astype(self.dtype)
