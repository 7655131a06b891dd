"""Attention biases learned for buckets of distances (Raffel et al. 2019, section 2.1, T5).

https://arxiv.org/abs/1910.10683. Also those of WavLM and BEATs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.dense import Dense


class RelativeBias(nn.Module):
    """A bias for every head and bucket of distances, added to the scores of attention.

    Parameter ``embedding`` [buckets, heads], float32.

    Attributes:
      heads: of the attention.
      buckets: rows of the table.
      max_distance: from here on all distances share a bucket.
      bidirectional: half of the buckets are for positions ahead; otherwise those have none and
        share that of distance 0.
    """

    heads: int
    buckets: int = 32
    max_distance: int = 128
    bidirectional: bool = True

    @nn.compact
    def __call__(self, query_positions_bt, key_positions_bs):
        """The bias between positions, int32 [b or 1, t] and [b or 1, s].

        Returns:
          float32 [b or 1, heads, t, s].
        """
        start = nn.initializers.normal(0.02)
        table = self.param('embedding', start, (self.buckets, self.heads))
        distance = key_positions_bs[:, None, :] - query_positions_bt[:, :, None]
        distance = jnp.clip(distance, -self.max_distance, self.max_distance) + self.max_distance
        rows = bucket_of_distance(self.buckets, self.max_distance, self.bidirectional)
        return table[jnp.asarray(rows)[distance]].transpose(0, 3, 1, 2)


def bucket_of_distance(buckets: int, max_distance: int, bidirectional: bool = True) -> np.ndarray:
    """int32 [2 * max_distance + 1]: the buckets of the distances from -max_distance on.

    Negative distances are behind the query. Half of a direction's buckets are for single
    distances, the others for ranges that grow by a constant factor. In float32, as the originals
    count: where a range begins at a whole distance, rounding decides.
    """
    distance = np.arange(-max_distance, max_distance + 1)
    ahead = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        ahead = buckets * (distance > 0)
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    single = buckets // 2
    growth = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(single))
    growth = growth / np.float32(np.log(max_distance / single)) * np.float32(buckets - single)
    far = np.minimum(single + growth.astype(int), buckets - 1)
    return (ahead + np.where(distance < single, distance, far)).astype(np.int32)


class BiasGate(nn.Module):
    """Scales the bias of every query by what the query is (Chi et al. 2021, section 3.3, XLM-E).

    https://arxiv.org/abs/2106.16138; in WavLM (https://arxiv.org/abs/2110.13900, section 3.1) and
    BEATs. Two gates a head and query, each the sigmoid of a sum of four outputs of Dense ``proj``:
    the bias is multiplied by 2 + a * (b * scale - 1).

    Parameters: ``proj`` [head_dim, 8] with a bias, ``scale`` [heads].
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bthd, bias_bhts):
        """[b, t, heads, head_dim] and a bias, broadcast to [b, heads, t, s] -> the latter."""
        scale_h = self.param('scale', nn.initializers.ones, x_bthd.shape[2:3])
        y = Dense(8, dtype=self.dtype, name='proj')(x_bthd).astype(jnp.float32)
        y = jax.nn.sigmoid(jnp.sum(y.reshape(*y.shape[:-1], 2, 4), axis=-1))
        gate_bth = 2 + y[..., 0] * (y[..., 1] * scale_h - 1)
        return (gate_bth.swapaxes(1, 2)[..., None] * bias_bhts).astype(self.dtype)
