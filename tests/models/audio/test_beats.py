"""BEATs' masks; its numbers are compared in tests/interop/test_beats_family.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.audio.beats import VARIANTS, Beats
from alm_jax.models.two_tower import build_two_tower

MODEL = Beats(dataclasses.replace(VARIANTS['mu'], position_groups=1, classes=5))
APPLY = jax.jit(MODEL.apply)
LENGTHS = np.array([64, 37, 16])  # the second one ends in a patch, of which 3 bands are kept


@pytest.fixture(scope='module')
def variables():
    """Random ones, with which statistics do not leave zeros zero; nothing is compiled for them."""
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 16, 128)))
    rng = np.random.default_rng(0)

    def made(path, leaf):
        kernel = 'kernel' in path[-1].key
        spread = leaf.shape[-1] ** -0.5 if kernel else 0.2
        centre = float(path[-1].key in ('scale', 'var', 'kernel_g'))
        return jnp.float32(centre + spread * rng.uniform(-1, 1, leaf.shape))

    return jax.tree_util.tree_map_with_path(made, shapes)


@pytest.fixture(scope='module')
def mel():
    return jax.random.normal(jax.random.key(1), (3, 64, 128))


def test_padding_never_changes_the_result(variables, mel):
    outputs = APPLY(variables, mel, LENGTHS)
    assert outputs['token_mask'].sum(axis=1).tolist() == [32, 19, 8]
    assert outputs['frame_mask'].sum(axis=1).tolist() == [4, 3, 1]
    assert outputs['frames'].shape == (3, 4, 64)
    padding = np.arange(64) >= LENGTHS[:, None]
    poisoned = jnp.where(padding[..., None], jnp.nan, mel)
    poisoned = jnp.pad(poisoned, ((0, 0), (0, 35), (0, 0)), constant_values=jnp.nan)
    longer = APPLY(variables, poisoned, LENGTHS)
    for name in ('pooled', 'logits'):
        np.testing.assert_allclose(longer[name], outputs[name], atol=1e-5)
    alone = APPLY(variables, poisoned[1:2, :48], LENGTHS[1:2])
    np.testing.assert_allclose(alone['pooled'][0], outputs['pooled'][1], atol=1e-5)


def test_gradient(variables, mel):
    def loss(params, mel):
        outputs = MODEL.apply({'params': params}, mel, LENGTHS)
        return jnp.square(outputs['logits']).sum()

    by_params, by_mel = jax.jit(jax.grad(loss, (0, 1)))(variables['params'], mel)
    for path, leaf in jax.tree_util.tree_leaves_with_path(by_params):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
    assert np.abs(by_mel[1, :37]).max() > 0
    np.testing.assert_array_equal(by_mel[1, 37:], 0)


def test_bfloat16(variables, mel):
    """Is for what is between the norms; embedding and logits are float32."""
    low = jax.eval_shape(MODEL.clone(dtype=jnp.bfloat16).apply, variables, mel, LENGTHS)
    assert low['tokens'].dtype == jnp.bfloat16
    assert low['pooled'].dtype == low['logits'].dtype == jnp.float32


def test_too_few_frames_are_named(variables):
    with pytest.raises(ValueError, match='15 x 128 fbank; at least 16 x 128'):
        MODEL.apply(variables, jnp.zeros((1, 15, 128)))


def test_it_is_an_audio_tower():
    text = {'name': 'bert', 'variant': 'mu'}
    heads = {'embed_dim': 8, 'projection': 'linear', 'dropout': 0.0}
    towers = build_two_tower({'audio': {'name': 'beats', 'variant': 'mu'}, 'text': text, **heads})
    batch = (jnp.zeros((2, 40, 128)), jnp.array([40, 20]), jnp.zeros((2, 4), jnp.int32))
    batch = (*batch, jnp.ones((2, 4), bool))
    outputs, _ = jax.eval_shape(towers.init_with_output, jax.random.key(0), *batch)
    assert outputs['audio_embedding'].shape == (2, 8)
