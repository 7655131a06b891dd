"""Micro-batches give the loss and the gradient of the whole batch."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import AbstractMesh

from alm_jax.config import ConfigError
from alm_jax.training import micro_batches, row_keys, sharding, step

SCRIPT = pathlib.Path(__file__).with_name('token_run.py')
ROWS = 12


def _embed(params, x, rng):
    """Noise on the input, dropout on hidden units and on windows of them."""
    noise, drop, windows = jax.random.split(rng, 3)
    hidden = jnp.tanh((x + jax.random.normal(noise, x.shape)) @ params['up'])
    hidden *= jax.random.bernoulli(drop, 0.7, hidden.shape)
    hidden = hidden.reshape(2 * len(x), -1)
    hidden *= jax.random.bernoulli(windows, 0.7, hidden.shape)
    return hidden.reshape(len(x), -1) @ params['down']


def _loss(params, z):
    logits = jnp.exp(params['scale']) * z @ z[::-1].T
    return -jnp.mean(jnp.diag(jax.nn.log_softmax(logits))), jnp.max(logits)


@pytest.fixture(scope='module')
def small():
    rng = np.random.default_rng(0)
    params = {
        'up': jnp.asarray(rng.normal(size=(4, 6)) / 2, jnp.float32),
        'down': jnp.asarray(rng.normal(size=(6, 3)) / 2, jnp.float32),
        'scale': jnp.float32(0.3),
    }
    x = rng.normal(size=(ROWS, 4)).astype(np.float32)
    return params, x, jax.random.key(7)


def _whole(params, x, rng):
    def loss(params):
        return _loss(params, _embed(params, x, rng))

    return jax.value_and_grad(loss, has_aux=True)(params)


def _close(found, expected, rtol=1e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=rtol * np.abs(other).max())


@pytest.mark.parametrize('count', [1, 4])
def test_the_cached_gradient_is_that_of_the_whole_batch(small, count):
    found = jax.jit(lambda *small: micro_batches.grad_cache(_embed, _loss, *small, count))(*small)
    _close(found, _whole(*small))


def test_keys_that_are_not_replayed_would_be_seen(small, monkeypatch):
    calls = iter(range(2))  # each pass is traced once
    key = micro_batches._key
    monkeypatch.setattr(
        micro_batches, '_key', lambda rng, *where: key(jax.random.fold_in(rng, next(calls)), *where)
    )
    _, gradients = micro_batches.grad_cache(_embed, _loss, *small, 3)
    fresh = _whole(*small[:2], jax.random.fold_in(small[2], 0))[1]
    with pytest.raises(AssertionError):
        _close(gradients, fresh, rtol=0.1)
    assert next(calls, None) is None


def _draws(key, rows):
    one, two, three, *layers = jax.random.split(jax.random.fold_in(key, 3), 5)
    of_rows = (
        jax.random.uniform(one, (rows, 3, 2)),
        jax.random.normal(two, (rows, 1)),
        jax.random.randint(three, (rows,), -5, 6),
        jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (rows, 8)))(jnp.stack(layers)).swapaxes(
            0, 1
        ),
        jax.random.uniform(one, (2 * rows, 3)).reshape(rows, -1),
    )
    return of_rows, jax.random.permutation(two, jnp.arange(9)[None], axis=1, independent=True)


def test_a_row_draws_what_it_draws_in_the_whole_batch():
    whole, shared = _draws(jax.random.key(3), ROWS)
    draw = jax.jit(lambda i: _draws(row_keys.of_micro_batch(jax.random.key(3), i, 4, 3), 4))
    for i in range(3):
        part, same = draw(i)
        for one, other in zip(part, whole, strict=True):
            np.testing.assert_array_equal(one, other[i::3])
        np.testing.assert_array_equal(same, shared)


def test_positions_beyond_32_bits():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**32, 100, dtype=np.uint64)
    for size in (3, 768 * 512, 2**32 - 1):
        high, low = row_keys._product(jnp.asarray(rows.astype(np.uint32)), size)
        found = np.asarray(high, np.uint64) << np.uint64(32) | np.asarray(low, np.uint64)
        np.testing.assert_array_equal(found, rows * np.uint64(size))


def test_other_kinds_of_key_are_refused():
    with pytest.raises(ValueError, match='need keys of threefry2x32, not rbg'):
        row_keys.of_micro_batch(jax.random.key(0, impl='rbg'), 0, 2, 2)


def test_a_task_that_cannot_be_cut_is_refused():
    task, optimizer, mesh, _ = toy.make(toy.make_config())
    with pytest.raises(ConfigError, match='micro_batches is 2, but the loss of ToyTask'):
        step.make_train_step(task, optimizer, seed=0, mesh=mesh, micro_batches=2)


def test_a_number_that_does_not_divide_names_one_that_does():
    four = AbstractMesh((4,), ('data',))
    sharding.check_batch_size(96, four, micro_batches=8)
    with pytest.raises(ConfigError, match=r'24 rows of each device\. Use 8, or a batch_size'):
        sharding.check_batch_size(96, four, micro_batches=9)


@pytest.fixture(scope='module')
def tokens(tmp_path_factory):
    out = tmp_path_factory.mktemp('tokens') / 'found.npz'
    flags = '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, SCRIPT, out], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as found:
        return dict(found)


def test_tokens_weigh_the_same_in_any_micro_batch_on_any_devices(tokens):
    """A decoder with dropout, rows of 0 to 12 tokens."""
    loss, gradient = tokens['loss_1_1'], tokens['gradient_1_1']
    assert abs(tokens['mean_of_means'] - loss) > 1e-2 * loss  # what this must not be
    cases = [name.removeprefix('loss_') for name in tokens if name.startswith('loss_')]
    assert len(cases) == 5
    for case in cases:
        assert tokens[f'counted_{case}'] == tokens['counted_1_1']
        np.testing.assert_allclose(tokens[f'log_p_{case}'], -tokens[f'loss_{case}'], rtol=1e-5)
        np.testing.assert_allclose(tokens[f'loss_{case}'], loss, rtol=1e-5)
        error = np.linalg.norm(tokens[f'gradient_{case}'] - gradient)
        assert error < 1e-5 * np.linalg.norm(gradient), case
        np.testing.assert_allclose(
            tokens[f'gradient_{case}'], gradient, rtol=0, atol=1e-5 * np.abs(gradient).max()
        )
