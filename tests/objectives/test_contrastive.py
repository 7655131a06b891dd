"""Objectives against brute-force numpy twins: values, gradients, group patterns, sharded batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.objectives import contrastive

SCALE, BIAS = 7.0, -2.0


def _unit(rng, b, d=6):
    x = rng.normal(size=(b, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _naive_multi_positive(za, zt, scale, audio_group, text_group):
    """float64, one pair at a time, straight from the formula in the docstring."""
    b = len(za)
    total = 0.0
    for swap in (False, True):
        x, y = (zt, za) if swap else (za, zt)
        for i in range(b):
            logits = [scale * float(np.dot(x[i], y[j])) for j in range(b)]
            log_z = np.log(sum(np.exp(value) for value in logits))
            mine = [
                j
                for j in range(b)
                if audio_group[i] == audio_group[j] or text_group[i] == text_group[j]
            ]
            total += -sum(logits[j] - log_z for j in mine) / len(mine) / b / 2
    return total


def _naive_sigmoid(za, zt, scale, bias, audio_group, text_group):
    b = len(za)
    total = 0.0
    for i in range(b):
        for j in range(b):
            same = audio_group[i] == audio_group[j] or text_group[i] == text_group[j]
            logit = scale * float(np.dot(za[i], zt[j])) + bias
            total += np.log1p(np.exp(-logit if same else logit)) / b
    return total


def _twins(za, zt, audio_group, text_group):
    """(name, objective(za, zt), naive(za, zt)) of all three."""
    own = np.arange(len(za))
    groups = (jnp.asarray(audio_group), jnp.asarray(text_group))
    return [
        (
            'infonce',
            lambda a, t: contrastive.infonce(a, t, SCALE),
            lambda a, t: _naive_multi_positive(a, t, SCALE, own, own),
        ),
        (
            'multi_positive',
            lambda a, t: contrastive.multi_positive(a, t, SCALE, *groups),
            lambda a, t: _naive_multi_positive(a, t, SCALE, audio_group, text_group),
        ),
        (
            'sigmoid',
            lambda a, t: contrastive.sigmoid(a, t, SCALE, BIAS, *groups),
            lambda a, t: _naive_sigmoid(a, t, SCALE, BIAS, audio_group, text_group),
        ),
    ]


@st.composite
def _batches(draw):
    b = draw(st.sampled_from([1, 3, 6]))
    group = st.lists(st.integers(0, 3), min_size=b, max_size=b)
    return b, draw(group), draw(group), draw(st.integers(0, 1000))


@given(_batches())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_values_equal_the_naive_loops(case):
    b, audio_group, text_group, seed = case
    rng = np.random.default_rng(seed)
    za, zt = _unit(rng, b), _unit(rng, b)
    for name, objective, naive in _twins(za, zt, audio_group, text_group):
        value = objective(jnp.asarray(za), jnp.asarray(zt))
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, naive(za, zt), rtol=2e-6, atol=2e-6, err_msg=name)


def test_gradients_equal_finite_differences_of_the_naive_loops():
    rng = np.random.default_rng(0)
    za, zt = _unit(rng, 5), _unit(rng, 5)
    step = 1e-5
    for name, objective, naive in _twins(za, zt, [0, 1, 0, 2, 3], [0, 1, 2, 2, 4]):
        gradients = jax.grad(objective, argnums=(0, 1))(jnp.asarray(za), jnp.asarray(zt))
        for side, gradient in enumerate(gradients):
            expected = np.zeros_like(za)
            for index in np.ndindex(*za.shape):
                values = []
                for sign in (1, -1):
                    moved = [za.copy(), zt.copy()]
                    moved[side][index] += sign * step
                    values.append(naive(*moved))
                expected[index] = (values[0] - values[1]) / (2 * step)
            np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=2e-6, err_msg=name)


def test_multi_positive_is_infonce_without_repeats_and_differs_with_them():
    rng = np.random.default_rng(1)
    za, zt = _unit(rng, 4), _unit(rng, 4)
    own, repeated = jnp.arange(4), jnp.array([0, 1, 1, 3])
    plain = contrastive.infonce(za, zt, SCALE)
    assert contrastive.multi_positive(za, zt, SCALE, own, own) == plain
    assert abs(contrastive.multi_positive(za, zt, SCALE, own, repeated) - plain) > 1e-3
    # The same recordings repeated count as the same captions repeated: the rule is an "or".
    assert contrastive.multi_positive(za, zt, SCALE, repeated, own) == contrastive.multi_positive(
        za, zt, SCALE, own, repeated
    )


def test_bf16_embeddings_give_float32_logits():
    rng = np.random.default_rng(2)
    za, zt = (jnp.asarray(_unit(rng, 8), jnp.bfloat16) for _ in range(2))
    value = contrastive.infonce(za, zt, jnp.bfloat16(100.0))
    expected = _naive_multi_positive(
        np.asarray(za, np.float64), np.asarray(zt, np.float64), 100.0, range(8), range(8)
    )
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize('scale', [100.0, 1e4])
def test_large_scales_stay_finite(scale):
    rng = np.random.default_rng(3)
    za, zt = _unit(rng, 4), _unit(rng, 4)
    own = jnp.arange(4)
    for loss in (
        lambda s: contrastive.multi_positive(za, zt, s, own, own),
        lambda s: contrastive.sigmoid(za, zt, s, -10.0, own, own),
    ):
        value, gradient = jax.value_and_grad(loss)(scale)
        assert np.isfinite(value)
        assert np.isfinite(gradient)
