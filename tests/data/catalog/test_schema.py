"""A record comes back from a prepared dataset as the dataset's declaration said it."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from alm_jax.audio import decode
from alm_jax.data import array_records, record
from alm_jax.data.catalog.building import listing, shards
from alm_jax.data.catalog.declaration import MEASURED, Clip, Dataset, Item
from alm_jax.data.catalog.files import Files

TEXT = st.text(max_size=20)  # any Unicode
SECONDS = st.floats(0, 4000, width=32)
NAMES = {name for name, default in record.DEFAULTS.items() if isinstance(default, str)} - MEASURED
FIELDS = st.fixed_dictionaries(
    {
        **{name: st.text(min_size=1, max_size=20) for name in sorted(NAMES)},
        'captions': st.lists(TEXT, max_size=5),
        'tags': st.lists(TEXT, max_size=3),
        'turns': st.lists(
            st.fixed_dictionaries(
                {'question': TEXT, 'answer': TEXT, 'dialogue': st.integers(0, 2**40)}
            ),
            max_size=6,
        ),
        'times': st.lists(
            st.fixed_dictionaries({'onset': SECONDS, 'offset': SECONDS, 'text': TEXT}), max_size=4
        ),
    }
)
DATASET = Dataset(
    name='miniature',
    version='1.0.0',
    title='Miniature',
    homepage='',
    licence='CC0-1.0',
    provenance='human',
    layout='',
    items=lambda files, config: iter(()),
)


def prepared(folder, items, storage, rate=0):
    """{id: record} read from a shard that was prepared from the items."""
    dataset = dataclasses.replace(DATASET, items=lambda files, config: iter(items))
    for name in ('work', 'results', 'ready'):
        (folder / name).mkdir(parents=True)
    files = Files(folder, scratch=folder / 'scratch')
    listed = listing.list_items(dataset, '', files, folder / 'work', splits=(), size=100)
    (path,) = listed.jobs['train']
    shards.write_shard(
        shards.Job(
            items=str(path),
            shard=str(folder / 'ready/miniature-train.array_record-00000-of-00001'),
            result=str(folder / 'results/train.json'),
            sampling_rate=rate,
            storage=storage,
        )
    )
    reader = array_records.ArrayRecords(folder / 'ready', 'train')
    found = (reader.read(row) for row in range(len(reader)))
    return {found['id']: found for found in found}


@pytest.fixture(scope='module')
def paths(recordings):
    return sorted(recordings.glob('*.ogg'))


@pytest.mark.parametrize('storage', shards.STORAGES)
@hypothesis.settings(max_examples=15, deadline=None, derandomize=True)
@hypothesis.given(
    fields=st.lists(FIELDS, min_size=1, max_size=3),
    numbers=st.lists(st.integers(0, 16), min_size=1, max_size=3),
)
def test_a_record_comes_back_as_declared(tmp_path_factory, paths, storage, fields, numbers):
    clips = tuple(Clip(str(paths[number])) for number in numbers)
    items = [Item('train', f'{n}: größer/犬', clips, given) for n, given in enumerate(fields)]
    read = prepared(tmp_path_factory.mktemp('schema'), items, storage)
    assert len(read) == len(items)
    for item in items:
        record_read = record.decoded(read[item.id])
        assert {name: record_read[name] for name in item.fields} == item.fields
        native = [decode.decode(clip.path) for clip in clips]
        rate = max(rate for _, rate in native)
        assert record_read['rate'] == rate
        lengths = record_read['clip_samples']
        assert len(lengths) == (len(clips) if len(clips) > 1 else 0)
        assert (
            record_read['num_samples']
            == len(record_read['audio'])
            == (sum(lengths) if lengths else len(native[0][0]))
        )
        assert record_read['duration'] == pytest.approx(record_read['num_samples'] / rate)
        starts = np.cumsum([0, *lengths]) if lengths else [0]
        for (x, native_rate), start in zip(native, starts):
            if native_rate == rate:  # nothing but the rounding to 16 bits
                pcm = record_read['audio'][start : start + len(x)]
                np.testing.assert_array_equal(pcm, decode.to_pcm16(x))


@pytest.mark.parametrize('storage', shards.STORAGES)
def test_an_empty_record_has_the_defaults(tmp_path, paths, storage):
    item = Item('train', 'only', (Clip(str(paths[0])),), {})
    (read,) = prepared(tmp_path, [item], storage).values()
    said = DATASET.fields(item)
    for name in record.DEFAULTS:
        if name in said:
            value = read[name]
            assert (tuple(value) if isinstance(value, list) else value) == said[name], name
    assert set(read) == set(record.DEFAULTS)
    assert read['recording_id'] == read['group'] == 'miniature/only'
    assert read['clip_samples'] == []


def test_both_storages_hold_the_same_samples(tmp_path, paths):
    items = [Item('train', path.name, (Clip(str(path)),), {}) for path in paths]
    flac = prepared(tmp_path / 'flac', items, 'flac', 16_000)
    pcm16 = prepared(tmp_path / 'pcm16', items, 'pcm16', 16_000)
    for name, stored in flac.items():
        assert isinstance(stored['audio'], bytes)
        np.testing.assert_array_equal(record.decoded(stored)['audio'], pcm16[name]['audio'])
        assert stored['rate'] == 16_000
