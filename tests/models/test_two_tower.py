"""The two-tower model: parameters, unit norms, logit scale, and building it from a config."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax import config as config_lib
from alm_jax.models.projection import Projection
from alm_jax.models.two_tower import build_two_tower, ceiling


def _config(**changes):
    model = config_lib.base().model
    for key, value in changes.items():
        model[key] = config_lib.ConfigDict(value) if isinstance(value, dict) else value
    return model


def _batch():
    mel = jax.random.normal(jax.random.key(0), (2, 110, 64))
    ids = jax.random.randint(jax.random.key(1), (2, 8), 0, 30522)
    return mel, jnp.array([110, 20]), ids, jnp.arange(8) < jnp.array([[8], [3]])


@pytest.mark.parametrize(
    ('audio', 'projection'), [('spectrogram_transformer', 'linear'), ('yamnet', 'residual')]
)
def test_embeddings_and_gradients(audio, projection):
    config = _config(audio={'name': audio}, projection=projection, embed_dim=24, dropout=0.1)
    if audio == 'spectrogram_transformer':
        config.audio.variant = 'mu'
    model = build_two_tower(config)
    batch = _batch()
    variables = dict(jax.jit(model.init)(jax.random.key(0), *batch))
    params = variables.pop('params')
    assert set(params) == {
        *('audio', 'text', 'audio_projection', 'text_projection'),
        *('logit_scale', 'logit_bias'),
    }
    apply = jax.jit(model.apply, static_argnames='method')
    outputs = apply({'params': params, **variables}, *batch)
    for name in ('audio_embedding', 'text_embedding'):
        assert outputs[name].shape == (2, 24)
        np.testing.assert_allclose(jnp.linalg.norm(outputs[name], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(outputs['logit_scale'], 1 / 0.07, rtol=1e-5)
    assert float(outputs['logit_bias']) == -10
    alone = apply({'params': params, **variables}, *batch[:2], method='embed_audio')
    np.testing.assert_allclose(alone, outputs['audio_embedding'], atol=1e-6)
    alone = apply({'params': params, **variables}, *batch[2:], method='embed_text')
    np.testing.assert_allclose(alone, outputs['text_embedding'], atol=1e-6)

    def loss(params):
        rngs = {'dropout': jax.random.key(2)}
        out = model.apply({'params': params, **variables}, *batch, train=True, rngs=rngs)
        similarity = out['audio_embedding'] @ out['text_embedding'].T
        return jnp.sum(jnp.sin(similarity * out['logit_scale'] + out['logit_bias']))

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    for part, leaves in gradients.items():
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(leaves)) > 1e-7, part


def test_two_layer_projection_is_the_one_of_ms_clap():
    """norm(h + W2 gelu(h)), h = W1 x (microsoft/CLAP, models/clap.py, class Projection)."""
    x = jax.random.normal(jax.random.key(0), (5, 12))
    head = Projection(8, 'residual')
    params = head.init(jax.random.key(1), x)['params']
    h = np.asarray(x @ params['linear']['kernel'], np.float64)
    gelu = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    y = h + gelu(h) @ np.asarray(params['expand']['kernel'])
    want = (y - y.mean(1, keepdims=True)) / y.std(1, keepdims=True)
    np.testing.assert_allclose(head.apply({'params': params}, x), want, atol=1e-4)


def test_logit_scale_stops_at_one_hundred_and_can_come_back():
    model = build_two_tower(_config())
    batch = _batch()
    params = jax.jit(model.init)(jax.random.key(0), *batch)['params']
    params['logit_scale'] = jnp.asarray(9.0)
    scale = jax.jit(model.apply)({'params': params}, *batch)['logit_scale']
    np.testing.assert_allclose(scale, 100, rtol=1e-5)
    slope = jax.grad(lambda x, sign: sign * ceiling(x, 2.0))
    assert slope(1.0, 1.0) == 1
    assert slope(1.0, -1.0) == -1
    assert slope(3.0, 1.0) == 1  # a step along -gradient brings it down
    assert slope(3.0, -1.0) == 0  # and none takes it further up


def test_bfloat16_model_gives_float32_unit_vectors():
    model = build_two_tower(_config(), dtype=jnp.bfloat16)
    batch = _batch()
    variables = jax.jit(model.init)(jax.random.key(0), *batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    low = jax.jit(model.apply)(variables, *batch)
    high = jax.jit(build_two_tower(_config()).apply)(variables, *batch)
    for name in ('audio_embedding', 'text_embedding'):
        assert low[name].dtype == jnp.float32
        np.testing.assert_allclose(jnp.linalg.norm(low[name], axis=1), 1, atol=1e-6)
        assert 0 < np.abs(low[name] - high[name]).max() < 0.05


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'audio': {'name': 'yamnett'}}, r"model.audio.name is 'yamnett'. Did you mean 'yamnet'"),
        ({'audio': {'name': 'yamnet', 'patch_hopp': 9}}, r"audio.patch_hopp .* 'patch_hop'"),
        ({'text': {'name': 'bert', 'varient': 'mu'}}, r"model.text.varient .* 'variant'"),
        ({'text': {'variant': 'mu'}}, r"model.text.name is ''"),
    ],
)
def test_misspelt_keys_name_the_nearest(changes, message):
    with pytest.raises(config_lib.ConfigError, match=message):
        build_two_tower(_config(**changes))


def test_remat_reaches_the_towers_that_set_none():
    config = _config(audio={'name': 'spectrogram_transformer', 'variant': 'mu'})
    model = build_two_tower(config, remat='dots')
    assert (model.audio.remat, model.text.remat) == ('dots', 'dots')
    config['text'] = {'name': 'bert', 'variant': 'mu', 'remat': 'block'}
    model = build_two_tower(config, remat='dots')
    assert (model.audio.remat, model.text.remat) == ('dots', 'block')


@pytest.mark.parametrize('name', ['yamnet', 'cnn14'])
def test_towers_without_remat_refuse_it_and_leave_it_to_the_other(name):
    message = f"config.remat is 'dots', but the encoder '{name}' of config.model.audio .*text.remat"
    with pytest.raises(config_lib.ConfigError, match=message):
        build_two_tower(_config(audio={'name': name}), remat='dots')
    own = {'name': 'bert', 'variant': 'mu', 'remat': 'dots'}
    assert build_two_tower(_config(audio={'name': name}, text=own)).text.remat == 'dots'
