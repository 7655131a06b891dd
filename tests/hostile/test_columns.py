"""Parquet and Arrow files that lie: page headers, counts of rows, offsets."""

import contextlib
import signal
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alm_jax.config import ConfigError
from alm_jax.data import archive_bounds
from alm_jax.data.inputs import files, parquet, parquet_encodings, parquet_values
from alm_jax.data.inputs.parquet_encodings import Damaged, Thrift

MEMORY = 16 << 20


@contextlib.contextmanager
def within(seconds):
    """An error where something would go on for ever."""

    def late(*_):
        raise AssertionError(f'it takes more than {seconds} s')

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


varint = parquet_encodings.varint
BOOLEANS, STRUCT, STOP = 0xF1, b'\x1c', b'\0'
HEADERS = {
    'booleans without end': b'\x19' + bytes([BOOLEANS]) + varint(1 << 40),
    'lists in lists': b'\x19' + b'\x19' * 500,
    'structs in structs': STRUCT * 5000,
    'text beyond the end': b'\x18' + varint(1 << 62),
    'a number without end': b'\x15' + b'\xff' * 1000,
    'unknown': b'\x1f',
    'cut off': b'\x15',
}


@pytest.mark.parametrize('name', HEADERS)
def test_a_page_header_that_lies(name):
    with within(5), little_memory(), pytest.raises((Damaged, IndexError)):
        Thrift(memoryview(HEADERS[name]), 0).struct()


def test_booleans_in_lists_are_bytes():
    header = Thrift(memoryview(b'\x19\x31\x01\x02\x01' + STOP), 0).struct()
    assert header == {1: [1, 2, 1]}


@pytest.fixture
def column(tmp_path):
    """(path, where its one page begins) of a file of three plain texts."""
    path = tmp_path / 'x.parquet'
    table = pa.table({'audio': pa.array([b'a' * 100, b'b' * 100, b'c' * 100], pa.binary())})
    pq.write_table(table, path, compression='none', use_dictionary=False)
    with pq.ParquetFile(path) as file:
        return path, file.metadata.row_group(0).column(0).data_page_offset


PAGES = {  # fields 1, 2 and 3 of a page header: its kind, its sizes unpacked and packed
    'goes back for ever': b'\x15\x02\x15\x00\x15\x0d' + STOP,  # 7 bytes, and -7 behind it
    'beyond its column': b'\x15\x02\x15\x00\x15' + varint(2 << 30) + STOP,
    'a dictionary of negative size': b'\x15\x04\x15\x00\x15\x0d' + STOP,
}


@pytest.mark.parametrize('name', PAGES)
def test_a_page_that_lies(column, name):
    path, at = column
    content = bytearray(path.read_bytes())
    assert len(list(parquet_values.values(path, 'audio'))) == 3
    content[at : at + len(PAGES[name])] = PAGES[name]
    path.write_bytes(content)
    with within(5), little_memory(), pytest.raises(ConfigError, match=r'x\.parquet: row group 0'):
        list(parquet_values.values(path, 'audio'))


def test_a_page_that_unpacks_to_far_more_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_bounds, 'ALWAYS', 4 << 20)
    path = tmp_path / 'bomb.parquet'
    table = pa.table({'audio': pa.array([bytes(32 << 20)], pa.large_binary())})
    pq.write_table(table, path, compression='zstd', use_dictionary=False)
    del table
    assert path.stat().st_size < 1 << 20
    before = pa.total_allocated_bytes()
    with pytest.raises(ConfigError, match='a page unpacks to 335'):
        list(parquet_values.values(path, 'audio'))
    assert pa.total_allocated_bytes() - before < MEMORY


def test_rows_that_cost_nothing_there_are_counted_before_they_cost_here(tmp_path):
    path = tmp_path / 'nulls.parquet'
    pq.write_table(pa.table({'audio': pa.nulls(5_000_000, pa.binary())}), path)
    assert path.stat().st_size < 100_000
    with little_memory(), pytest.raises(ConfigError, match='claims 5000000 rows'):
        parquet.scan(path, 'audio')


def test_offsets_of_an_arrow_file_are_checked_before_they_are_followed(tmp_path):
    """Arrow follows them blindly: an index that came with a set could read, or end, the process."""
    path = tmp_path / 'x.tar.index.arrow'
    names = ['first', 'second', 'third']
    schema = pa.schema([('name', pa.string())], metadata={'made_from': 'it'})
    with pa.OSFile(str(path), 'wb') as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_table(pa.table({'name': names}, schema=schema))
    assert files.read_table(path, 'it').column('name').to_pylist() == names
    offsets = b''.join(n.to_bytes(4, 'little') for n in (0, 5, 11, 16))
    content = path.read_bytes()
    assert content.count(offsets) == 1
    for wrong in ((0, 5, 11, 1 << 30), (0, 11, 5, 16), (-5 % 2**32, 5, 11, 16)):
        lie = b''.join(n.to_bytes(4, 'little') for n in wrong)
        path.write_bytes(content.replace(offsets, lie))
        assert files.read_table(path, 'it') is None
    path.write_bytes(content[:-20] + b'\xff' * 20)
    assert files.read_table(path, 'it') is None
