"""Ranks against a loop that sorts, and recall of a random order against drawing many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.evals.metrics import retrieval

FEW = settings(max_examples=25, deadline=None, derandomize=True)


def rank_by_sorting(scores, relevant):
    """Best rank by sorting (-score, position) pairs, one query."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
    return 1 + min(order.index(j) for j in range(len(scores)) if relevant[j])


@FEW
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 30))
def test_best_ranks_equal_sorting_with_ties_by_id(seed, levels):
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, levels, (9, 14)) / levels
    relevant = rng.random((9, 14)) < 0.2
    relevant[np.arange(9), rng.integers(0, 14, 9)] = True
    expected = [rank_by_sorting(s, r) for s, r in zip(similarity, relevant, strict=True)]
    assert retrieval.best_ranks(similarity, relevant).tolist() == expected


def test_a_query_without_an_answer_is_an_error():
    with pytest.raises(ValueError, match='no relevant'):
        retrieval.best_ranks(np.zeros((1, 3)), np.zeros((1, 3), bool))


def test_statistics_by_hand():
    found = retrieval.statistics(np.array([1, 2, 6, 11]), np.ones(4))
    assert found['r_at_1'] == 0.25
    assert found['r_at_5'] == 0.5
    assert found['r_at_10'] == 0.75
    assert found['map_at_10'] == pytest.approx((1 + 1 / 2 + 1 / 6) / 4)
    assert found['median_rank'] == 4


@FEW
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_are_the_same_as_repeating_queries(seed):
    rng = np.random.default_rng(seed)
    ranks = rng.integers(1, 20, 12)
    weights = rng.integers(0, 4, (6, 12)).astype(float)
    weights[:, 0] = 1
    weighted = retrieval.statistics(ranks, weights)
    for row, counts in enumerate(weights.astype(int)):
        repeated = np.repeat(ranks, counts)
        plain = retrieval.statistics(repeated, np.ones(len(repeated)))
        for name, value in plain.items():
            assert weighted[name][row] == pytest.approx(value, abs=1e-12), name
        assert plain['median_rank'] == np.median(repeated)


def test_chance_recall_is_what_random_orders_reach():
    rng = np.random.default_rng(0)
    relevant = np.zeros((2, 12), bool)
    relevant[0, :1] = relevant[1, :4] = True
    hits = [(retrieval.best_ranks(rng.random((2, 12)), relevant) <= 5).mean() for _ in range(4000)]
    assert retrieval.chance_recall([1, 4], 12, 5) == pytest.approx(np.mean(hits), abs=0.02)


def test_equal_embeddings_tie_exactly():
    rng = np.random.default_rng(0)
    clip = rng.normal(size=384).astype(np.float32)
    others = rng.normal(size=(60, 384)).astype(np.float32)
    gallery = np.concatenate([clip[None], others, clip[None]])
    similarity = retrieval.similarity(rng.normal(size=(7, 384)).astype(np.float32), gallery)
    assert (similarity[:, 0] == similarity[:, -1]).all()
