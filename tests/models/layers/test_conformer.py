"""The Conformer's relative scores and the gradients of its block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.layers import relative_positions
from alm_jax.models.layers.conformer import ConformerBlock
from alm_jax.models.layers.relative_positions import EmbeddingScores, SinusoidScores


@pytest.mark.parametrize('t', [1, 6])
def test_scores_by_pair(t):
    scores = jnp.arange(2.0 * t * (2 * t - 1)).reshape(1, 2, t, -1)
    place = np.arange(t)
    want = scores[..., place[:, None], place[None, :] - place[:, None] + t - 1]
    np.testing.assert_array_equal(relative_positions.by_pair(scores), want)


def test_scores_of_learned_distances():
    """Of a sequence shorter than the distances there are; parity covers a longer one."""
    t = 4
    module = EmbeddingScores(behind=4, ahead=2)
    query = jax.random.normal(jax.random.key(0), (2, t, 3, 5))
    variables = module.init(jax.random.key(1), query, 0.5)
    same, scores = module.apply(variables, query, 0.5)
    table = variables['params']['embedding']
    distance = np.clip(np.arange(t)[None, :] - np.arange(t)[:, None], -4, 2) + 4
    want = 0.5 * jnp.einsum('bthd,tsd->bhts', query, table[distance])
    np.testing.assert_allclose(scores, want, atol=1e-6)
    np.testing.assert_array_equal(same, query)


def test_gradients_reach_every_parameter():
    x = jax.random.normal(jax.random.key(0), (2, 7, 12))
    mask = jnp.arange(7) < jnp.array([[7], [4]])
    relative = {'relative': SinusoidScores}
    block = ConformerBlock(2, 20, {'size': 3}, relative, dropout=0.1, train=True)
    rngs = {'params': jax.random.key(1), 'dropout': jax.random.key(2)}
    shapes = jax.eval_shape(block.init, rngs, x, mask, mask)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape), shapes)

    @jax.jit
    @jax.grad
    def gradient(params):
        variables_ = {**variables, 'params': params}
        return jnp.sin(3 * block.apply(variables_, x, mask, mask, rngs=rngs)[0]).sum()

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables['params'])):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # A key bias shifts all logits of a query alike: softmax cancels it.
        assert np.abs(leaf).max() > 1e-7 or "['key']['bias']" in name, name
