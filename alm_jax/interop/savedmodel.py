"""Variables of a TensorFlow SavedModel, read without TensorFlow.

``variables.index`` is a LevelDB table (https://github.com/google/leveldb/blob/main/doc/
table_format.md) from variable name to BundleEntryProto (tensorflow/core/protobuf/
tensor_bundle.proto); ``variables.data-00000-of-00001`` holds the raw little-endian arrays.
Checksums are not verified: the caller pins sha256 of both files.
"""

import math
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from alm_jax.config import ConfigError

FOOTER_BYTES = 48
LONGEST_KEY = 1024  # bytes
TABLE_MAGIC = 0xDB4775248B80FB57
BLOCK_TRAILER_BYTES = 5  # compression type and crc32c
DTYPES = {1: np.dtype('<f4'), 2: np.dtype('<f8'), 3: np.dtype('<i4'), 9: np.dtype('<i8')}
VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'  # the end of every variable's name
INDEX, SHARD = 'variables.index', 'variables.data-00000-of-00001'
STRING = 7  # DT_STRING: the object graph, not a variable


class SavedModelError(ConfigError):
    """The bytes are not an uncompressed, single-shard tensor bundle."""


def read_saved_model(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """``read_variables`` of a SavedModel's folder. SavedModelError names the file."""
    folder = pathlib.Path(path) / 'variables'
    for name in (INDEX, SHARD):
        if not (folder / name).is_file():
            raise SavedModelError(f'{folder} has no {name}.')
    try:
        return read_variables((folder / INDEX).read_bytes(), (folder / SHARD).read_bytes())
    except SavedModelError as error:
        raise SavedModelError(f'{folder}: {error}') from error


def read_variables(index: bytes, shard: bytes) -> dict[str, np.ndarray]:
    """Every numeric variable by its checkpoint key.

    Args:
      index: content of ``variables.index``.
      shard: content of ``variables.data-00000-of-00001``.

    Returns:
      key -> array; keys end in '/.ATTRIBUTES/VARIABLE_VALUE'.

    Raises:
      SavedModelError: naming the variable when its size or offset does not fit the shard, or when
        the index is damaged, compressed, or of several shards.
    """
    variables = {}
    try:
        for key, value in _table(index):
            entry = dict(_fields(value))
            if key == b'':
                if entry.get(1, 1) != 1:
                    raise SavedModelError(f'{entry[1]} shards; only one is read.')
            elif entry.get(1) != STRING:
                variables[key.decode()] = _array(key.decode(), _entry(value), shard)
    except (IndexError, UnicodeDecodeError, TypeError) as error:
        raise SavedModelError(f'variables.index is damaged: {error}.') from error
    return variables


def _entry(value: bytes) -> tuple[int, list[int], int, int]:
    """dtype, shape, offset and size in bytes of a BundleEntryProto."""
    entry = dict(_fields(value))
    dims = [dict(_fields(dim)).get(1, 0) for tag, dim in _fields(entry.get(2, b'')) if tag == 2]
    return entry.get(1, 0), dims, entry.get(4, 0), entry.get(5, 0)


def _array(key: str, entry: tuple[int, list[int], int, int], shard: bytes) -> np.ndarray:
    code, shape, offset, size = entry
    if code not in DTYPES:
        raise SavedModelError(f'{key}: data type {code} is not read.')
    if not all(isinstance(number, int) for number in (*shape, offset, size)):
        raise SavedModelError(f'{key}: its entry in variables.index is damaged.')
    dtype, count = DTYPES[code], math.prod(shape)
    if count * dtype.itemsize != size or offset + size > len(shard):
        raise SavedModelError(
            f'{key}: shape {shape} of {dtype} at byte {offset} does not fit its {size} bytes '
            f'or the shard of {len(shard)}.'
        )
    try:
        return np.frombuffer(shard, dtype, count, offset).reshape(shape)
    except (ValueError, OverflowError) as error:  # no values, or more axes than numpy has
        raise SavedModelError(f'{key}: no array has shape {shape}: {error}.') from error


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key-value pairs of a LevelDB table in order."""
    footer = data[-FOOTER_BYTES:]
    if len(data) < FOOTER_BYTES or int.from_bytes(footer[-8:], 'little') != TABLE_MAGIC:
        raise SavedModelError('variables.index is not a LevelDB table.')
    position = 0
    for _ in range(2):  # the handle of the metaindex block, unused
        _, position = _varint(footer, position)
    last: bytes | None = None
    for _, handle in _block(data, footer[position:]):
        for key, value in _block(data, handle):
            if last is not None and key <= last:  # as in every table; else blocks could repeat
                raise SavedModelError('the keys of variables.index do not rise.')
            last = key
            yield key, value


def _block(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset, position = _varint(handle, 0)
    size, _ = _varint(handle, position)
    if offset + size + BLOCK_TRAILER_BYTES > len(data) or size < 4:
        raise SavedModelError(f'a block of {size} bytes at {offset} is outside variables.index.')
    if data[offset + size] != 0:
        raise SavedModelError('variables.index is compressed.')
    block = data[offset : offset + size]
    end = size - 4 - 4 * int.from_bytes(block[-4:], 'little')  # restart points, not needed
    if end < 0:
        raise SavedModelError(f'the block at {offset} of variables.index has no end.')
    key, position = b'', 0
    while position < end:
        shared, position = _varint(block, position)
        added, position = _varint(block, position)
        length, position = _varint(block, position)
        long = shared + added > LONGEST_KEY  # what is shared costs nothing in the file
        if position + added + length > end or shared > len(key) or long:
            raise SavedModelError('an entry overruns its block of variables.index.')
        key = key[:shared] + block[position : position + added]
        position += added
        yield key, block[position : position + length]
        position += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protocol buffer message; fixed-width fields are skipped."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
        elif kind == 2:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise SavedModelError('a field overruns its message in variables.index.')
            yield tag >> 3, message[position : position + length]
            position += length
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise SavedModelError(f'wire type {kind} in variables.index.')


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise SavedModelError('a number in variables.index is longer than 64 bits.')
