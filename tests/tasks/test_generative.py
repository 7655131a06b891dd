"""Generative training: the loss is that of sequences one by one, however they are laid out."""

import functools
import os
import pathlib
import subprocess
import sys

import generative_run
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.config import ConfigError
from alm_jax.tasks import build_task, generative

SCRIPT = pathlib.Path(generative_run.__file__)


@functools.cache
def plain(attention):
    """(task, parameters, its packed batch) without dropout and augmentation."""
    config = generative_run.make_config(plain=True)
    config.model.attention = attention
    task = build_task(config)
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), None))()
    assert extra == {}
    return task, params, generative_run.batch(task)


@functools.cache
def value_and_gradient(attention, layout):
    task, params, batch = plain(attention)
    batch = generative_run.unpacked(batch) if layout == 'unpacked' else batch

    def loss(params):
        return task.loss(params, {}, batch, jax.random.key(0))

    (value, (metrics, _)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return value, metrics, jax.flatten_util.ravel_pytree(gradients)[0]


@pytest.mark.parametrize('attention', ['causal', 'prefix'])
def test_packed_sequences_are_as_if_by_themselves(attention):
    value, metrics, gradient = value_and_gradient(attention, 'packed')
    alone, others, expected = value_and_gradient(attention, 'unpacked')
    np.testing.assert_allclose(value, alone, rtol=1e-5)
    assert metrics['counted'] == others['counted']
    assert metrics['accuracy'] == others['accuracy']
    assert np.linalg.norm(gradient - expected) < 1e-5 * np.linalg.norm(expected)


def test_the_loss_is_the_mean_over_answer_tokens_of_whole_logits():
    """In numpy, token by token, from the logits of sequences by themselves."""
    task, params, batch = plain('causal')
    rows = generative_run.unpacked(batch)
    mel, frames = task._front_end.plain(
        jnp.asarray(rows['pcm']).reshape(-1, rows['pcm'].shape[2]), rows['num_samples'].ravel()
    )
    shape = rows['num_samples'].shape
    inputs = mel.reshape(*shape, *mel.shape[1:]), frames.reshape(shape)
    apply = jax.jit(functools.partial(task.model.apply, {'params': params}))
    out = apply(*inputs, rows['token_ids'], rows['segments'])
    logits = np.asarray(out['logits'], np.float64)
    losses, hits = [], []
    for row, at in zip(*np.nonzero(rows['loss_mask'])):
        scores, target = logits[row, at - 1], rows['token_ids'][row, at]
        log_z = np.log(np.exp(scores).sum())
        losses.append(log_z - 0.9 * scores[target] - 0.1 * scores.mean() + 0.01 * log_z**2)
        hits.append(scores.argmax() == target)
    value, metrics, _ = value_and_gradient('causal', 'packed')
    np.testing.assert_allclose(value, np.mean(losses), rtol=1e-5)
    assert metrics['counted'] == len(losses)
    np.testing.assert_allclose(metrics['accuracy'], np.mean(hits), rtol=1e-6)


def test_a_prefix_is_seen_both_ways():
    causal, *_ = value_and_gradient('causal', 'packed')
    prefix, *_ = value_and_gradient('prefix', 'packed')
    assert abs(causal - prefix) > 1e-4


def test_what_follows_and_what_precedes_an_answer():
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 3, 3, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
    answers = np.array([[0, 0, 1, 1, 0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 1, 0, 0, 0, 1]], bool)
    ids = np.arange(20).reshape(2, 10)
    targets, counts = generative.next_tokens(*map(jnp.asarray, (ids, segments, answers)))
    prefix = generative.prefix_of(jnp.asarray(segments), jnp.asarray(answers))
    for row, at in np.ndindex(2, 10):
        own = segments[row] == segments[row, at]
        before = answers[row, : at + 1] & own[: at + 1]
        assert prefix[row, at] == (segments[row, at] > 0 and not before.any())
        follows = at < 9 and own[at + 1] and answers[row, at + 1]
        assert counts[row, at] == follows
        if follows:
            assert targets[row, at] == ids[row, at + 1]
    assert counts.sum() == answers.sum() - 1  # the third sequence begins with its answer


def test_clips_take_up_what_the_table_says():
    task, params, batch = plain('causal')
    num_samples = batch['num_samples'].ravel()
    pcm = jnp.asarray(batch['pcm']).reshape(len(num_samples), -1)
    mel, frames = task._front_end.plain(pcm, num_samples)
    apply = jax.jit(functools.partial(task.model.apply, method='listen'))
    heard = apply({'params': params}, mel, frames)
    counts = heard['audio_mask'].sum(axis=1)
    np.testing.assert_array_equal(counts, task.vectors_of_frames[np.asarray(frames)])
    assert len(set(counts.tolist())) > 2
    np.testing.assert_array_equal(counts > 0, num_samples > 0)  # absent clips have none
    assert task.vectors_of_frames.dtype == np.int32


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp('generative') / 'found.npz'
    flags = '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, SCRIPT, out], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as arrays:
        return dict(arrays)


@pytest.mark.parametrize('case', list(generative_run.CASES)[1:])
def test_loss_and_gradient_do_not_depend_on_micro_batches_or_devices(found, case):
    """With dropout, gain, shift, noise and SpecAugment on, several clips a row."""
    for what in ('loss', 'accuracy', 'counted'):
        np.testing.assert_allclose(found[f'{what}_{case}'], found[f'{what}_whole'], rtol=1e-5)
    whole, parts = found['gradient_whole'], found[f'gradient_{case}']
    assert np.linalg.norm(parts - whole) < 1e-5 * np.linalg.norm(whole)


def test_answers_do_not_depend_on_the_number_of_devices(found):
    assert len(set(found['answers_one'].tolist())) > 10
    np.testing.assert_array_equal(found['answers_four'], found['answers_one'])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'task.token_chunk': 0}, 'token_chunk is 0; it must be at least 1'),
        ({'task.z_loss': -1.0}, r'z_loss is -1\.0; it cannot be below 0'),
        ({'model.attention': 'causl'}, "Did you mean 'causal'"),
        ({'model.family': 'two_heads'}, "Did you mean 'two_head'"),
        ({'model.connector.name': 'liner'}, "Did you mean 'linear'"),
    ],
)
def test_mistakes_are_named(changes, message):
    config = generative_run.make_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        build_task(config)
