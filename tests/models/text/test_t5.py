"""T5's masks, order and gradients; its numbers are in tests/interop/test_t5_family.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.text.t5 import T5, Size, T5Encoder

SIZE = Size(32, 2, 4, 48, head_dim=8, vocabulary=60, decoder_depth=2, gated=True, head='own')
LENGTHS = jnp.array([9, 5, 1])


def ids_and_mask(length=9):
    ids = jax.random.randint(jax.random.key(1), (3, length), 1, 60)
    return ids, jnp.arange(length) < LENGTHS[:, None]


def test_padding_never_changes_the_result():
    ids, mask = ids_and_mask()
    model = T5Encoder(SIZE)
    variables = jax.jit(model.init)(jax.random.key(0), ids, mask)
    apply = jax.jit(lambda ids, mask: model.apply(variables, ids, mask)['tokens'])
    tokens = apply(ids, mask)
    np.testing.assert_array_equal(apply(jnp.where(mask, ids, 7), mask)[mask], tokens[mask])
    longer = apply(*(jnp.pad(a, ((0, 0), (0, 11))) for a in (ids, mask)))[:, :9]
    np.testing.assert_allclose(longer[mask], tokens[mask], atol=1e-5)
    front = apply(*(jnp.pad(a, ((0, 0), (11, 0))) for a in (ids, mask)))[:, 11:]
    np.testing.assert_allclose(front[mask], tokens[mask], atol=1e-5)


@pytest.fixture(scope='module')
def gradients():
    ids, mask = ids_and_mask()
    model = T5(SIZE, dropout=0.1)
    params = jax.jit(model.init)(jax.random.key(0), ids, mask, ids, mask)['params']

    def loss(params):
        rngs = {'dropout': jax.random.key(2)}
        outputs = model.apply({'params': params}, ids, mask, ids, mask, train=True, rngs=rngs)
        return jnp.sum(jnp.sin(3 * outputs['logits']))

    return jax.jit(jax.grad(loss))(params)


def test_gradients_reach_every_parameter(gradients):
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-7, name


def test_a_cache_changes_nothing():
    """Two calls give what one gives, also when rows are padded between them."""
    ids, mask = ids_and_mask()
    model = T5(SIZE)

    @jax.jit
    def both(key):
        variables = model.init(key, ids, mask, ids, mask)

        def decode(*inputs, **options):
            return model.apply(variables, *inputs, method='decode', **options)

        memory = model.apply(variables, ids, mask, method='encode')['tokens']
        whole = decode(ids, None, memory, mask)
        first_mask = jnp.broadcast_to(jnp.arange(6) < 4, (3, 6))
        cache = model.empty_cache(3, 11)
        first = decode(ids[:, :6], first_mask, memory, mask, cache=cache)
        second = decode(ids[:, 4:], None, None, mask, cache=first['cache'])
        pieces = [first['logits'][:, :4], second['logits']]
        return whole['logits'], jnp.concatenate(pieces, axis=1)

    np.testing.assert_allclose(*both(jax.random.key(0)), atol=1e-5)
