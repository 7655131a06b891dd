"""Wav2Vec2's gradients, masks and errors; its numbers are in tests/interop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.models.audio.feature_encoder import min_samples, num_frames
from alm_jax.models.audio.wav2vec2 import Size, Wav2Vec2

SMALL = Size(
    24,
    2,
    2,
    conv_widths=(8, 8),
    conv_sizes=(10, 4),
    conv_strides=(5, 4),
    position_size=4,
    position_groups=2,
    buckets=8,
    max_distance=6,
    vocabulary=5,
)


def test_gradients_reach_every_parameter():
    x = jax.random.normal(jax.random.key(0), (2, 200))
    lengths, masked = jnp.array([200, 90]), jnp.arange(9) == jnp.array([[2], [1]])
    model = Wav2Vec2(SMALL, clip_alone=True, dropout=0.1, remat='block')
    shapes = jax.eval_shape(model.init, jax.random.key(1), x)['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape), shapes)

    @jax.jit
    @jax.grad
    def gradient(params):
        rngs = {'dropout': jax.random.key(2)}
        outputs = model.apply({'params': params}, x, lengths, True, masked, True, rngs=rngs)
        assert outputs['tokens'].shape == (2, 9, 24)
        assert outputs['hidden'].shape == (2, 2, 9, 24)
        assert outputs['pooled'].shape == (2, 24)
        own = jnp.where(outputs['frame_mask'][..., None], jnp.sin(3 * outputs['logits']), 0)
        return jnp.sum(own)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params)):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # A key bias shifts all logits of a query alike: softmax cancels it.
        assert np.abs(leaf).max() > 1e-7 or "['key']['bias']" in name, name


def test_frames_are_those_of_whole_windows():
    sizes, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    assert min_samples(sizes, strides) == 400
    assert [num_frames(n, sizes, strides) for n in (1, 400, 719, 720, 16_000)] == [1, 1, 1, 2, 49]
    counts = num_frames(np.array([1, 720]), sizes, strides)
    np.testing.assert_array_equal(counts, [1, 2])


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="Did you mean 'wavlm_base'"):
        Wav2Vec2('wavlm_bas').init(jax.random.key(0), jnp.zeros((1, 400)))
    with pytest.raises(ValueError, match='399 samples; at least 400'):
        Wav2Vec2('mu').init(jax.random.key(0), jnp.zeros((1, 399)))
