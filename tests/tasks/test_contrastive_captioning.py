"""Three losses at once: each against its own parts, in micro-batches, and on several devices."""

import functools
import os
import pathlib
import subprocess
import sys

import captioning_run
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run

from alm_jax.config import ConfigError
from alm_jax.objectives import contrastive, matching
from alm_jax.tasks import build_task
from alm_jax.training import micro_batches

SCRIPT = pathlib.Path(captioning_run.__file__)


@pytest.fixture(scope='module')
def plain():
    """Without dropout and augmentation, so that parts can be computed by themselves."""
    config = captioning_run.make_config(plain=True)
    task = build_task(config)
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), small_run.batch(0)))()
    loss = jax.jit(functools.partial(task.loss, params, extra))
    return task, params, loss


def test_the_loss_is_the_weighted_sum_of_its_parts(plain):
    task, params, loss = plain
    batch, rng = small_run.batch(0), jax.random.key(3)
    total, (metrics, extra) = loss(batch, rng)
    assert extra == {}
    apply = functools.partial(task.model.apply, {'params': params})
    mel, frames = task._features.plain(batch['pcm'], batch['num_samples'])
    ids, mask = batch['token_ids'], batch['token_mask']
    read = jax.jit(functools.partial(apply, method='read'))(mel, frames, ids, mask)
    za, zt = read['audio_embedding'], read['text_embedding']
    groups = batch['audio_group'], batch['text_group']
    scale = metrics['logit_scale']
    expected = contrastive.multi_positive(za, zt, scale, *groups)
    np.testing.assert_allclose(metrics['contrastive'], expected, rtol=1e-5)

    memory = read['audio'], read['audio_mask']
    tokens = apply(ids, mask, *memory, method='write')
    logits = tokens[:, :-1] @ params['decoder']['token_embedding']['embedding'].T
    log_p = jax.nn.log_softmax(logits)
    of_next = jnp.take_along_axis(log_p, ids[:, 1:, None], axis=2)[..., 0]
    expected = -of_next[mask[:, 1:]].mean()
    np.testing.assert_allclose(metrics['captioning'], expected, rtol=1e-5)
    hits = (jnp.argmax(logits, axis=2) == ids[:, 1:])[mask[:, 1:]]
    np.testing.assert_allclose(metrics['accuracy'], hits.mean(), rtol=1e-5)

    negatives_rng = jax.random.split(jax.random.split(rng)[1])[0]
    text, audio, exists = matching.hard_negatives(negatives_rng, za, zt, scale, *groups)
    match = functools.partial(apply, method='match')
    other_text = match(ids[text], mask[text], *memory)
    other_audio = match(ids, mask, *(x[audio] for x in memory))
    expected = matching.matching(match(ids, mask, *memory), other_text, other_audio, exists)
    np.testing.assert_allclose(metrics['matching'], expected, rtol=1e-5)

    weights = captioning_run.WEIGHTS
    np.testing.assert_allclose(total, sum(w * metrics[n] for n, w in weights.items()), rtol=1e-6)


def test_every_loss_trains_what_it_should(plain):
    task, params, _ = plain
    batch, rng = small_run.batch(0), jax.random.key(3)

    @jax.jit
    @jax.jacrev
    def gradients(params):
        metrics = task.loss(params, {}, batch, rng)[1][0]
        return {name: metrics[name] for name in captioning_run.WEIGHTS}

    found = gradients(params)

    def trained(name):
        return {
            part for part, tree in found[name].items() if any(map(np.any, jax.tree.leaves(tree)))
        }

    towers = {'audio', 'text', 'audio_projection', 'text_projection', 'logit_scale'}
    assert trained('contrastive') == towers
    assert trained('captioning') == {'audio', 'decoder'}
    assert trained('matching') == {'audio', 'decoder', 'matching'}


def test_micro_batches_have_the_gradient_of_the_whole_batch():
    """With dropout and augmentation on; matching, which needs all rows, is off."""
    config = captioning_run.make_config()
    config.task.weights.matching = 0.0
    task = build_task(config)
    batch = small_run.batch(0)
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), batch))()
    found = []
    for count in (1, 4):
        gradient = micro_batches.gradient_of(task, count)
        step = jax.jit(functools.partial(gradient, lambda params: params))
        (loss, _), gradients = step(params, extra, batch, jax.random.key(1))
        found.append((loss, jax.flatten_util.ravel_pytree(gradients)[0]))
    (loss, whole), (other, parts) = found
    np.testing.assert_allclose(other, loss, rtol=1e-5)
    assert np.linalg.norm(parts - whole) < 1e-5 * np.linalg.norm(whole)


@pytest.mark.slow
def test_a_run_is_the_same_on_four_devices(tmp_path):
    """The negatives of the whole batch are drawn wherever its rows are."""
    flags = '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    out = tmp_path / 'found.npz'
    done = subprocess.run(
        [sys.executable, SCRIPT, out], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as found:
        assert np.ptp(found['one']) > 0.02  # it does train
        np.testing.assert_allclose(found['four'], found['one'], rtol=1e-5)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'task.weights.matching': -1.0}, 'weights are .* 0 or more'),
        ({'micro_batches': 2}, 'matching compares .* Set config.micro_batches to 1'),
        ({'task.token_chunk': 0}, 'token_chunk is 0; it must be at least 1'),
        ({'task.label_smoothing': 1.0}, r'label_smoothing is 1\.0; it is 0 to 1'),
        ({'model.family': 'two_tower'}, "Did you mean 'captioning_towers'"),
    ],
)
def test_mistakes_are_named(changes, message):
    config = captioning_run.make_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        build_task(config)
