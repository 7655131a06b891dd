"""The chunked token cross-entropy against optax on whole logits, and against its own size."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alm_jax.objectives.generative import token_cross_entropy

SCRIPT = pathlib.Path(__file__).with_name('split_tokens.py')
FORMS = {
    'plain': {},
    'options': {'z_loss': 0.02, 'label_smoothing': 0.1},
    'softcap': {'z_loss': 0.02, 'label_smoothing': 0.1, 'softcap': 2.0},
}


def inputs(b=3, t=11, d=5, vocabulary=17):
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(b, t, d)).astype(np.float32)
    head = rng.normal(size=(vocabulary, d)).astype(np.float32)
    targets = rng.integers(0, vocabulary, (b, t)).astype(np.int32)
    weights = (rng.random((b, t)) * (rng.random((b, t)) < 0.6)).astype(np.float32)
    weights[1] = 0
    targets[weights == 0] = -1
    return tokens, head, targets, weights


def dense(tokens, head, targets, weights, z_loss=0.0, label_smoothing=0.0, softcap=None):
    """(sums of losses, of weights, of the correct ones' weights), [b] each, from whole logits."""
    logits = jnp.einsum('btd,vd->btv', tokens, head)
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    labels = optax.smooth_labels(jax.nn.one_hot(targets, head.shape[0]), label_smoothing)
    losses = optax.softmax_cross_entropy(logits, labels)
    losses += z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2
    correct = jnp.argmax(logits, axis=-1) == targets
    return [jnp.sum(weights * x, axis=1) for x in (losses, jnp.ones_like(losses), correct)]


@pytest.mark.parametrize('chunk', [1, 4, 11, 100])  # 4 leaves a rest of 3
@pytest.mark.parametrize('form', FORMS)
def test_values_and_gradients_are_those_of_whole_logits(form, chunk):
    tokens, head, targets, weights = inputs()
    ours = functools.partial(token_cross_entropy, chunk=chunk, **FORMS[form])
    twin = functools.partial(dense, **FORMS[form])
    found = jax.jit(ours)(tokens, head, targets, weights)
    expected = twin(tokens, head, targets, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert 0 < sum(found.correct) < sum(found.count)

    def gradients(function):
        def mean(tokens, head):
            total, count, _ = function(tokens, head, targets, weights)
            return 3 * jnp.sum(total) / jnp.sum(count)

        return jax.jit(jax.grad(mean, argnums=(0, 1)))(tokens, head)

    for own, other in zip(gradients(ours), gradients(twin)):
        assert np.linalg.norm(own - other) <= 1e-5 * np.linalg.norm(other)


def test_the_smoothed_loss_is_its_formula():
    """In float64, token by token."""
    tokens, head, targets, weights = inputs()
    expected = 0.0
    for row, at in zip(*np.nonzero(weights)):
        logits = head.astype(np.float64) @ tokens[row, at].astype(np.float64)
        log_z = np.log(np.exp(logits).sum())
        loss = log_z - 0.8 * logits[targets[row, at]] - 0.2 * logits.mean() + 0.5 * log_z**2
        expected += weights[row, at] * loss
    options = {'chunk': 3, 'z_loss': 0.5, 'label_smoothing': 0.2}
    found = token_cross_entropy(tokens, head, targets, weights, **options)
    np.testing.assert_allclose(found.loss.sum(), expected, rtol=1e-5)
    np.testing.assert_allclose(found.count.sum(), weights.sum(), rtol=1e-6)


def test_a_batch_without_tokens_that_count_is_zero():
    tokens, head, targets, weights = inputs()

    def loss(tokens, head):
        return jnp.sum(token_cross_entropy(tokens, head, targets, 0 * weights, chunk=4).loss)

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(tokens, head)
    assert value == 0
    assert not any(np.any(gradient) for gradient in gradients)


def test_chunks_that_predict_nothing_are_skipped():
    """What is no number there is not seen, in either pass."""
    tokens, head, targets, _ = inputs()
    weights = np.zeros(targets.shape, bool)
    weights[:, 2:10:2] = True  # 4 of each row
    tokens[~weights] = np.nan

    @functools.partial(jax.jit, static_argnames='chunk')
    def run(tokens, head, chunk):
        def loss(head):
            return jnp.sum(token_cross_entropy(tokens, head, targets, weights, chunk=chunk).loss)

        return jax.value_and_grad(loss)(head)

    assert all(np.isfinite(x).all() for x in run(tokens, head, 4))
    assert not any(np.isfinite(x).all() for x in run(tokens, head, 5))  # the last of 5 is none


def test_large_logits_stay_finite():
    tokens, head, targets, weights = inputs()

    def loss(tokens):
        return jnp.sum(token_cross_entropy(1e4 * tokens, head, targets, weights, chunk=4).loss)

    value, gradient = jax.jit(jax.value_and_grad(loss))(tokens)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_bf16_operands_have_a_float32_loss_and_their_own_gradients():
    tokens, head, targets, weights = inputs(t=64, d=32)
    low = jnp.asarray(tokens, jnp.bfloat16)

    def loss(tokens, head):
        return jnp.sum(token_cross_entropy(tokens, head, targets, weights, chunk=16).loss)

    value, (dtokens, dhead) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(low, head)
    assert value.dtype == dhead.dtype == jnp.float32
    assert dtokens.dtype == jnp.bfloat16
    rounded = (x.astype(jnp.float32) for x in (low, head.astype(jnp.bfloat16)))
    exact = jnp.sum(dense(*rounded, targets, weights)[0])
    np.testing.assert_allclose(value, exact, rtol=1e-5)  # products are exact, their sums float32


def compiled(b=4, t=256, d=8, vocabulary=4096, chunk=16, wanted=(0, 1)):
    tokens = jax.ShapeDtypeStruct((b, t, d), jnp.float32)
    head = jax.ShapeDtypeStruct((vocabulary, d), jnp.float32)
    integers = jax.ShapeDtypeStruct((b, t), jnp.int32)

    def loss(tokens, head, targets, weights):
        return jnp.sum(token_cross_entropy(tokens, head, targets, weights, chunk=chunk).loss)

    program = jax.jit(jax.value_and_grad(loss, argnums=wanted))
    return program.lower(tokens, head, integers, integers).compile()


def test_both_passes_hold_the_logits_of_a_chunk_alone():
    b, t, vocabulary, chunk = 4, 256, 4096, 16
    bytes_of = [
        compiled(b, t, 8, vocabulary, size).memory_analysis().temp_size_in_bytes
        for size in (chunk, t)
    ]
    assert bytes_of[1] > b * t * vocabulary * 4
    assert bytes_of[0] < 4 * b * chunk * vocabulary * 4


def test_a_frozen_head_costs_no_gradient():
    """Of three products backward (logits again, tokens, head), the last one is not made."""
    both, one = (compiled(wanted=wanted).cost_analysis()['flops'] for wanted in ((0, 1), 0))
    assert one < 0.8 * both


@pytest.fixture(scope='module')
def on_meshes():
    flags = '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {case['case']: case for case in map(json.loads, done.stdout.splitlines())}


def test_on_any_mesh_it_is_the_same(on_meshes):
    assert len(on_meshes) == 5
    assert not {name: case for name, case in on_meshes.items() if not case['error'] < 1e-5}


def test_the_head_and_its_gradient_are_not_sent_with_every_chunk(on_meshes):
    """As they are where the partitioner decides."""
    sends = {name for name, case in on_meshes.items() if case['in_loops']}
    assert sends == {'partitioner'}
