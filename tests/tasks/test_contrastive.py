"""The contrastive task: what reaches the objective, host features, rng, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run

from alm_jax.audio.log_mel import log_mel
from alm_jax.config import ConfigError
from alm_jax.tasks import build_task


def _plain_config(**changes):
    """No dropout, no augmentation."""
    config = small_run.make_config()
    config.augment.gain_db = config.augment.shift_seconds = 0.0
    config.augment.time_masks = config.augment.freq_masks = 0
    config.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu'}
    config.model.text = {'name': 'bert', 'variant': 'mu'}
    config.model.dropout = 0.0
    for key, value in changes.items():
        group, _, name = key.rpartition('__')
        (config[group] if group else config)[name] = value
    return config


@pytest.fixture(scope='module')
def plain():
    task = build_task(_plain_config(), tokenizer=small_run.tokenizer())
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), small_run.batch(0)))()
    return task, params, extra


@pytest.fixture(scope='module')
def plain_loss(plain):
    task, params, extra = plain
    return jax.jit(lambda batch: task.loss(params, extra, batch, jax.random.key(0)))


def test_the_loss_is_the_objective_of_the_predicted_embeddings(plain, plain_loss):
    task, params, extra = plain
    batch = small_run.batch(0)
    loss, (metrics, unchanged) = plain_loss(batch)
    assert unchanged == extra == {}
    clips = [(row[:n], 16000) for row, n in zip(batch['pcm'], batch['num_samples'])]
    za = task.predictors.embed_audio(params, extra, clips).astype(np.float64)
    zt = np.asarray(
        task.model.apply(
            {'params': params}, batch['token_ids'], batch['token_mask'], method='embed_text'
        ),
        np.float64,
    )
    logits = float(metrics['logit_scale']) * za @ zt.T
    positive = batch['audio_group'][:, None] == batch['audio_group']
    positive |= batch['text_group'][:, None] == batch['text_group']
    assert positive.sum() > small_run.ROWS  # some captions do repeat
    expected = 0.0
    for scores in (logits, logits.T):
        log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        share = positive / positive.sum(axis=1, keepdims=True)
        expected -= (share * log_p).sum(axis=1).mean() / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_host_features_give_the_same_loss(plain, plain_loss):
    task, params, extra = plain
    batch = small_run.batch(0)
    num_samples = batch.pop('num_samples')
    mel = log_mel(batch.pop('pcm').astype(np.float32) / 32768, task.front_end)
    host = batch | {'mel': mel, 'num_frames': task.front_end.num_frames(num_samples)}
    loss = jax.jit(lambda b: task.loss(params, extra, b, jax.random.key(0)))(host)[0]
    np.testing.assert_allclose(loss, plain_loss(small_run.batch(0))[0], rtol=1e-5)


def test_augmentation_and_dropout_follow_the_rng():
    task = build_task(small_run.make_config())
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), small_run.batch(0)))()
    loss = jax.jit(lambda rng: task.loss(params, extra, small_run.batch(0), rng)[0])
    assert loss(jax.random.key(1)) == loss(jax.random.key(1))
    assert loss(jax.random.key(1)) != loss(jax.random.key(2))


def test_bf16_computes_close_to_f32(plain, plain_loss):
    _, params, extra = plain
    half = build_task(_plain_config(compute_dtype='bfloat16'))
    batch = small_run.batch(0)
    loss, (metrics, _) = jax.jit(lambda: half.loss(params, extra, batch, jax.random.key(0)))()
    exact = plain_loss(batch)[0]
    assert loss.dtype == metrics['logit_scale'].dtype == jnp.float32
    assert loss != exact
    np.testing.assert_allclose(loss, exact, rtol=0.02)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'task__name': 'contrastiv'}, "Did you mean 'contrastive'"),
        ({'task__objective': 'infonse'}, "Did you mean 'infonce'"),
        ({'task__form': 'rings'}, "Did you mean 'ring'"),
        ({'task__chunk': 0}, 'chunk is 0; it must be at least 1'),
        ({'front_end__preset': 'whisper80'}, "Did you mean 'whisper_80'"),
        ({'front_end__seconds': 0.01}, 'must hold 400 samples'),
        ({'front_end__on': 'hosts'}, "'device' or 'host'"),
        ({'front_end__on': 'host', 'augment__gain_db': 6.0}, r'augment\.gain_db changes waveforms'),
        ({'model__family': 'two_towers'}, "Did you mean 'two_tower'"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_task(_plain_config(**changes))


def test_a_packaged_tokenizer_must_have_been_fetched():
    with pytest.raises(ConfigError, match='fetched tokenizer'):
        _ = build_task(_plain_config(text__tokenizer='packaged:minilm')).predictors


@pytest.mark.parametrize('objective', ['infonce', 'multi_positive', 'sigmoid'])
def test_every_form_of_an_objective_is_the_dense_one(objective):
    config = small_run.make_config()
    config.task.objective, config.task.chunk = objective, 3
    rng = np.random.default_rng(0)
    audio, text = rng.normal(size=(2, 8, 4)).astype(np.float32)
    out = {'audio_embedding': audio, 'text_embedding': text, 'logit_scale': 2.0, 'logit_bias': -1.0}
    batch = {'audio_group': np.arange(8) // 2, 'text_group': np.arange(8) % 5}
    values = []
    for config.task.form in ('dense', 'chunked', 'ring'):
        values.append(build_task(config)._objective(out, batch))
    np.testing.assert_allclose(values, values[0], rtol=1e-6)
