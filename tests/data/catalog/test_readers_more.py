"""Readers that only some distributions need: defaultdicts in .pkl, Parquet, WebDataset tars."""

import collections
import io
import json
import os
import pickle
import tarfile

import pyarrow as pa
import pyarrow.parquet
import pytest

from alm_jax.config import ConfigError
from alm_jax.data.catalog import plain_tables
from alm_jax.data.catalog.files import Files


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_defaultdict_is_read_as_the_dictionary_that_it_holds(protocol):
    table = collections.defaultdict(list, a=['x'], b=[])
    for value in (table, collections.defaultdict(None, a='x'), {'t': [table, table]}):
        read = plain_tables.parse(pickle.dumps(value, protocol), 't.pkl')
        assert read == value
    assert type(plain_tables.parse(pickle.dumps(table, protocol), 't.pkl')) is dict


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    'value',
    [
        os.getcwd,
        collections.defaultdict(os.getcwd),
        collections.Counter('ab'),
        [list],
        {'a': (list,)},
        collections.defaultdict,
    ],
    ids=str,
)
def test_every_other_name_in_a_table_is_refused(protocol, value):
    with pytest.raises(ConfigError, match='would name or call code'):
        plain_tables.parse(pickle.dumps(value, protocol), 't.pkl')


def test_a_call_of_a_factory_is_refused():
    # GLOBAL builtins list, EMPTY_TUPLE, REDUCE: only a defaultdict may be made.
    with pytest.raises(ConfigError, match='REDUCE'):
        plain_tables.parse(b'\x80\x02cbuiltins\nlist\n)R.', 't.pkl')


def test_parquet_files_are_read_in_order(tmp_path):
    (tmp_path / 'data').mkdir()
    for part, ids in enumerate((['a', 'b'], ['c'])):
        table = pa.table({'id': ids, 'tag': [['x', 'y']] * len(ids)})
        pyarrow.parquet.write_table(table, tmp_path / f'data/train-0000{part}.parquet')
    files = Files(tmp_path)
    rows = list(files.parquet('train-*.parquet', 'data'))
    assert [(row['id'], row['tag']) for row in rows] == [(i, ['x', 'y']) for i in 'abc']
    assert rows[2].where.endswith('train-00001.parquet, row 1')
    with pytest.raises(ConfigError, match=r'valid-\*\.parquet'):
        next(files.parquet('valid-*.parquet', 'data'))
    (tmp_path / 'data/bad.parquet').write_bytes(b'PAR1 no')
    with pytest.raises(ConfigError, match=r'bad\.parquet cannot be read as Parquet'):
        next(files.parquet('bad.parquet', 'data'))


def test_samples_of_tars_and_of_unpacked_tars_are_the_same(tmp_path, clips):
    packed, unpacked = tmp_path / 'packed', tmp_path / 'unpacked'
    for folder in (packed / 'train', unpacked / 'train/0'):
        folder.mkdir(parents=True)
        (folder.parent / 'sizes.json').write_text('{"0.tar": 3}')
    with tarfile.open(packed / 'train/0.tar', 'w') as tar:
        for number in (7, 2, 31):
            text = json.dumps({'text': [f'clip {number}']}).encode()
            members = {'json': text, 'flac': clips.content('flac', number)}
            for ending, content in members.items():
                if (ending, number) != ('flac', 31):  # 31 lacks its audio
                    info = tarfile.TarInfo(f'mnt/processed/train/{number}.{ending}')
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                    (unpacked / f'train/0/{number}.{ending}').write_bytes(content)
    found = [
        {key: (row['text'], clip is None) for key, row, clip in Files(root).samples('train')}
        for root in (packed, unpacked)
    ]
    expected = {f'0/{n}': ([f'clip {n}'], n == 31) for n in (7, 2, 31)}
    assert found == [expected, expected]
