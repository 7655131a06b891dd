"""Our reader against what TFDS wrote."""

import multiprocessing
import shutil
import subprocess
import sys

import numpy as np
import pytest
from travelling import travelled

from alm_jax.config import ConfigError
from alm_jax.data import array_records, record, sources
from alm_jax.data.inputs import entries

NAME = 'small_sounds/small'


@pytest.fixture
def copied(small_data_dir, tmp_path):
    """A dataset a test may damage."""
    shutil.copytree(small_data_dir, tmp_path / 'data')
    return tmp_path / 'data'


@pytest.fixture(scope='module')
def train(small_data_dir):
    return sources.open_source(f'{NAME}:train', small_data_dir)


def test_every_field_comes_back_as_written(train, small_records):
    written = {made['id']: made for made in small_records[:33]}
    assert len(train) == len(written)
    for i in range(len(train)):
        read = train[i]
        expected = written.pop(read['id'])
        assert set(read) == set(record.DEFAULTS)
        assert read['audio'].dtype == np.int16
        assert read['audio'].tobytes() == expected['audio']
        assert read['duration'] == pytest.approx(expected['duration'], rel=1e-6)
        for field in set(expected) - {'audio', 'duration'}:
            assert read[field] == expected[field], field
        for field in set(read) - set(expected):
            assert repr(read[field]) in ('[]', "''", 'nan'), field
    assert not written


def test_columns_are_those_of_the_records(train):
    rows = [record.columns_of(train[i]) for i in range(len(train))]
    for name in record.COLUMNS:
        column = train.columns[name]
        np.testing.assert_array_equal(column, np.array([row[name] for row in rows], column.dtype))


def test_an_index_out_of_range_is_an_error(train):
    with pytest.raises(IndexError):
        train[33]


def test_columns_are_cached_and_the_cache_is_used_until_a_shard_changes(copied, monkeypatch):
    first = sources.open_source(f'{NAME}:train', copied)
    caches = list(copied.rglob('index-train.arrow'))
    assert len(caches) == 1
    assert not list(copied.rglob('*.part'))

    with monkeypatch.context() as patch:
        patch.setattr(
            array_records.ArrayRecords, '_all_records', None
        )  # reading the audio would fail
        again = sources.open_source(f'{NAME}:train', copied)
    for name in record.COLUMNS:
        np.testing.assert_array_equal(first.columns[name], again.columns[name])

    folder = caches[0].parent
    for path in folder.glob('*-test.array_record-*'):  # the train split becomes the test split
        shutil.copy(path, folder / path.name.replace('-test.', '-train.'))
    assert len(sources.open_source(f'{NAME}:train', copied)) == 7


def test_no_more_shards_are_open_than_may_be(copied, monkeypatch):
    monkeypatch.setattr(array_records, 'OPEN_SHARDS', 2)
    train = sources.open_source(f'{NAME}:train', copied)
    assert not train._reader._open[1]  # lengths are known from dataset_info.json
    ids = [train[i]['id'] for i in (*range(len(train)), 0, 32)]
    assert ids[:33] == train.columns['id'].tolist()
    assert len(train._reader._paths) == 3
    assert len(train._reader._open[1]) == 2
    (info,) = copied.rglob('dataset_info.json')
    info.unlink()
    again = sources.open_source(f'{NAME}:train', copied)
    assert [again[i]['id'] for i in range(33)] == ids[:33]


def test_a_damaged_cache_is_built_again(copied):
    sources.open_source(f'{NAME}:train', copied)
    (cache,) = copied.rglob('index-train.arrow')
    cache.write_bytes(cache.read_bytes()[:100])
    assert len(sources.open_source(f'{NAME}:train', copied)) == 33


def test_a_source_that_travelled_reads_the_same(train):
    copy = travelled(train)
    assert (copy[7]['audio'] == train[7]['audio']).all()


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')  # forking is what is tested
@pytest.mark.filterwarnings('ignore:os.fork:RuntimeWarning')  # jax, where another test imported it
def test_a_forked_child_reads_the_same(train):
    expected = train[3]['audio'].sum()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context('fork').Process(
        target=lambda: sender.send(int(train[3]['audio'].sum()))
    )
    child.start()
    assert receiver.poll(30)
    assert receiver.recv() == expected
    child.join(10)


def test_where_keeps_the_records_that_match(train):
    german = train.where({'language': 'de'})
    some = train.where({'label': ['tone1', 'tone2'], 'kind': ['sound']})
    assert 0 < len(german) < len(train)
    assert {german[i]['language'] for i in range(len(german))} == {'de'}
    expected = [
        i
        for i in range(len(train))
        if train[i]['label'] in ('tone1', 'tone2') and train[i]['kind'] == 'sound'
    ]
    assert [some[i]['id'] for i in range(len(some))] == [train[i]['id'] for i in expected]
    assert some.columns['id'].tolist() == [some[i]['id'] for i in range(len(some))]
    again = some.where({'label': 'tone1'})
    assert {again[i]['label'] for i in range(len(again))} == {'tone1'}


def test_where_is_part_of_an_entry(small_data_dir):
    entry = {'name': f'{NAME}:train', 'weight': 2.0, 'where': {'language': ['de']}}
    assert len(sources.open_source(entry, small_data_dir)) == 11
    only = sources.open_source(entry, small_data_dir, where={'label': 'tone0'})
    assert set(only.columns['label']) == {'tone0'}


def test_sorted_indices_are_in_id_order(train):
    ids = [train[int(i)]['id'] for i in train.sorted_indices()]
    assert ids == sorted(ids)
    assert len(set(ids)) == 33


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('packaged_sounds/tiny:train', 'python -m alm_jax.prepare packaged_sounds --tier tiny'),
        ('small_sounds/smal:train', "Did you mean 'small_sounds/small'"),
        ('packaged_sound/tiny:train', "Did you mean 'packaged_sounds'"),
        (f'{NAME}:trian', "Did you mean 'train'"),
        (NAME, 'names no split'),
        ('synthetic_scenes:tests', "Did you mean 'test'"),
        ({'weight': 1.0}, "no source; give one of 'name', 'folder', 'tars', 'parquet', 'tree'"),
        ({'tars': '*.tar', 'tree': '.'}, "'tars' and 'tree'; give one of"),
        ({'tarz': '*.tar'}, "Did you mean 'tars'"),
        ({'name': f'{NAME}:train', 'split': 'test'}, "takes no 'split'"),
        ({'tree': '.', 'audio': 'flac'}, "dataset entry with 'tree': key 'audio' is unknown"),
        ('tars:*.tar?spilt=test', "Did you mean 'split'"),
        ('tars:/nowhere/0?.tar', 'nothing matches /nowhere/0?.tar'),
        ({'name': f'{NAME}:train', 'wher': {}}, "Did you mean 'where'"),
        ({'name': f'{NAME}:train', 'where': {'kimd': 'sound'}}, "Did you mean 'kind'"),
        ({'name': f'{NAME}:train', 'where': {'kind': ['music']}}, "'sound', 'speech'"),
        ('folder:/nowhere', 'needs captions'),
        ('folder:/nowhere?capt=a.csv', "Did you mean 'caption'"),
        ('folder:/nowhere?captions=a.csv', 'does not exist'),
    ],
)
def test_mistakes_are_named(small_data_dir, name, message):
    with pytest.raises(ConfigError) as error:
        sources.open_source(name, small_data_dir)
    assert message in str(error.value)


def test_a_missing_shard_is_an_error(copied):
    next(copied.rglob('*-train.array_record-00001-of-00003')).unlink()
    with pytest.raises(ConfigError, match='2 of 3 shards'):
        sources.open_source(f'{NAME}:train', copied)


def test_the_newest_version_is_read(copied):
    folder = copied / NAME
    shutil.copytree(folder / '1.0.0', folder / '1.10.0')
    shutil.copytree(folder / '1.0.0', folder / '1.9.0')
    for path in (folder / '1.10.0').glob('*-train.*'):
        path.unlink()
    with pytest.raises(ConfigError, match=r'1\.10\.0 has no split'):
        sources.open_source(f'{NAME}:train', copied)


def test_reading_imports_neither_jax_nor_tensorflow(small_data_dir):
    program = (
        'import sys; from alm_jax.data import sources;'
        f'sources.open_source("{NAME}:test", sys.argv[1])[0];'
        'sys.exit(any(name in sys.modules for name in ("jax", "tensorflow")))'
    )
    subprocess.run([sys.executable, '-c', program, small_data_dir], check=True, timeout=60)


def test_the_packaged_recordings_have_the_schema(packaged_tiny):
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    for i in range(0, len(source), max(1, len(source) // 20)):
        read = source[i]
        assert read['captions']
        assert len(read['audio']) == read['num_samples'] > 0
        assert read['duration'] == pytest.approx(read['num_samples'] / read['rate'], rel=1e-5)
        assert read['kind'] in ('sound', 'instrument', 'speech')
        assert read['id']
        assert read['recording_id']
        assert read['licence']


def test_no_group_of_the_packaged_recordings_is_on_two_sides(packaged_tiny):
    sides = [
        sources.open_source(f'packaged_sounds/tiny:{split}', packaged_tiny).columns
        for split in ('train', 'validation', 'test')
    ]
    for name in ('id', 'recording_id', 'group'):
        values = [set(columns[name].tolist()) for columns in sides]
        assert sum(map(len, values)) == len(set.union(*values)), name


def test_joined_splits_hold_each_record_of_each_split_once(packaged_tiny):
    name = 'packaged_sounds/tiny:{}'
    parts = [sources.open_source(name.format(split), packaged_tiny) for split in ('train', 'test')]
    joined = sources.open_source(name.format('train+test'), packaged_tiny)
    ids = np.concatenate([part.columns['id'] for part in parts])
    np.testing.assert_array_equal(joined.columns['id'], ids)
    for index in (0, len(parts[0]) - 1, len(parts[0]), len(joined) - 1):
        assert joined[index]['id'] == ids[index]
    with pytest.raises(ConfigError, match="Did you mean 'test'"):
        sources.open_source(name.format('train+tset'), packaged_tiny)


@pytest.mark.parametrize(
    ('entry', 'name'),
    [
        ({'name': 'packaged_sounds/tiny:train', 'weight': 2.0}, 'packaged_sounds/tiny:test'),
        (
            {'folder': 'a b', 'captions': 'my.csv', 'split': 'train'},
            'folder:a b?captions=my.csv&split=test',
        ),
        ({'name': 'tree:x?split=train'}, 'tree:x?split=test'),
        (
            {'tars': 's/{0..9}.tar', 'audio': 'mix.flac'},
            'tars:s/{0..9}.tar?audio=mix.flac&split=test',
        ),
        (
            {'parquet': 'd/0?.parquet', 'caption': ('a', 'b&c')},
            'parquet:d/0?.parquet?caption=a%2Cb%26c&split=test',
        ),
    ],
)
def test_the_name_of_another_split_of_an_entry(entry, name):
    assert entries.name_of(entry, 'test') == name
    if entries.is_own_data(name):
        kind = next(kind for kind in entries.KINDS if name.startswith(kind))
        parsed = entries.parsed(name)
        assert parsed['split'] == 'test'
        assert parsed[kind] == entry.get(kind, 'x')
        assert parsed.get('caption', 'a,b&c') == 'a,b&c'


def test_a_list_of_patterns_has_no_name():
    with pytest.raises(ConfigError, match='give one pattern'):
        entries.name_of({'tars': ['a.tar', 'b.tar']}, 'test')
