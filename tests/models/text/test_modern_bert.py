"""Windows, padding without effect, gradients everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.text.modern_bert import ModernBert, Size

SIZE = Size(16, 3, 2, 24, vocabulary=30, windowed=(False, True, True), reach=2)


def params(model):
    """Random ones; compiles less than ``init``."""
    inputs = jnp.zeros((1, 4), int), jnp.ones((1, 4), bool)
    shapes = jax.eval_shape(model.init, jax.random.key(1), *inputs)['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype('f4'), shapes)


@pytest.fixture(scope='module')
def made():
    ids = jax.random.randint(jax.random.key(0), (2, 12), 0, 30)
    mask = jnp.arange(12) < jnp.array([[12], [5]])
    model = ModernBert(SIZE)
    return jax.jit(lambda p, *inputs: model.apply({'params': p}, *inputs)), params(model), ids, mask


def test_padding_changes_nothing(made):
    apply, params, ids, mask = made
    outputs = apply(params, ids, mask)
    assert outputs['hidden'].shape == (3, 2, 12, 16)
    other = apply(params, jnp.where(mask, ids, 29), mask)
    np.testing.assert_array_equal(outputs['pooled'], other['pooled'])
    long = apply(params, jnp.pad(ids, ((0, 0), (0, 9))), jnp.pad(mask, ((0, 0), (0, 9))))
    np.testing.assert_allclose(outputs['pooled'], long['pooled'], atol=1e-5)


def test_windowed_layers_see_their_window():
    """With windows everywhere, a token reaches reach * depth positions and no further."""
    model = ModernBert(Size(16, 3, 2, 24, vocabulary=30, windowed=(True,) * 3, reach=2))
    ids, mask = jnp.arange(20)[None], jnp.ones((1, 20), bool)
    variables = {'params': params(model)}
    apply = jax.jit(model.apply)
    moved = apply(variables, ids.at[0, 10].set(25), mask)['tokens']
    moved = np.abs(moved - apply(variables, ids, mask)['tokens']).max(axis=(0, 2)) > 0
    assert np.flatnonzero(moved).tolist() == list(range(4, 17))


def test_gradients_reach_every_parameter(made):
    apply, params, ids, mask = made

    def loss(params):
        return jnp.sum(jnp.sin(3 * apply(params, ids, mask)['pooled']))

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 1e-7, path
