"""Bert's masks, gradients and errors; its numbers are in tests/interop/test_minilm_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.models.text.bert import Bert


def _inputs():
    ids = jax.random.randint(jax.random.key(1), (3, 9), 0, 30522)
    return ids, jnp.arange(9) < jnp.array([9, 5, 1])[:, None]


def test_padding_never_changes_the_result():
    ids, mask = _inputs()
    model = Bert('mu')
    variables = jax.jit(model.init)(jax.random.key(0), ids, mask)
    apply = jax.jit(lambda ids, mask: model.apply(variables, ids, mask)['pooled'])
    pooled = apply(ids, mask)
    np.testing.assert_array_equal(apply(jnp.where(mask, ids, 7), mask), pooled)
    for row, length in enumerate((9, 5, 1)):
        short = slice(row, row + 1), slice(0, length)
        alone = apply(ids[short], mask[short])
        np.testing.assert_allclose(alone[0], pooled[row], atol=1e-5)


def test_empty_text_is_finite():
    """A wholly padded row, as the last evaluation batch has, gives zeros and no NaN gradient."""
    ids, mask = _inputs()
    model = Bert('mu')
    variables = jax.jit(model.init)(jax.random.key(0), ids, mask)

    def pooled(variables):
        return model.apply(variables, ids, jnp.zeros_like(mask))['pooled']

    value, gradients = jax.jit(jax.value_and_grad(lambda v: jnp.abs(pooled(v)).sum()))(variables)
    assert value == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_gradients_reach_every_parameter():
    ids, mask = _inputs()
    model = Bert('mu', dropout=0.1, remat='block')
    params = jax.jit(model.init)(jax.random.key(0), ids, mask)['params']

    def loss(params):
        rngs = {'dropout': jax.random.key(2)}
        pooled = model.apply({'params': params}, ids, mask, train=True, rngs=rngs)['pooled']
        return jnp.sum(jnp.sin(3 * pooled))

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # A key bias shifts all logits of a query alike: softmax cancels it.
        assert np.abs(leaf).max() > 1e-7 or "['key']['bias']" in name, name


def test_mistakes_are_named():
    ids, mask = _inputs()
    with pytest.raises(ConfigError, match="Did you mean 'minilm'"):
        Bert('minilmm').init(jax.random.key(0), ids, mask)
    long = jnp.zeros((1, 513), jnp.int32)
    with pytest.raises(ValueError, match='513 tokens'):
        Bert('mu').init(jax.random.key(0), long, long == 0)
