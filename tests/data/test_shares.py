"""Shares and permutations: closed forms against counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.data.permutation import shuffled
from alm_jax.data.shares import BLOCK, Shares, count, locate

few = settings(max_examples=15, deadline=None, derandomize=True)
some_weights = st.lists(st.floats(0, 1e6) | st.floats(1e-7, 1e-3), min_size=1, max_size=8).filter(
    lambda weights: sum(weights) > 1e-6
)


@few
@given(some_weights)
def test_quotas_fill_each_block_and_add_up_to_the_shares(weights):
    shares = Shares(tuple(weights))
    exact = np.array(weights) / sum(weights) * BLOCK
    total = np.zeros(len(weights), int)
    for block in range(300):
        assert shares.before(block).tolist() == total.tolist()
        quotas = shares.quotas(block)
        assert quotas.sum() == BLOCK
        assert (np.abs(quotas - exact) < 1 + 1e-6).all()
        total += quotas
        # Rounding does not add up: a few rows after any number of blocks.
        assert (np.abs(total - (block + 1) * exact) < 3).all()


def test_a_part_rarer_than_a_block_comes_as_often_as_it_should():
    total = Shares((1.0, 1e-5)).before(10**6)
    assert total[1] == pytest.approx(1e-5 / 1.00001 * BLOCK * 1e6, abs=3)


@few
@given(some_weights, st.integers(0, 10**12))
def test_positions_are_located_as_counting_would(weights, far):
    shares = Shares(tuple(weights))
    parts, ordinals = locate(shares, np.arange(3 * BLOCK), (1, 2))
    seen = np.zeros(len(weights), int)
    for position, (part, ordinal) in enumerate(zip(parts, ordinals)):
        if position % 211 == 0:
            assert count(shares, position, (1, 2)).tolist() == seen.tolist()
        assert ordinal == seen[part]
        seen[part] += 1
    # Far away the same holds from one position to the next.
    parts, ordinals = locate(shares, far + np.arange(50), (1, 2))
    seen = count(shares, far, (1, 2))
    assert seen.sum() == far
    for part, ordinal in zip(parts, ordinals):
        assert ordinal == seen[part]
        seen[part] += 1


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 17, 1024, 1025, 4097, 9999])
def test_shuffled_is_a_permutation(size):
    """Sizes 4**k + 1 are where the cipher's domain grows."""
    order = [shuffled(place, size, (0, 1, 2)) for place in range(size)]
    assert sorted(order) == list(range(size))
    assert size < 17 or order != list(range(size))


@pytest.mark.parametrize('size', [5, 12, 100])
def test_every_order_of_a_pair_is_as_likely_as_another(size):
    """Over 2,000 epochs: each record at each place, and each of two before the other."""
    orders = np.array(
        [[shuffled(p, size, (0, 0, e)) for p in (0, 1, size - 1)] for e in range(2000)]
    )
    for column in orders.T:
        counts = np.bincount(column, minlength=size)
        expected = 2000 / size
        assert ((counts - expected) ** 2 / expected).sum() < size - 1 + 5 * np.sqrt(2 * (size - 1))
    assert abs((orders[:, 0] < orders[:, 1]).mean() - 0.5) < 0.05


def test_neighbours_are_not_kept_together():
    order = np.array([shuffled(place, 1000, (0, 0, 0)) for place in range(1000)])
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.12
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.12
