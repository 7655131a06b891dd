"""Residual vector quantisation: each codebook quantises what the ones before it left.

SoundStream (Zeghidour et al. 2021, https://arxiv.org/abs/2107.03312), section III-C.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

USAGE_EPSILON = 1e-5


def nearest(table_nd, x_btd):
    """int32 [b, t]: the rows of ``table_nd`` [n, d] at the smallest Euclidean distance.

    In float32 at the highest precision: a code is a choice, and a rounded product chooses another.
    """
    table, x = table_nd.astype(jnp.float32), x_btd.astype(jnp.float32)
    product = jnp.einsum('btd,nd->btn', x, table, precision=lax.Precision.HIGHEST)
    return jnp.argmin(jnp.sum(jnp.square(table), axis=-1) - 2 * product, axis=-1).astype(jnp.int32)


def quantise(tables_qnd, x_btd):
    """Codes of vectors, and the vectors that the codes stand for.

    Args:
      tables_qnd: float [q, n, d], the codebooks in their order.
      x_btd: float [b, t, d].

    Returns:
      (int32 [b, q, t], float32 [b, t, d]).
    """

    def step(residual, table):
        index = nearest(table, residual)
        return residual - table[index], index

    x = x_btd.astype(jnp.float32)
    _, codes_qbt = lax.scan(step, x, lax.stop_gradient(tables_qnd))
    codes_bqt = jnp.swapaxes(codes_qbt, 0, 1)
    return codes_bqt, dequantise(tables_qnd, codes_bqt)


def dequantise(tables_qnd, codes_bqt):
    """The sum of the coded rows of the first codebooks: float32 [b, t, d]."""
    count = codes_bqt.shape[1]
    rows_qbtd = jax.vmap(lambda table, codes: table[codes], in_axes=(0, 1))(
        tables_qnd[:count], codes_bqt
    )
    return jnp.sum(rows_qbtd.astype(jnp.float32), axis=0)


class Codebooks(nn.Module):
    """The codebooks of a quantiser, to be named 'layers': canonical names count them.

    Parameters, float32: ``codebook`` [q, n, d]; with ``sums`` ``embed_sum`` [q, n, d] and
    ``cluster_usage`` [q, n] instead, whose quotient the codebook is (Mimi). What else its training
    by moving averages keeps is in the collection 'batch_stats', and no call reads it.

    Attributes:
      count: q, of codebooks.
      rows: n, codes of each.
      width: d.
      sums: see above.
    """

    count: int
    rows: int
    width: int
    sums: bool = False

    @nn.compact
    def __call__(self):
        """float32 [q, n, d]."""
        shape = (self.count, self.rows, self.width)
        kept = {'initialized': (self.count, 1)}
        if self.sums:
            total = self.param('embed_sum', nn.initializers.normal(1.0), shape)
            usage = self.param('cluster_usage', nn.initializers.ones, shape[:2])
            table = total / jnp.maximum(usage, USAGE_EPSILON)[..., None]
        else:
            table = self.param('codebook', nn.initializers.normal(1.0), shape)
            kept |= {'cluster_size': shape[:2], 'embed_avg': shape}
        if self.is_initializing():
            for name, kept_shape in kept.items():
                self.variable('batch_stats', name, jnp.zeros, kept_shape, jnp.float32)
        return table


class ResidualVectorQuantizer(nn.Module):
    """``quantise`` and ``dequantise`` with their codebooks ``layers``.

    Attributes: see Codebooks.
    """

    count: int
    rows: int
    width: int
    sums: bool = False

    def setup(self):
        self.layers = Codebooks(self.count, self.rows, self.width, self.sums)

    def __call__(self, x_btd, codebooks: int | None = None):
        """``quantise`` by the first ``codebooks``, or all: (codes [b, q, t], [b, t, d])."""
        return quantise(self.layers()[:codebooks], x_btd)

    def decode(self, codes_bqt):
        """``dequantise``: [b, t, d]."""
        return dequantise(self.layers(), codes_bqt)
