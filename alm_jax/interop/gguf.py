"""GGUF files (versions 2 and 3), the format of llama.cpp, read without it.

A file is a header with metadata, a list of tensors, then their data, aligned. The layout is the
specification's (ggml, docs/gguf.md). Nothing a header says is believed before it is compared with
the size of the file: a damaged or hostile file is an error, never a large allocation.
"""

import math
import os
import pathlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.interop import gguf_types

MAGIC = b'GGUF'
VERSIONS = (2, 3)
MAX_NAME = 1 << 16  # bytes of a key or tensor name
MAX_STRING = 16 << 20  # bytes of a text; the longest are templates, of some kilobytes
MAX_ITEMS = 16 << 20  # of all arrays: the largest vocabularies have a fortieth
MAX_DIMENSIONS = 4
MAX_VALUES = 1 << 58  # of a tensor, empty axes taken for 1: numpy can index no more
MAX_NESTING = 4  # of arrays in arrays
_STRING, _ARRAY = 8, 9
_SCALARS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?'}
_SCALARS |= {10: 'Q', 11: 'q', 12: 'd'}


class _Info(NamedTuple):
    """Where a tensor is: ``kind`` is a row of gguf_types.TYPES, ``shape`` numpy's order."""

    shape: tuple[int, ...]
    kind: gguf_types.Kind
    start: int
    end: int


class GgufFile(Mapping):
    """Tensors of a file by name, float32, dequantised when asked for; none is kept.

    Attributes:
      name: of the file, for messages.
      metadata: key -> number, string, bool or list. '<architecture>.block_count' and the like.
      header_bytes: where the data start.
    """

    def __init__(self, source: str | os.PathLike | bytes, name: str = ''):
        """Reads the header of a file, or of its content.

        Raises:
          ConfigError: not GGUF, another version, a damaged header, a tensor of an unknown type or
            beyond the end; names the file and the key or tensor.
        """
        if isinstance(source, bytes):
            self._data = np.frombuffer(source, np.uint8)
            self.name = name or 'GGUF content'
        else:
            path = pathlib.Path(source)
            self.name = name or str(path)
            try:
                # An empty file cannot be mapped.
                small = path.stat().st_size < len(MAGIC)
                self._data = np.empty(0, np.uint8) if small else np.memmap(path, mode='r')
            except OSError as error:
                raise ConfigError(f'{path} cannot be read: {error}.') from error
        header = _Header(self._data, self.name)
        self.metadata, self._infos, self.header_bytes = header.read()

    def __getitem__(self, name: str) -> np.ndarray:
        info = self._infos[name]
        return info.kind.read(self._data[info.start : info.end]).reshape(info.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._infos))

    def __len__(self) -> int:
        return len(self._infos)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, outermost axis first."""
        return self._infos[name].shape

    def type(self, name: str) -> str:
        """How a tensor is stored: 'F32', 'Q4_K', ..."""
        return self._infos[name].kind.name

    def nbytes(self, name: str) -> int:
        """How many bytes of the file a tensor takes."""
        return self._infos[name].end - self._infos[name].start

    def header(self) -> bytes:
        """All that stands before the data."""
        return self._data[: self.header_bytes].tobytes()


class _Header:
    """A cursor over the header."""

    def __init__(self, data: np.ndarray, name: str):
        self._view = memoryview(data)
        self._size = len(data)
        self._at = 0
        self._name = name
        self._items = 0

    def read(self) -> tuple[dict[str, Any], dict[str, _Info], int]:
        """(metadata, tensors, where data start)."""
        if self._take(len(MAGIC), 'the magic number') != MAGIC:
            raise ConfigError(f'{self._name} is not a GGUF file: it does not start with GGUF.')
        version = self._number('I', 'the version')
        if version not in VERSIONS:
            order = ' (or big-endian)' if version >> 16 else ''
            raise ConfigError(f'{self._name}: GGUF version {version}{order}; 2 and 3 are read.')
        tensors = self._count(8 + 4 + 4 + 8, 'tensors')
        keys = self._count(8 + 4 + 1, 'metadata keys')
        metadata: dict[str, Any] = {}
        for number in range(keys):
            key = self._string(f'metadata key {number}', MAX_NAME)
            if key in metadata:
                self._fail(f'metadata key {key!r} stands there twice')
            metadata[key] = self._value(self._number('I', key), key)
        infos = dict(self._tensor(number) for number in range(tensors))
        if len(infos) != tensors:
            self._fail('a tensor name stands there twice')
        alignment = metadata.get('general.alignment', 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            self._fail(f'general.alignment is {alignment!r}, not a power of two')
        start = -(-self._at // alignment) * alignment
        if sum(info.end - info.start for info in infos.values()) > self._size:
            self._fail('its tensors are larger than the file. Is it incomplete? Fetch it again')
        return metadata, {n: self._placed(n, i, start, alignment) for n, i in infos.items()}, start

    def _tensor(self, number: int) -> tuple[str, _Info]:
        name = self._string(f'tensor {number}', MAX_NAME)
        dimensions = self._number('I', name)
        if dimensions > MAX_DIMENSIONS:
            self._fail(f'tensor {name} has {dimensions} dimensions')
        sizes = [self._number('Q', name) for _ in range(dimensions)]
        code = self._number('I', name)
        if code not in gguf_types.TYPES:
            known = ', '.join(kind.name for kind in gguf_types.TYPES.values())
            self._fail(f'tensor {name} is stored as type {code}; these are read: {known}')
        kind = gguf_types.TYPES[code]
        offset = self._number('Q', name)
        if (sizes or [1])[0] % kind.values:
            self._fail(f'tensor {name} ({kind.name}) has rows of {sizes[:1]}, not whole blocks')
        count = math.prod(sizes)  # of unbounded integers: no overflow
        if not count and math.prod(size or 1 for size in sizes) >= MAX_VALUES:
            self._fail(f'tensor {name} has no values, and axes of {sizes}')
        end = offset + count // kind.values * kind.bytes
        return name, _Info(tuple(reversed(sizes)), kind, offset, end)

    def _placed(self, name: str, info: _Info, start: int, alignment: int) -> _Info:
        if info.start % alignment:
            self._fail(f'tensor {name} starts at {info.start}, no multiple of {alignment}')
        if start + info.end > self._size:
            self._fail(
                f'tensor {name} ends at byte {start + info.end} of {self._size}. The file is '
                'damaged or incomplete; fetch it again'
            )
        return info._replace(start=start + info.start, end=start + info.end)

    def _value(self, code: int, key: str, nesting: int = 0) -> Any:
        if code in _SCALARS:
            return self._number(_SCALARS[code], key)
        if code == _STRING:
            return self._string(key)
        if code != _ARRAY or nesting == MAX_NESTING:
            self._fail(f'metadata key {key!r} has a value of unknown type {code}')
        kind = self._number('I', key)
        if kind in _SCALARS:
            form = _SCALARS[kind]
            count = self._items_of(key, struct.calcsize('<' + form))
            raw = self._take(count * struct.calcsize('<' + form), key)
            return list(struct.unpack(f'<{count}{form}', raw))
        count = self._items_of(key, 8 if kind == _STRING else 12)
        return [self._value(kind, key, nesting + 1) for _ in range(count)]

    def _items_of(self, key: str, least: int) -> int:
        """``_count`` of an array: an item takes a byte of the file and dozens of memory."""
        count = self._count(least, key)
        self._items += count
        if self._items > MAX_ITEMS:
            self._fail(f'up to {key!r} its arrays have {self._items} items; {MAX_ITEMS} are read')
        return count

    def _count(self, least: int, what: str) -> int:
        """A number of things, each of ``least`` bytes at least, that the file has room for."""
        count = self._number('Q', what)
        if count * least > self._size - self._at:
            self._fail(f'it counts {count} {what}, for which it is too short')
        return count

    def _string(self, what: str, longest: int = MAX_STRING) -> str:
        length = self._number('Q', what)
        if longest < length <= self._size - self._at:  # else it is cut off
            self._fail(f'{what} has {length} bytes; {longest} are read')
        try:
            return str(self._take(length, what), 'utf-8')
        except UnicodeDecodeError:
            self._fail(f'{what} is not UTF-8')

    def _number(self, form: str, what: str) -> Any:
        return struct.unpack('<' + form, self._take(struct.calcsize('<' + form), what))[0]

    def _take(self, length: int, what: str) -> memoryview:
        if length > self._size - self._at:
            self._fail(f'it ends within {what}')
        self._at += length
        return self._view[self._at - length : self._at]

    def _fail(self, problem: str):
        raise ConfigError(f'{self._name}: {problem}.')
