"""MusicGen's decoder beyond its reference: gradients, the cache, and the delays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.text.musicgen import MusicgenDecoder, Size

SIZE = Size(width=8, depth=2, heads=2, mlp_width=12, codebooks=3, rows=5)


@pytest.fixture(scope='module')
def inputs():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 6, (2, 3, 6)).astype(np.int32)
    memory = rng.normal(size=(2, 4, 8)).astype(np.float32)
    shapes = jax.eval_shape(MusicgenDecoder(SIZE).init, jax.random.key(0), codes, None, memory)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes['params']
    )
    return params, codes, memory


def test_gradients_reach_every_parameter(inputs):
    model = MusicgenDecoder(SIZE, dropout=0.1, remat='block')

    def loss(params, memory):
        rngs = {'dropout': jax.random.key(2)}
        outputs = model.apply({'params': params}, inputs[1], None, memory, train=True, rngs=rngs)
        return jnp.sum(jnp.sin(outputs['logits']))

    gradients = jax.jit(jax.grad(loss, (0, 1)))(inputs[0], inputs[2])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 0, name


def test_cached_equals_uncached(inputs):
    """Three positions at once, then one by one, the memory's keys made once."""
    params, codes, memory = inputs
    model = MusicgenDecoder(SIZE)
    whole = jax.jit(model.apply)({'params': params}, codes, None, memory)['logits']

    @jax.jit
    def read(codes, memory, cache):
        return model.apply({'params': params}, codes, None, memory, cache=cache)

    cache, got = model.empty_cache(2, 6), []
    for start, stop in ((0, 3), (3, 4), (4, 5), (5, 6)):
        outputs = read(codes[:, :, start:stop], memory, cache)
        memory, cache = None, outputs['cache']
        got.append(outputs['logits'])
    assert np.abs(np.concatenate(got, axis=2) - whole).max() <= 1e-5 * np.abs(whole).max()


def test_delays_count_pairs_of_stereo():
    assert Size().delays == (0, 1, 2, 3)
    assert Size(codebooks=8, channels=2).delays == (0, 0, 1, 1, 2, 2, 3, 3)
