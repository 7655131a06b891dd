"""Where each value of a binary Parquet column lies, so that one can be read without its row group.

Row groups of audio hold tens of megabytes, mostly in one page, and libraries decode no less. Here
the pages are walked once (github.com/apache/parquet-format: PageHeader in the compact protocol of
Thrift, Encodings.md). Of a page without compression a value is a stretch of the file. Snappy packs
64 KiB at a time, and no copy reaches beyond (format_description.txt of google/snappy leaves this to
the compressor; it is checked for every page), so the blocks that hold the value are read and
unpacked, and nothing else. Any other compression means to unpack the page of the value.
"""

import mmap
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alm_jax.config import ConfigError
from alm_jax.data import archive_bounds
from alm_jax.data.inputs.parquet_encodings import (
    SNAPPY_BLOCK,
    Damaged,
    Thrift,
    run_lengths,
    snappy_blocks,
    varint,
)

# Parquet's name of a compression -> Arrow's; a Value's codec is a place in it.
_CODECS = {
    'UNCOMPRESSED': '',
    'SNAPPY': 'snappy',
    'GZIP': 'gzip',
    'BROTLI': 'brotli',
    'ZSTD': 'zstd',
    'LZ4': 'lz4_raw',
}
_ARROW_CODECS = tuple(_CODECS.values())
_SNAPPY = _ARROW_CODECS.index('snappy')
_ROWS_ALWAYS = 1 << 20
_LARGEST = 2**31 - 1  # bytes of a page; its size is an int32
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # PageType
_PLAIN, _BY_DICTIONARY = 0, (2, 8)  # Encoding; 2 is the older name of RLE_DICTIONARY


class Value(NamedTuple):
    """A value: ``size`` bytes from ``skip`` on in what ``stored`` bytes at ``offset`` unpack to."""

    offset: int
    stored: int
    unpacked: int  # bytes
    skip: int
    size: int
    codec: int


def unpack(stored: bytes, value: Value) -> bytes:
    """The value, from its stored bytes. Raises pa.ArrowInvalid or OSError when they are damaged."""
    if not value.codec:
        return stored
    if value.codec == _SNAPPY:
        stored = varint(value.unpacked) + stored
    page = pa.decompress(stored, value.unpacked, _ARROW_CODECS[value.codec])
    return page[value.skip : value.skip + value.size].to_pybytes()


def values(path: pathlib.Path, column: str) -> Iterator[tuple[Value | None, memoryview]]:
    """(place, content) of every value of a column in the order of rows; (None, empty) for a null.

    Args:
      path: a Parquet file.
      column: its path in the schema, such as 'audio.bytes'.

    Raises:
      ConfigError: a column that is a list, a page that is damaged or of another encoding.
    """
    with pq.ParquetFile(path) as parquet:
        metadata = parquet.metadata
        _check_rows(path, metadata)
        names = [metadata.schema.column(i).path for i in range(len(metadata.schema))]
        number = names.index(column)
        levels = metadata.schema.column(number).max_definition_level
        if metadata.schema.column(number).max_repetition_level:
            raise ConfigError(
                f'{path}: column {column!r} holds lists; one recording a row is read.'
            )
    with path.open('rb') as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(number)
        if chunk.num_values != metadata.row_group(group).num_rows:
            raise ConfigError(f'{path}: row group {group} has {chunk.num_values} values; damaged.')
        try:
            yield from _Chunk(view, chunk, levels).values()
        except (*_MALFORMED, pa.ArrowException) as error:
            raise ConfigError(
                f'{path}: row group {group} of column {column!r} cannot be read ({error}).'
            ) from error


def _check_rows(path: pathlib.Path, metadata: pq.FileMetaData) -> None:
    """Rows cost memory here, and nulls cost nothing there: a kilobyte may claim two billion."""
    size = path.stat().st_size
    rows = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    if rows != metadata.num_rows or rows > max(size, _ROWS_ALWAYS):
        raise ConfigError(f'{path} claims {rows} rows in {size} bytes; it is not read.')


_MALFORMED = (Damaged, LookupError, ValueError, TypeError, ArithmeticError, OSError)


class _Page(NamedTuple):
    """A page: what it unpacks to, and how to name a stretch of that."""

    content: memoryview
    offset: int  # in the file, of what is packed
    stored: int
    codec: int
    starts: list[int]  # of snappy's blocks, in what is stored; with their end. Else empty.

    def value(self, start: int, size: int) -> tuple[Value, memoryview]:
        """A stretch of the content."""
        if start + size > len(self.content):
            raise Damaged('a value ends after its page')
        found = self.content[start : start + size]
        if not size:
            return Value(self.offset, 0, 0, 0, 0, 0), found
        if not self.codec:
            return Value(self.offset + start, size, size, 0, size, 0), found
        if not self.starts:
            unpacked = len(self.content)
            return Value(self.offset, self.stored, unpacked, start, size, self.codec), found
        first, last = start // SNAPPY_BLOCK, (start + size - 1) // SNAPPY_BLOCK + 1
        begin, end = self.starts[first], self.starts[last]
        unpacked = min(last * SNAPPY_BLOCK, len(self.content)) - first * SNAPPY_BLOCK
        skip = start - first * SNAPPY_BLOCK
        return Value(self.offset + begin, end - begin, unpacked, skip, size, self.codec), found


class _Chunk:
    """A column in one row group."""

    def __init__(self, view: memoryview, chunk: pq.ColumnChunkMetaData, levels: int):
        starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
        self._at = min(start for start in starts if start)
        self._end = self._at + chunk.total_compressed_size
        self._view = view
        self._left = chunk.num_values
        self._levels = levels
        if chunk.compression not in _CODECS:
            raise Damaged(f'compression {chunk.compression} is not known')
        self._codec = list(_CODECS).index(chunk.compression)
        self._dictionary: list[tuple[Value, memoryview]] = []

    def values(self) -> Iterator[tuple[Value | None, memoryview]]:
        while self._left > 0:
            if self._at >= self._end:
                raise Damaged('pages are missing')
            reader = Thrift(self._view, self._at)
            header = reader.struct()
            start, self._at = reader.at, reader.at + header[3]
            if not start <= self._at <= self._end:  # else one would be read again and again
                raise Damaged('a page is larger than its column, or its header is damaged')
            if header[1] == _DICTIONARY:
                page = self._page(start, header[3], header[2])
                self._dictionary = list(self._plain(page, 0, header[7][1]))
            elif header[1] in (_DATA, _DATA_V2):
                yield from self._data(header, start)

    def _data(self, header: dict, start: int) -> Iterator[tuple[Value | None, memoryview]]:
        second = header[1] == _DATA_V2
        about = header[8] if second else header[5]
        count = about[1]
        if not 0 <= count <= self._left:
            raise Damaged('a page says that it holds more values than there are')
        self._left -= count
        width = self._levels.bit_length()
        if second:  # levels stand before the packed part
            before = about[5] + about[6]
            codec = self._codec if about.get(7, True) else 0
            page = self._page(start + before, header[3] - before, header[2] - before, codec)
            levels, at = self._view[start + about[6] : start + before], 0
        else:
            page = self._page(start, header[3], header[2])
            at = 4 + int.from_bytes(page.content[:4], 'little') if width else 0
            levels = page.content[4:at]
        is_there = np.ones(count, bool)
        if width:
            is_there = run_lengths(levels, width, count) == self._levels
        found = self._present(page, at, about[4 if second else 2], int(is_there.sum()))
        for there in is_there:
            yield next(found) if there else (None, memoryview(b''))

    def _present(self, page: _Page, at: int, encoding: int, count: int) -> Iterator:
        if encoding == _PLAIN:
            return self._plain(page, at, count)
        if encoding not in _BY_DICTIONARY:
            raise Damaged(
                f'encoding {encoding} is not read; write the column with plain or dictionary '
                'encoding, as the datasets library does'
            )
        width = page.content[at] if count else 0
        places = run_lengths(page.content[at + 1 :], width, count)
        return (self._dictionary[place] for place in places)

    def _plain(self, page: _Page, at: int, count: int) -> Iterator[tuple[Value, memoryview]]:
        for _ in range(count):
            size = int.from_bytes(page.content[at : at + 4], 'little')
            yield page.value(at + 4, size)
            at += 4 + size

    def _page(self, start: int, stored: int, unpacked: int, codec: int | None = None) -> _Page:
        codec = self._codec if codec is None else codec
        packed = self._view[start : start + stored]
        if stored < 0 or len(packed) < stored or not 0 <= unpacked <= _LARGEST:
            raise Damaged('a page is cut off, or its header is damaged')
        if unpacked > archive_bounds.most_unpacked(stored):
            raise Damaged(f'a page unpacks to {unpacked} bytes from {stored}')
        if not codec:
            return _Page(packed, start, stored, 0, [])
        content = memoryview(pa.decompress(packed, unpacked, _ARROW_CODECS[codec])).cast('B')
        if codec != _SNAPPY:
            return _Page(content, start, stored, codec, [])
        begin = len(varint(unpacked))  # what the page says of its size; said anew for a part
        starts = snappy_blocks(packed[begin:], unpacked)
        return _Page(content, start + begin, stored - begin, codec, starts)
