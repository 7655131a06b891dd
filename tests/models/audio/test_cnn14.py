"""Cnn14's masks; its numbers are compared in tests/interop/test_cnn14_family.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.audio.cnn14 import Cnn14
from alm_jax.models.two_tower import build_two_tower

MODEL = Cnn14('mu')
APPLY = jax.jit(MODEL.apply)
LENGTHS = np.array([50, 31, 8])


@pytest.fixture(scope='module')
def variables():
    """Random ones, with which statistics do not leave zeros zero; nothing is compiled for them."""
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 8, 64)))
    rng = np.random.default_rng(0)

    def made(path, leaf):
        kernel = 'kernel' in path[-1].key
        spread = leaf.shape[-1] ** -0.5 if kernel else 0.2
        centre = float(path[-1].key in ('scale', 'var', 'kernel_g'))
        return jnp.float32(centre + spread * rng.uniform(-1, 1, leaf.shape))

    return jax.tree_util.tree_map_with_path(made, shapes)


@pytest.fixture(scope='module')
def mel():
    return jax.random.normal(jax.random.key(1), (3, 50, 64))


def test_padding_never_changes_the_result(variables, mel):
    outputs = APPLY(variables, mel, LENGTHS)
    assert outputs['pooled'].shape == (3, 64)
    assert outputs['logits'].shape == (3, 527)
    assert outputs['frame_mask'].sum(axis=1).tolist() == [6, 3, 1]
    padding = np.arange(50) >= LENGTHS[:, None]
    poisoned = jnp.where(padding[..., None], 1e4, mel)
    poisoned = jnp.pad(poisoned, ((0, 0), (0, 30), (0, 0)), constant_values=1e4)
    longer = APPLY(variables, poisoned, LENGTHS)
    np.testing.assert_allclose(longer['pooled'], outputs['pooled'], atol=1e-5)
    alone = APPLY(variables, mel[1:2, :31])  # an odd number, of which halving drops one
    np.testing.assert_allclose(alone['pooled'][0], outputs['pooled'][1], atol=1e-5)


def test_without_lengths_all_frames_count_as_in_the_original(variables, mel):
    every = APPLY(variables, mel)['pooled']
    np.testing.assert_allclose(
        every, APPLY(variables, mel, np.array([50, 50, 50]))['pooled'], atol=1e-5
    )
    assert np.abs(every[1] - APPLY(variables, mel, LENGTHS)['pooled'][1]).max() > 1e-3


def test_gradient(variables, mel):
    def loss(params, mel):
        variables_ = {**variables, 'params': params}
        return jnp.square(MODEL.apply(variables_, mel, LENGTHS)['logits']).sum()

    by_params, by_mel = jax.jit(jax.grad(loss, (0, 1)))(variables['params'], mel)
    for leaf in jax.tree.leaves(by_params):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0
    assert np.abs(by_mel[1, :31]).max() > 0
    np.testing.assert_array_equal(by_mel[1, 31:], 0)


def test_bfloat16(variables, mel):
    """Is for what is between the norms; embedding and logits are float32."""
    low = jax.eval_shape(MODEL.clone(dtype=jnp.bfloat16).apply, variables, mel, LENGTHS)
    assert low['block_1'].dtype == jnp.bfloat16
    assert low['pooled'].dtype == low['logits'].dtype == jnp.float32


def test_too_few_frames_are_named(variables):
    with pytest.raises(ValueError, match='7 x 64 log-mel; at least 8 x 64'):
        MODEL.apply(variables, jnp.zeros((1, 7, 64)))


def test_it_is_an_audio_tower():
    text = {'name': 'bert', 'variant': 'mu'}
    heads = {'embed_dim': 8, 'projection': 'linear', 'dropout': 0.0}
    towers = build_two_tower({'audio': {'name': 'cnn14', 'variant': 'mu'}, 'text': text, **heads})
    batch = (jnp.zeros((2, 40, 64)), jnp.array([40, 20]), jnp.zeros((2, 4), jnp.int32))
    batch = (*batch, jnp.ones((2, 4), bool))
    outputs, _ = jax.eval_shape(towers.init_with_output, jax.random.key(0), *batch)
    assert outputs['audio_embedding'].shape == (2, 8)
