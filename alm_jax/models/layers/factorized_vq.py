"""Residual vector quantisation with factorised codes.

Kumar et al. 2023 (https://arxiv.org/abs/2306.06546), section 3.2: codes are looked up in few
dimensions and by their direction alone.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


class FactorizedCodebooks(nn.Module):
    """The codebooks of a quantiser, to be named 'layers': canonical names count them.

    Parameters, float32: ``in_proj`` (``kernel`` [q, d, w], ``bias`` [q, w]), ``codebook``
    [q, n, w], ``out_proj`` (``kernel`` [q, w, d], ``bias`` [q, d]).

    Attributes:
      count: q, of codebooks.
      rows: n, codes of each.
      width: w, of a code.
      features: d, of what is quantised.
    """

    count: int
    rows: int
    width: int
    features: int

    @nn.compact
    def __call__(self):
        """All of them, a dict."""
        init = nn.initializers.lecun_normal(batch_axis=0)

        def linear(name, *sizes):
            def start(rng):
                kernel = init(rng, (self.count, *sizes))
                return {'kernel': kernel, 'bias': jnp.zeros((self.count, sizes[-1]))}

            return self.param(name, start)

        shape = (self.count, self.rows, self.width)
        return {
            'in_proj': linear('in_proj', self.features, self.width),
            'codebook': self.param('codebook', nn.initializers.normal(1.0), shape),
            'out_proj': linear('out_proj', self.width, self.features),
        }


class FactorizedQuantizer(nn.Module):
    """``layers``, FactorizedCodebooks, each for what the ones before it left. In float32.

    Attributes: see FactorizedCodebooks.
    """

    count: int
    rows: int
    width: int
    features: int

    def setup(self):
        self.layers = FactorizedCodebooks(self.count, self.rows, self.width, self.features)

    def __call__(self, x_btd, codebooks: int | None = None):
        """Quantises by the first ``codebooks``, or all.

        Gradients go straight through the choice of a code, as in training.

        Returns:
          (codes int32 [b, q, t], projections [b, t, q * w], quantised [b, t, d]).
        """

        def step(residual, book):
            table = book['codebook']
            projected = _linear(book['in_proj'], residual)
            code = _nearest_direction(table, projected)
            chosen = projected + lax.stop_gradient(table[code] - projected)
            quantised = _linear(book['out_proj'], chosen)
            return residual - quantised, (code, projected, quantised)

        books = jax.tree.map(lambda leaf: leaf[:codebooks], self.layers())
        _, (codes, projected, quantised) = lax.scan(step, x_btd.astype(jnp.float32), books)
        projected = jnp.moveaxis(projected, 0, 2).reshape(*x_btd.shape[:2], -1)
        return jnp.swapaxes(codes, 0, 1), projected, jnp.sum(quantised, axis=0)

    def decode(self, codes_bqt):
        """What codes of the first codebooks stand for: float32 [b, t, d]."""
        books = jax.tree.map(lambda leaf: leaf[: codes_bqt.shape[1]], self.layers())

        def vectors(book, codes_bt):
            return _linear(book['out_proj'], book['codebook'][codes_bt])

        return jnp.sum(jax.vmap(vectors, in_axes=(0, 1))(books, codes_bqt), axis=0)


def _linear(layer, x):
    return x @ layer['kernel'] + layer['bias']


def _nearest_direction(table_nw, x_btw):
    """int32 [b, t]: rows at the smallest angle; see ``residual_vq.nearest`` on the precision."""
    length = jnp.sqrt(jnp.sum(jnp.square(table_nw), axis=-1, keepdims=True))
    directions = table_nw / jnp.maximum(length, 1e-12)
    product = jnp.einsum('btw,nw->btn', x_btw, directions, precision=lax.Precision.HIGHEST)
    return jnp.argmax(product, axis=-1).astype(jnp.int32)
