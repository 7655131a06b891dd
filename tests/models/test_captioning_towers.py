"""Towers with a decoder: what it sees, what padding changes, and that everything has a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from alm_jax.config import ConfigError
from alm_jax.models.captioning_towers import build_captioning_towers

CONFIG = ConfigDict(
    {
        'audio': {'name': 'spectrogram_transformer', 'variant': 'mu'},
        'text': {'name': 'bert', 'variant': 'mu'},
        'embed_dim': 16,
        'projection': 'linear',
        'dropout': 0.0,
        'decoder': {'width': 32, 'depth': 2, 'heads': 2, 'vocabulary': 40},
    }
)
LENGTHS = np.array([6, 4, 1])


@pytest.fixture(scope='module')
def small():
    model = build_captioning_towers(CONFIG)
    rng = np.random.default_rng(0)
    mel = rng.normal(size=(3, 64, 80)).astype(np.float32)
    frames = np.array([64, 64, 32])
    token_ids = rng.integers(1, 40, (3, 6)).astype(np.int32)
    mask = np.arange(6) < LENGTHS[:, None]
    inputs = (mel, frames, token_ids, mask)
    return model, jax.jit(model.init)(jax.random.key(0), *inputs)['params'], inputs


def test_shapes_and_names(small):
    model, params, inputs = small
    out = jax.jit(lambda: model.apply({'params': params}, *inputs))()
    assert out['audio_embedding'].shape == out['text_embedding'].shape == (3, 16)
    assert out['tokens'].shape == (3, 6, 32)
    assert out['match'].shape == (3,)
    assert out['match'].dtype == jnp.float32
    names = {'audio', 'text', 'audio_projection', 'text_projection', 'logit_scale', 'logit_bias'}
    assert set(params) == names | {'decoder', 'matching'}


def test_the_decoder_sees_earlier_tokens_and_its_clip_alone(small):
    model, params, (mel, frames, token_ids, mask) = small

    def outputs(mel, token_ids):
        out = model.apply({'params': params}, mel, frames, token_ids, mask)
        return out['tokens'], out['match']

    run = jax.jit(outputs)
    tokens, match = run(mel, token_ids)
    later, changed = token_ids.copy(), mel.copy()
    later[0, 3] += 1
    later[1, 4:] += 1  # padding
    changed[1] += 1
    changed[2, 32:] += 1  # behind the end of the clip
    moved, other = run(mel, later)
    np.testing.assert_allclose(moved[0, :3], tokens[0, :3], atol=1e-6)
    assert np.abs(moved[0, 3:] - tokens[0, 3:]).min(axis=1).max() > 1e-4
    np.testing.assert_allclose(moved[1, :4], tokens[1, :4], atol=1e-6)
    assert abs(other[0] - match[0]) > 1e-4
    np.testing.assert_allclose(other[1:], match[1:], atol=1e-6)
    moved, other = run(changed, token_ids)
    assert np.abs(moved[1] - tokens[1]).min(axis=1).max() > 1e-4
    assert abs(other[1] - match[1]) > 1e-5
    np.testing.assert_allclose(moved[::2], tokens[::2], atol=1e-6)
    np.testing.assert_allclose(other[::2], match[::2], atol=1e-6)


def test_every_parameter_has_a_gradient(small):
    model, params, inputs = small

    def loss(params):
        out = model.apply({'params': params}, *inputs)
        weights = jax.random.normal(jax.random.key(1), (3, 6, 32))
        both = jnp.sum(out['audio_embedding'] * out['text_embedding'][::-1])
        scales = out['logit_scale'] + out['logit_bias']
        return both + scales + jnp.sum(out['tokens'] * weights) + jnp.sum(jnp.sin(out['match']))

    gradients = jax.jit(jax.grad(loss))(params)
    flat = jax.tree_util.tree_flatten_with_path(gradients)[0]
    dead = [jax.tree_util.keystr(path) for path, leaf in flat if not np.any(leaf)]
    assert [name for name in dead if 'type_embedding' not in name] == []
    assert all(np.isfinite(leaf).all() for _, leaf in flat)


def test_a_misspelt_option_of_the_decoder_is_named():
    config = CONFIG.copy_and_resolve_references()
    config.decoder = {'width': 32, 'dept': 2}
    with pytest.raises(
        ConfigError, match=r"model\.decoder\.dept is not a key. Did you mean 'depth'"
    ):
        build_captioning_towers(config)
