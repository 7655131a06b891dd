"""Windows and packs, planned from lengths alone."""

import numpy as np
import pytest
import travelling
from hypothesis import given, settings
from hypothesis import strategies as st
from travelling import travelled

from alm_jax.config import ConfigError
from alm_jax.data import index, packing, pools, record, sources

few = settings(max_examples=20, deadline=None, derandomize=True)
RATE = 1000


class Lengths:
    """A reader of records that have nothing but a length; ``path`` keeps its index on disk."""

    def __init__(self, seconds, path=None):
        records = [
            {**record.DEFAULTS, 'id': str(i), 'duration': s, 'num_samples': round(s * RATE)}
            for i, s in enumerate(seconds)
        ]
        self.index = index.Index.of(records)
        if path:
            self.index.write(path, made_from=repr(list(seconds)))
            self.index = index.Index.open(path)

    def __len__(self):
        return len(self.index)


def source_of(seconds, path=None):
    return sources.Source('lengths', Lengths(seconds, path))


lengths = st.lists(st.floats(1 / 64, 30, width=32), min_size=1, max_size=80)


@few
@given(lengths, st.sets(st.integers(1, 25), min_size=2, max_size=5))
def test_each_record_is_in_the_shortest_window_that_holds_it(seconds, windows):
    windows = sorted(float(w) for w in windows)
    pool = pools.make_pool(source_of(seconds), windows, pack=False, cache_dir=None)
    seen = []
    for window, size in enumerate(pool.sizes):
        for unit in range(size):
            (number,) = pool.records(window, unit)
            seen.append(number)
            assert seconds[number] <= windows[window] or window == len(windows) - 1
            assert window == 0 or seconds[number] > windows[window - 1]
    assert sorted(seen) == list(range(len(seconds)))


@few
@given(lengths, st.sampled_from([1.0, 10.0, 33.0]))
def test_packs_hold_every_clip_once_and_fit(seconds, window):
    pool = pools.make_pool(source_of(seconds), [window], pack=True, cache_dir=None)
    seen = []
    for unit in range(len(pool)):
        clips = pool.records(0, unit)
        assert len(clips) <= packing.MAX_CLIPS
        assert len(clips) == 1 or sum(seconds[clip] for clip in clips) <= window
        seen += clips
    assert sorted(seen) == list(range(len(seconds)))


def test_packs_of_many_clips_are_nearly_full():
    """Against the bound that no packing can beat: all seconds over the window."""
    seconds = np.random.default_rng(0).uniform(0.5, 6, 20_000)
    members, offsets = packing.pack(seconds, 10.0)
    assert sorted(members.tolist()) == list(range(20_000))
    assert seconds.sum() / 10 / (len(offsets) - 1) > 0.97


def test_units_without_buckets_are_the_records():
    pool = pools.make_pool(source_of([1.0, 2.0, 50.0]), [10.0], pack=False, cache_dir=None)
    assert [pool.records(0, unit) for unit in range(3)] == [(0,), (1,), (2,)]


@pytest.mark.parametrize('pack', [False, True])
def test_large_datasets_are_planned_once_and_mapped(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(pools, '_KEEP_FROM', 10)
    seconds = np.random.default_rng(1).uniform(0.1, 12, 500).tolist()
    windows = [10.0] if pack else [2.0, 5.0, 10.0]
    source = source_of(seconds, tmp_path / 'i.arrow')

    def units(pool):
        return [pool.records(w, u) for w, size in enumerate(pool.sizes) for u in range(size)]

    first = pools.make_pool(source, windows, pack=pack, cache_dir=tmp_path / 'plans')
    in_memory = pools.make_pool(source_of(seconds), windows, pack=pack, cache_dir=None)
    with monkeypatch.context() as patch:
        patch.setattr(pools, 'durations', None)  # planning again would fail
        again = pools.make_pool(source, windows, pack=pack, cache_dir=tmp_path / 'plans')
    assert units(first) == units(again) == units(in_memory)
    assert travelling.size(again) < 1000
    assert units(travelled(again)) == units(first)
    # Other lengths, or other windows, are other plans.
    other = source_of([*seconds[:-1], 1.0], tmp_path / 'j.arrow')
    assert other.digest != source.digest
    pools.make_pool(other, windows, pack=pack, cache_dir=tmp_path / 'plans')
    assert len(list((tmp_path / 'plans').iterdir())) == 2


def test_a_selection_of_a_large_dataset_is_kept_and_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, '_KEEP_FROM', 10)
    monkeypatch.setattr(sources, '_KEEP_FROM', 10)
    seconds = np.linspace(0.1, 12, 200).round(3).tolist()
    source = source_of(seconds, tmp_path / 'i.arrow')
    short = source.where({'duration': {'max': 6.0}}, tmp_path / 'plans')
    assert len(short) == sum(s <= 6 for s in seconds)
    with monkeypatch.context() as patch:
        patch.setattr(index.Index, 'rows_where', None)
        again = source.where({'duration': {'max': 6.0}}, tmp_path / 'plans')
    assert [again.id(i) for i in range(len(again))] == [short.id(i) for i in range(len(short))]
    pool = pools.make_pool(again, [2.0, 8.0], pack=False, cache_dir=tmp_path / 'plans')
    assert sum(pool.sizes) == len(short)
    for window, size in enumerate(pool.sizes):
        for unit in range(size):
            (number,) = pool.records(window, unit)
            assert (again.columns['duration'][number] <= 2.0) == (window == 0)


@pytest.mark.parametrize(
    ('windows', 'pack', 'message'),
    [
        ([5.0, 2.0], False, 'rising'),
        ([0.0, 2.0], False, 'rising'),
        ([float(w) for w in range(1, 10)], False, 'at most 8'),
        ([2.0, 5.0], True, 'pack'),
    ],
)
def test_impossible_windows_are_refused(windows, pack, message):
    with pytest.raises(ConfigError, match=message):
        pools.make_pool(source_of([1.0]), windows, pack=pack, cache_dir=None)
