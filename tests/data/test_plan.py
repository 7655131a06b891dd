"""The plan: once an epoch, by the weights, from any step, on any number of hosts."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data.plan import BLOCK, Mixture, host_rows, plan, quotas, shuffled

few = settings(max_examples=12, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
batch_sizes = st.sampled_from([4, 8, 12, 64, 96])


@st.composite
def mixtures(draw):
    datasets = draw(st.integers(1, 4))
    return Mixture(
        sizes=tuple(draw(st.integers(1, 200)) for _ in range(datasets)),
        weights=tuple(draw(st.floats(0.01, 10)) for _ in range(datasets)),
        scene_share=draw(st.sampled_from([0.0, 0.5, 1.0])),
        scene_clips=draw(st.integers(2, 4)),
    )


def own_records(seed, steps, mixture, batch_size):
    """(dataset, index) of every row's own record, in plan order."""
    return [row.records[0] for step in steps for row in plan(seed, step, mixture, batch_size)]


@few
@given(seeds, mixtures(), batch_sizes)
def test_every_record_comes_once_an_epoch(seed, mixture, batch_size):
    steps = range(-(-BLOCK * 3 // 2 // batch_size))
    records = own_records(seed, steps, mixture, batch_size)
    for dataset, size in enumerate(mixture.sizes):
        seen = [index for d, index in records if d == dataset]
        for start in range(0, len(seen) - size + 1, size):
            assert sorted(seen[start : start + size]) == list(range(size))
        last = seen[len(seen) // size * size :]
        assert len(set(last)) == len(last)


def test_epochs_seeds_and_datasets_have_different_orders():
    mixture = Mixture(sizes=(64, 64), weights=(1, 1))

    def orders(seed):
        records = own_records(seed, range(8), mixture, 64)
        each = [[index for d, index in records if d == dataset] for dataset in (0, 1)]
        return [tuple(each[0][:64]), tuple(each[0][64:128]), tuple(each[1][:64])]

    assert len({*orders(0), *orders(1)}) == 6


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


@few
@given(seeds, mixtures())
def test_a_step_is_the_same_whatever_the_batch_before(seed, mixture):
    """The stream of own records does not depend on how it is cut into batches."""
    whole = own_records(seed, range(2), mixture, 96)
    assert own_records(seed, range(3), mixture, 64) == whole
    assert own_records(seed, range(1, 2), mixture, 96) == whole[96:]


@few
@given(seeds, st.integers(0, 10**9), mixtures(), batch_sizes)
def test_hosts_share_the_rows_of_one(seed, step, mixture, batch_size):
    one = plan(seed, step, mixture, batch_size)
    for hosts in (1, 2, 4):
        parts = [
            plan(seed, step, mixture, batch_size)[host_rows(batch_size, h, hosts)]
            for h in range(hosts)
        ]
        assert list(itertools.chain(*parts)) == one
        assert all(len(part) == batch_size // hosts for part in parts)


def test_a_batch_that_hosts_cannot_share_is_refused():
    with pytest.raises(ConfigError, match='multiple of 4'):
        host_rows(10, 0, 4)


@few
@given(seeds, mixtures())
def test_weights_are_the_shares_of_rows(seed, mixture):
    counts = Counter(d for d, _ in own_records(seed, range(2 * BLOCK // 64), mixture, 64))
    total = sum(mixture.weights)
    for dataset, weight in enumerate(mixture.weights):
        # To one row a block, unless another dataset had to be lifted to its one row.
        assert abs(counts[dataset] / 2 - BLOCK * weight / total) <= len(mixture.weights)
        assert counts[dataset] >= 2


@few
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8))
def test_quotas_fill_a_block(weights):
    rows = quotas(tuple(weights))
    assert rows.sum() == BLOCK
    assert rows.min() >= 1


def test_datasets_are_spread_over_a_block():
    """No run of batches sees only one dataset."""
    mixture = Mixture(sizes=(500, 500), weights=(1, 1))
    for step in range(16):
        share = np.mean([row.records[0][0] for row in plan(0, step, mixture, 64)])
        assert 0.2 < share < 0.8


def test_keys_differ_between_rows_steps_and_seeds():
    mixture = Mixture(sizes=(5,), weights=(1,))
    keys = [
        row.key for seed in (0, 1) for step in range(20) for row in plan(seed, step, mixture, 64)
    ]
    assert len(set(keys)) == len(keys)


@few
@given(seeds, st.integers(1, 6), st.integers(2, 4))
def test_companions_are_distinct_records_of_the_same_dataset(seed, size, clips):
    mixture = Mixture(sizes=(size, 9), weights=(1, 1), scene_share=1.0, scene_clips=clips)
    for row in plan(seed, 0, mixture, 64):
        datasets, indices = zip(*row.records)
        size_here = mixture.sizes[datasets[0]]
        assert len(set(datasets)) == 1
        assert len(set(indices)) == len(indices)
        assert all(0 <= index < size_here for index in indices)
        assert min(2, size_here) <= len(indices) <= clips


def test_scene_share_and_length_are_met():
    mixture = Mixture(sizes=(1000,), weights=(1,), scene_share=0.25, scene_clips=3)
    lengths = Counter(len(row.records) for step in range(40) for row in plan(0, step, mixture, 64))
    assert abs((lengths[2] + lengths[3]) / 2560 - 0.25) < 0.035  # four standard deviations
    assert abs(lengths[2] / (lengths[2] + lengths[3]) - 0.5) < 0.08


def test_any_companion_can_be_drawn():
    mixture = Mixture(sizes=(5,), weights=(1,), scene_share=1.0, scene_clips=2)
    pairs = {tuple(i for _, i in row.records) for s in range(10) for row in plan(0, s, mixture, 64)}
    assert pairs == {(a, b) for a in range(5) for b in range(5) if a != b}


def test_the_plan_does_not_change_between_versions():
    """A resume after an upgrade must draw the same records."""
    mixture = Mixture(sizes=(100, 7), weights=(0.7, 0.3), scene_share=0.5, scene_clips=3)
    assert [(row.records, row.key) for row in plan(3, 1_000_000, mixture, 4)] == [
        (((0, 49), (0, 91)), 12993324627995504839),
        (((1, 5), (1, 3), (1, 0)), 9174516482597010964),
        (((0, 79), (0, 52), (0, 99)), 244542235079783732),
        (((0, 88), (0, 11), (0, 39)), 2881570586730342139),
    ]


@pytest.mark.parametrize(
    'fields',
    [
        {'sizes': (), 'weights': ()},
        {'sizes': (0,), 'weights': (1.0,)},
        {'sizes': (5, 5), 'weights': (1.0,)},
        {'sizes': (5,), 'weights': (0.0,)},
        {'sizes': (5,), 'weights': (1.0,), 'scene_share': 1.5},
        {'sizes': (5,), 'weights': (1.0,), 'scene_clips': 1},
    ],
)
def test_impossible_mixtures_are_refused(fields):
    with pytest.raises(ConfigError):
        Mixture(**fields)
