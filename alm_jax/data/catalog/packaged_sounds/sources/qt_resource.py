"""Qt's binary resource format (.rcc): a tree of named files in one container.

Layout (qtbase/src/corelib/io/qresource.cpp), big endian: 'qres', then uint32 version and the
offsets of tree, data and names. A tree node is a uint32 name offset, uint16 flags and, for a
folder, uint32 count and uint32 first child; for a file, uint16 territory, uint16 language and
uint32 data offset; from version 2 on, uint64 time. A name is a uint16 length, a uint32 hash and
UTF-16; data is a uint32 length and bytes, compressed ones being a uint32 plain length and a zlib
stream.
"""

import struct
import zlib

from alm_jax import config as config_lib

_COMPRESSED, _FOLDER, _ZSTANDARD = 1, 2, 4
_MAX_NODES = 100_000
_MAX_DEPTH = 32
_MAX_BYTES = 64 << 20  # of one file once decompressed


def parse_rcc(data: bytes, where: str) -> dict[str, bytes]:
    """path -> content of every file; ConfigError naming ``where`` when malformed."""
    try:
        magic, version, tree, contents, names = struct.unpack_from('>4s4I', data)
        if magic != b'qres' or not 1 <= version <= 3:
            raise ValueError('it is not a Qt resource of version 1 to 3')
        reader = _Reader(data, tree, contents, names, 22 if version >= 2 else 14)
        return dict(reader.files(0, '', 0))
    except (struct.error, ValueError, zlib.error, UnicodeDecodeError) as error:
        raise config_lib.ConfigError(f'{where} is not a readable Qt resource: {error}.') from error


class _Reader:
    def __init__(self, data: bytes, tree: int, contents: int, names: int, node_bytes: int):
        self._data, self._tree, self._contents, self._names = data, tree, contents, names
        self._node_bytes = node_bytes
        self._nodes = 0

    def files(self, node: int, folder: str, depth: int):
        """Yields (path, content) of the files below ``node``."""
        self._nodes += 1
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise ValueError('its tree has no end')
        at = self._tree + node * self._node_bytes
        name, flags = struct.unpack_from('>IH', self._data, at)
        path = f'{folder}/{self._name(name)}' if node else ''
        if flags & _FOLDER:
            count, first = struct.unpack_from('>II', self._data, at + 6)
            for child in range(first, first + min(count, _MAX_NODES)):
                yield from self.files(child, path, depth + 1)
        else:
            yield path.lstrip('/'), self._content(at, flags, path)

    def _name(self, offset: int) -> str:
        (length,) = struct.unpack_from('>H', self._data, self._names + offset)
        start = self._names + offset + 6
        return self._slice(start, 2 * length).decode('utf-16-be')

    def _content(self, at: int, flags: int, path: str) -> bytes:
        (offset,) = struct.unpack_from('>I', self._data, at + 10)
        (length,) = struct.unpack_from('>I', self._data, self._contents + offset)
        content = self._slice(self._contents + offset + 4, length)
        if flags & _ZSTANDARD:
            raise ValueError(f'{path} is compressed with zstd, which is not read here')
        if not flags & _COMPRESSED:
            return content
        inflate = zlib.decompressobj()
        plain = inflate.decompress(content[4:], _MAX_BYTES)
        if not inflate.eof:
            raise ValueError(f'{path} is cut off or larger than {_MAX_BYTES} bytes')
        return plain

    def _slice(self, start: int, length: int) -> bytes:
        if start + length > len(self._data):
            raise ValueError(f'{length} bytes at {start} leave the file')
        return self._data[start : start + length]
