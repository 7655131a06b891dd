"""Filters of logits against transformers', and what is drawn from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.decoding.sampling import Sampling, choose, constrain, warp

ROWS, VOCABULARY = 4, 300
WARPED = jax.jit(warp)
CONSTRAINED = jax.jit(constrain)


def _logits(seed):
    return (3 * np.random.default_rng(seed).standard_normal((ROWS, VOCABULARY))).astype(np.float32)


def _check(got, want):
    got, want = np.asarray(got), np.asarray(want)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    kept = np.isfinite(want)
    np.testing.assert_allclose(got[kept], want[kept], rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.floats(0.1, 3),
    st.integers(0, VOCABULARY),
    st.floats(0.01, 1),
)
def test_warped_as_transformers_warps(seed, temperature, top_k, top_p):
    logits = _logits(seed)
    theirs = transformers.LogitsProcessorList([transformers.TemperatureLogitsWarper(temperature)])
    if top_k:
        theirs.append(transformers.TopKLogitsWarper(top_k))
    if top_p < 1:
        theirs.append(transformers.TopPLogitsWarper(top_p))
    numbers = Sampling(temperature, top_k, top_p).numbers(ROWS)
    want = theirs(torch.zeros((ROWS, 1), dtype=torch.long), torch.tensor(logits))
    _check(WARPED(logits, numbers), want)


def test_what_is_left_out_before_stays_out():
    logits = np.array([[1.0, -np.inf, 2.0, -np.inf, 0.0]], np.float32)
    kept = WARPED(logits, Sampling(1.0, top_k=4, top_p=0.999).numbers(1))
    assert np.isfinite(kept).tolist() == [[True, False, True, False, True]]


def test_equal_logits_are_kept_together():
    logits = np.array([[1.0, 3.0, 1.0, 0.0]], np.float32)
    kept = WARPED(logits, Sampling(1.0, top_k=2).numbers(1))
    assert np.isfinite(kept).tolist() == [[True, True, True, False]]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0.2, 3), st.integers(0, 3), st.integers(0, 3))
def test_constrained_as_transformers_does(seed, penalty, least, count):
    logits = _logits(seed)
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (ROWS, 6))
    stops = [5, 7]
    theirs = transformers.LogitsProcessorList(
        [transformers.RepetitionPenaltyLogitsProcessor(penalty)]
    )
    if least:
        theirs.append(
            transformers.MinNewTokensLengthLogitsProcessor(6 - count, least, stops, device='cpu')
        )
    seen = np.zeros(logits.shape, bool)
    seen[np.arange(ROWS)[:, None], ids] = True
    numbers = Sampling(repetition_penalty=penalty, min_tokens=least).numbers(ROWS)
    got = CONSTRAINED(logits, numbers, np.array(stops, np.int32), np.int32(count), seen)
    _check(got, theirs(torch.tensor(ids), torch.tensor(logits)))


def test_tokens_come_as_often_as_they_should():
    """Each of many seeds draws once; frequencies are within five deviations."""
    rows = 4000
    sampling = Sampling(1.3, top_k=6, top_p=0.9, seed=tuple(range(rows)))
    logits = np.repeat(_logits(0)[:1, :20], rows, axis=0)
    numbers = sampling.numbers(rows)
    tokens = np.asarray(jax.jit(choose)(logits, numbers, np.int32(3)))
    share = np.asarray(jax.nn.softmax(WARPED(logits, numbers)[0]))
    assert 2 < (share > 0).sum() < 7
    off = np.bincount(tokens, minlength=20) / rows - share
    assert (np.abs(off) <= 5 * np.sqrt(share * (1 - share) / rows)).all()


def test_a_rows_numbers_are_its_own():
    """Others in the batch do not matter; seed and position do."""
    logits = jnp.zeros((3, 100_000))
    seeds = (7, 8, 7)
    draw = jax.jit(choose)
    tokens = draw(logits, Sampling(1.0, seed=seeds).numbers(3), np.int32(0))
    alone = draw(logits[:1], Sampling(1.0, seed=7).numbers(1), np.int32(0))
    later = draw(logits, Sampling(1.0, seed=seeds).numbers(3), np.int32(1))
    assert tokens[0] == tokens[2] == alone[0]
    assert len({int(tokens[0]), int(tokens[1]), int(later[0]), int(later[1])}) == 4


@pytest.mark.parametrize(
    'options',
    [
        {'temperature': -1},
        {'top_k': -1},
        {'top_p': 0},
        {'top_p': 1.1},
        {'repetition_penalty': 0},
        {'min_tokens': -1},
    ],
)
def test_numbers_out_of_range(options):
    with pytest.raises(ConfigError, match=rf'sampling\.{next(iter(options))} is'):
        Sampling(**options)


def test_seeds_of_other_rows():
    with pytest.raises(ConfigError, match='2 numbers for 3 rows'):
        Sampling(1.0, seed=(1, 2)).numbers(3)
