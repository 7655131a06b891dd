"""YamNet's patches and masks; its numbers are compared in tests/interop/test_yamnet_parity.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.audio.yamnet import SILENCE, YamNet

APPLY = jax.jit(YamNet().apply)


@pytest.fixture(scope='module')
def variables():
    return jax.jit(YamNet().init)(jax.random.key(0), jnp.zeros((1, 96, 64)), jnp.array([96]))


def _mel(frames):
    return jax.random.normal(jax.random.key(1), (3, frames, 64)) - 3


def test_patches_cut_pad_and_mask(variables):
    """150 frames are patches at 0, 48 and 96; 98 frames two; 20 frames one, filled by silence."""
    lengths = jnp.array([150, 98, 20])
    mel = _mel(150)
    outputs = APPLY(variables, mel, lengths)
    assert outputs['frame_mask'].tolist() == [[True] * 3, [True, True, False], [True, False, False]]
    patches = outputs['patches']
    np.testing.assert_array_equal(patches[0, 1], mel[0, 48:144])
    np.testing.assert_array_equal(patches[1, 1, :50], mel[1, 48:98])
    np.testing.assert_allclose(patches[1, 1, 50:], SILENCE)
    np.testing.assert_allclose(patches[2, 0, 20:], np.log(0.001), rtol=1e-6)
    np.testing.assert_allclose(outputs['pooled'][0], outputs['frames'][0].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(outputs['pooled'][2], outputs['frames'][2, 0], rtol=1e-5)
    assert outputs['logits'].shape == (3, 3, 521)


def test_padding_never_changes_the_result(variables):
    mel, lengths = _mel(150), jnp.array([150, 98, 20])
    outputs = APPLY(variables, mel, lengths)
    padding = jnp.arange(150) >= lengths[:, None]
    poisoned = APPLY(variables, jnp.where(padding[..., None], jnp.nan, mel), lengths)
    np.testing.assert_array_equal(poisoned['pooled'], outputs['pooled'])
    for row, length in enumerate(lengths):
        alone = APPLY(variables, mel[row : row + 1, : int(length)], lengths[row : row + 1])
        np.testing.assert_allclose(alone['pooled'][0], outputs['pooled'][row], atol=1e-5)


def test_scores_are_the_clips_mean_class_probabilities(variables):
    """They follow the 1024 of the embedding, count true patches only, and need no parameter."""
    apply = jax.jit(YamNet(scores=True).apply)
    mel, lengths = _mel(150), jnp.array([150, 98, 20])
    plain, outputs = APPLY(variables, mel, lengths), apply(variables, mel, lengths)
    assert outputs['pooled'].shape == (3, 1545)
    np.testing.assert_allclose(outputs['pooled'][:, :1024], plain['pooled'], atol=1e-6)
    logits = np.asarray(outputs['logits'], np.float64)
    for row, patches in enumerate((3, 2, 1)):
        expected = (1 / (1 + np.exp(-logits[row, :patches]))).mean(axis=0)
        np.testing.assert_allclose(outputs['pooled'][row, -521:], expected, atol=1e-6)
    unmasked = (1 / (1 + np.exp(-logits[2]))).mean(axis=0)
    assert np.abs(unmasked - outputs['pooled'][2, -521:]).max() > 1e-3
    padding = jnp.arange(150) >= lengths[:, None]
    poisoned = apply(variables, jnp.where(padding[..., None], jnp.nan, mel), lengths)
    np.testing.assert_array_equal(poisoned['pooled'], outputs['pooled'])
    alone = apply(variables, mel[2:, :20], lengths[2:])
    np.testing.assert_allclose(alone['pooled'][0], outputs['pooled'][2], atol=1e-5)


@pytest.mark.parametrize(('hop', 'count'), [(96, 2), (12, 6)])
def test_patch_hop(variables, hop, count):
    shapes = jax.eval_shape(YamNet(hop).apply, variables, _mel(150), jnp.array([150] * 3))
    assert shapes['frames'].shape == (3, count, 1024)


def test_statistics_are_frozen_and_signal_survives_scratch(variables):
    """Training changes no statistic; with none loaded, He's init keeps the scale of activations."""
    assert set(variables) == {'params', 'batch_stats'}
    train = functools.partial(YamNet().apply, train=True, mutable=['batch_stats'])
    outputs, changed = jax.jit(train)(variables, _mel(96), jnp.array([96] * 3))
    jax.tree.map(np.testing.assert_array_equal, changed['batch_stats'], variables['batch_stats'])
    assert 0.05 < float(jnp.std(outputs['frames'])) < 50


def test_bfloat16(variables):
    lengths = jnp.array([96] * 3)
    low = jax.jit(YamNet(dtype=jnp.bfloat16).apply)(variables, _mel(96), lengths)
    high = APPLY(variables, _mel(96), lengths)
    assert low['layer14_pointwise'].dtype == jnp.bfloat16
    assert low['pooled'].dtype == jnp.float32
    error = np.abs(low['pooled'] - high['pooled']).max() / np.abs(high['pooled']).max()
    assert 0 < error < 0.05


def test_wrong_front_end_is_named(variables):
    with pytest.raises(ValueError, match='64 mel bins, not 80'):
        YamNet().apply(variables, jnp.zeros((1, 96, 80)), jnp.array([96]))
