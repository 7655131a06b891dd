"""Shapes, masks behind the codec, gradients everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.audio import dac
from alm_jax.models.audio.pe_audio import PeAudioEncoder, Size

SIZE = Size(dac.Size(4, ratios=(8,)), 16, 2, 2, head_dim=8, mlp_width=24, codec_dim=6)


@pytest.fixture(scope='module')
def made():
    waveform = jax.random.normal(jax.random.key(0), (2, 160))
    model = PeAudioEncoder(SIZE)
    shapes = jax.eval_shape(model.init, jax.random.key(1), waveform)['params']
    rng = np.random.default_rng(0)  # compiles less than init
    params = jax.tree.map(lambda leaf: rng.normal(0.3, 0.3, leaf.shape).astype('f4'), shapes)
    return jax.jit(lambda p, *inputs: model.apply({'params': p}, *inputs)), params, waveform


def test_frames_behind_the_end_change_nothing(made):
    """Whatever is given there; nor how much there is, if there is some in both."""
    apply, params, waveform = made
    lengths = jnp.array([160, 80])
    outputs = apply(params, waveform, lengths)
    assert outputs['hidden'].shape == (2, 2, 21, 16)
    assert outputs['tokens'].shape == (2, 20, 16)
    assert outputs['frame_mask'].sum(axis=1).tolist() == [20, 10]
    long = apply(params, jnp.pad(waveform, ((0, 0), (0, 80)), constant_values=9.0), lengths)
    np.testing.assert_allclose(outputs['pooled'][1], long['pooled'][1], atol=1e-5)
    np.testing.assert_allclose(outputs['tokens'][1, :10], long['tokens'][1, :10], atol=1e-5)


def test_gradients_reach_every_parameter_and_the_waveform(made):
    apply, params, waveform = made

    def loss(params, waveform):
        outputs = apply(params, waveform, jnp.array([160, 80]))
        return jnp.sum(jnp.sin(3 * outputs['pooled'])) + jnp.sum(jnp.sin(outputs['tokens']))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, waveform)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 1e-7, path
