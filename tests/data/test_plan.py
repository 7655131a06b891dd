"""The plan: once an epoch, by the weights, from any step, on any number of hosts."""

import itertools
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data.plan import BLOCK, Mixture, host_rows, plan, substitute, window_of
from alm_jax.data.pools import Pool

few = settings(max_examples=12, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
batch_sizes = st.sampled_from([4, 8, 12, 64, 96])


def pools(*sizes):
    return tuple(Pool((size,)) for size in sizes)


@st.composite
def mixtures(draw, windows=1, schedule=False):
    """One to four datasets, each divided over ``windows`` windows of which some may be empty."""
    datasets = draw(st.integers(1, 4))

    def sizes():
        low = [1] + [0] * (windows - 1)
        return tuple(draw(st.permutations([draw(st.integers(n, 120)) for n in low])))

    weights = st.floats(0.01, 10)
    pieces = []
    if schedule:
        for step in sorted(draw(st.sets(st.integers(1, 60), max_size=3))):
            pieces.append((step, tuple(draw(weights) for _ in range(datasets))))
    return Mixture(
        pools=tuple(Pool(sizes()) for _ in range(datasets)),
        weights=tuple(draw(weights) for _ in range(datasets)),
        schedule=tuple(pieces),
        scene_share=draw(st.sampled_from([0.0, 0.5, 1.0])),
        scene_clips=draw(st.integers(2, 4)),
    )


def own_records(seed, steps, mixture, batch_size):
    """(dataset, index) of every row's own record, in plan order."""
    return [row.records[0] for step in steps for row in plan(seed, step, mixture, batch_size)]


@few
@given(seeds, st.data(), batch_sizes)
def test_every_record_comes_once_an_epoch(seed, data, batch_size):
    """In every window of every dataset, whatever the weights do meanwhile."""
    windows = data.draw(st.sampled_from([1, 3]))
    mixture = data.draw(mixtures(windows=windows, schedule=True))
    steps = range(max(-(-BLOCK * 3 // 2 // batch_size), 60))
    seen = {}
    for step in steps:
        for row in plan(seed, step, mixture, batch_size):
            dataset, index = row.records[0]
            seen.setdefault((dataset, row.window), []).append(index)
    for (dataset, window), indices in seen.items():
        sizes = mixture.pools[dataset].sizes
        units = range(sum(sizes[:window]), sum(sizes[: window + 1]))
        for start in range(0, len(indices), len(units)):
            epoch = indices[start : start + len(units)]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(units)


def test_epochs_seeds_and_datasets_have_different_orders():
    mixture = Mixture(pools(64, 64), weights=(1, 1))

    def orders(seed):
        records = own_records(seed, range(8), mixture, 64)
        each = [[index for d, index in records if d == dataset] for dataset in (0, 1)]
        return [tuple(each[0][:64]), tuple(each[0][64:128]), tuple(each[1][:64])]

    assert len({*orders(0), *orders(1)}) == 6


@few
@given(seeds, mixtures())
def test_a_step_is_the_same_whatever_the_batch_before(seed, mixture):
    """The stream of own records does not depend on how it is cut into batches."""
    whole = own_records(seed, range(2), mixture, 96)
    assert own_records(seed, range(3), mixture, 64) == whole
    assert own_records(seed, range(1, 2), mixture, 96) == whole[96:]


@few
@given(seeds, st.integers(0, 10**9), st.data())
def test_hosts_share_the_rows_of_one(seed, step, data):
    mixture = data.draw(mixtures(windows=data.draw(st.sampled_from([1, 4])), schedule=True))
    one = plan(seed, step, mixture, 96)
    for hosts in (1, 2, 4, 16):
        parts = [plan(seed, step, mixture, 96)[host_rows(96, h, hosts)] for h in range(hosts)]
        assert list(itertools.chain(*parts)) == one
        assert all(len(part) == 96 // hosts for part in parts)


@few
@given(seeds, st.data())
def test_a_restart_plans_what_would_have_come(seed, data):
    """Nothing is remembered: a new mixture object at a later step, in any order of steps."""
    windows = data.draw(st.sampled_from([1, 3]))
    mixture = data.draw(mixtures(windows=windows, schedule=True))
    steps = data.draw(st.lists(st.integers(0, 80), min_size=1, max_size=6))
    whole = {step: plan(seed, step, mixture, 12) for step in range(81)}
    for step in steps:
        again = Mixture(
            pools=tuple(Pool(pool.sizes) for pool in mixture.pools),
            weights=mixture.weights,
            schedule=mixture.schedule,
            scene_share=mixture.scene_share,
            scene_clips=mixture.scene_clips,
        )
        assert plan(seed, step, again, 12) == whole[step]


def test_a_batch_that_hosts_cannot_share_is_refused():
    with pytest.raises(ConfigError, match='multiple of 4'):
        host_rows(10, 0, 4)


@few
@given(seeds, mixtures())
def test_weights_are_the_shares_of_the_rows_of_a_block(seed, mixture):
    counts = Counter(d for d, _ in own_records(seed, range(BLOCK // 64), mixture, 64))
    for dataset, weight in enumerate(mixture.weights):
        assert abs(counts[dataset] - BLOCK * weight / sum(mixture.weights)) < 1 + 1e-6


@few
@given(seeds, mixtures(windows=3))
def test_windows_come_as_often_as_records_need_them(seed, mixture):
    counts = Counter(window_of(seed, step, mixture, 8) for step in range(BLOCK))
    weights = np.array(mixture.weights) / sum(mixture.weights)
    for window in range(3):
        share = sum(w * pool.sizes[window] / len(pool) for w, pool in zip(weights, mixture.pools))
        assert abs(counts[window] - BLOCK * share) < 1 + 1e-6
    for step in range(5):
        rows = plan(seed, step, mixture, 8)
        assert {row.window for row in rows} == {window_of(seed, step, mixture, 8)}


def test_a_schedule_changes_the_shares_from_its_step_on():
    mixture = Mixture(pools(50, 60), weights=(1, 0), schedule=((32, (0, 1)), (48, (1, 1))))
    rows = [Counter(d for d, _ in own_records(0, [step], mixture, 64)) for step in range(64)]
    assert all(counts == {0: 64} for counts in rows[:32])
    assert all(counts == {1: 64} for counts in rows[32:48])
    assert sum(rows[48:], Counter()) == {0: 512, 1: 512}


def test_datasets_are_spread_over_a_block():
    """No run of batches sees only one dataset."""
    mixture = Mixture(pools(500, 500), weights=(1, 1))
    for step in range(16):
        share = np.mean([row.records[0][0] for row in plan(0, step, mixture, 64)])
        assert 0.2 < share < 0.8


def test_keys_differ_between_rows_steps_and_seeds():
    mixture = Mixture(pools(5), weights=(1,))
    keys = [
        row.key for seed in (0, 1) for step in range(20) for row in plan(seed, step, mixture, 64)
    ]
    assert len(set(keys)) == len(keys)


@few
@given(seeds, st.integers(1, 6), st.integers(2, 4))
def test_companions_are_distinct_records_of_the_same_dataset(seed, size, clips):
    mixture = Mixture(pools(size, 9), weights=(1, 1), scene_share=1.0, scene_clips=clips)
    for row in plan(seed, 0, mixture, 64):
        datasets, indices = zip(*row.records)
        size_here = len(mixture.pools[datasets[0]])
        assert len(set(datasets)) == 1
        assert len(set(indices)) == len(indices)
        assert all(0 <= index < size_here for index in indices)
        assert min(2, size_here) <= len(indices) <= clips


def test_scene_share_and_length_are_met():
    mixture = Mixture(pools(1000), weights=(1,), scene_share=0.25, scene_clips=3)
    lengths = Counter(len(row.records) for step in range(40) for row in plan(0, step, mixture, 64))
    assert abs((lengths[2] + lengths[3]) / 2560 - 0.25) < 0.035  # four standard deviations
    assert abs(lengths[2] / (lengths[2] + lengths[3]) - 0.5) < 0.08


def test_any_companion_can_be_drawn():
    mixture = Mixture(pools(5), weights=(1,), scene_share=1.0, scene_clips=2)
    pairs = {tuple(i for _, i in row.records) for s in range(10) for row in plan(0, s, mixture, 64)}
    assert pairs == {(a, b) for a in range(5) for b in range(5) if a != b}


def test_noise_and_impulse_responses_are_drawn_by_their_shares():
    mixture = Mixture(
        pools(9), weights=(1,), noises=5, noise_share=0.5, impulses=3, impulse_share=0.1
    )
    rows = [row for step in range(40) for row in plan(0, step, mixture, 64)]
    noises = Counter(row.noise for row in rows)
    impulses = Counter(row.impulse for row in rows)
    assert abs(noises.pop(None) / 2560 - 0.5) < 0.04
    assert abs(impulses.pop(None) / 2560 - 0.9) < 0.024
    assert sorted(noises) == list(range(5))
    assert sorted(impulses) == list(range(3))


def test_substitutes_are_a_sequence_of_the_row_alone():
    effects = {'noises': 9, 'noise_share': 0.5, 'impulses': 9, 'impulse_share': 0.5}
    mixture = Mixture((Pool((3, 40)), Pool((30, 4))), weights=(1, 1), **effects)
    for row in plan(0, 5, mixture, 64):
        others = [substitute(row, attempt, mixture) for attempt in range(1, 30)]
        assert others == [substitute(row, attempt, mixture) for attempt in range(1, 30)]
        assert len({other.key for other in others} | {row.key}) == 30
        dataset = row.records[0][0]
        sizes = mixture.pools[dataset].sizes
        allowed = range(sum(sizes[: row.window]), sum(sizes[: row.window + 1]))
        for other in others:
            assert other.window == row.window
            assert all(d == dataset and index in allowed for d, index in other.records)
        assert len({other.records for other in others}) > min(2, len(allowed) - 1)
        for name in ('noise', 'impulse'):
            drawn = {getattr(other, name) for other in others}
            assert drawn == {None} if getattr(row, name) is None else len(drawn) > 3


def test_step_ten_million_of_a_billion_records_takes_milliseconds_and_no_memory():
    mixture = Mixture(
        tuple(Pool((60_000_000, 30_000_000 + i, 10_000_000)) for i in range(10)),
        weights=tuple(range(1, 11)),
        schedule=((1_000_000, tuple(range(10, 0, -1))), (5_000_001, (1,) * 10)),
        scene_share=0.2,
    )
    plan(1, 0, mixture, 512)
    tracemalloc.start()
    start = time.process_time()
    for step in (10**7, 10**7 + 1, 10**9):
        assert len(plan(0, step, mixture, 512)) == 512
    seconds = (time.process_time() - start) / 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 1  # some 10 ms without tracemalloc; counting up would take minutes
    assert peak < 2 << 20


def test_the_plan_does_not_change_between_versions():
    """A resume after an upgrade must draw the same records."""
    mixture = Mixture(pools(100, 7), weights=(0.7, 0.3), scene_share=0.5, scene_clips=3)
    assert [(row.records, row.key) for row in plan(3, 1_000_000, mixture, 4)] == EXPECTED


EXPECTED = [
    (((0, 11),), 12993324627995504839),
    (((0, 23), (0, 71)), 9174516482597010964),
    (((0, 38), (0, 24), (0, 43)), 244542235079783732),
    (((1, 6),), 2881570586730342139),
]


@pytest.mark.parametrize(
    'fields',
    [
        {'pools': (), 'weights': ()},
        {'pools': pools(0), 'weights': (1.0,)},
        {'pools': pools(5, 5), 'weights': (1.0,)},
        {'pools': pools(5), 'weights': (0.0,)},
        {'pools': pools(5), 'weights': (1.0,), 'scene_share': 1.5},
        {'pools': pools(5), 'weights': (1.0,), 'scene_clips': 1},
        {'pools': (Pool((5,)), Pool((5, 5))), 'weights': (1.0, 1.0)},
        {'pools': pools(5), 'weights': (1.0,), 'schedule': ((0, (1.0,)),)},
        {'pools': pools(5), 'weights': (1.0,), 'schedule': ((9, (1.0,)), (5, (1.0,)))},
        {'pools': pools(5), 'weights': (1.0,), 'schedule': ((9, (1.0, 1.0)),)},
    ],
)
def test_impossible_mixtures_are_refused(fields):
    with pytest.raises(ConfigError):
        Mixture(**fields)
