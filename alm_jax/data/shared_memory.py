"""Batches in memory that processes share, and that no process can leave behind.

The memory is an anonymous file: the processes that hold its descriptor see the same pages, and the
system frees them with the last one, however it ends. (Names in /dev/shm, as those of
multiprocessing.shared_memory, outlive a killed process.)
"""

import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_ALIGNED = 64  # bytes: what jax wants of an array that it takes over without a copy


class Field(NamedTuple):
    """Where an array lies in a buffer."""

    name: str
    offset: int
    shape: tuple[int, ...]
    dtype: str


class Buffer:
    """Bytes of a size that may grow, in this process and in those that are given ``fd``."""

    def __init__(self, fd: int | None = None):
        self.fd = _anonymous_file() if fd is None else fd
        self._map: mmap.mmap | None = None

    def reserve(self, size: int) -> None:
        """Makes it at least ``size`` bytes; OSError if there is not so much memory."""
        if os.fstat(self.fd).st_size < size:
            if hasattr(os, 'posix_fallocate'):
                os.posix_fallocate(self.fd, 0, size)
            else:  # macOS
                os.ftruncate(self.fd, size)

    def mapped(self) -> mmap.mmap:
        """All its bytes. What was returned before stays valid for those it had."""
        size = os.fstat(self.fd).st_size
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self.fd, size)
        return self._map

    def arrays(self, fields: Sequence[Field]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(an object that lives as long as any of the arrays, the arrays): nothing is copied."""
        owner = np.frombuffer(self.mapped(), np.uint8)
        found = {}
        for name, offset, shape, dtype in fields:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            found[name] = owner[offset : offset + size].view(dtype).reshape(shape)
        return owner, found

    def close(self) -> None:
        """Gives the descriptor back; arrays that are in use keep their memory."""
        self._map = None
        os.close(self.fd)


def layout(row: Mapping[str, Any], rows: int) -> tuple[list[Field], int]:
    """Where arrays of ``rows`` rows like this one lie, and the size of it all in bytes."""
    fields, end = [], 0
    for name in sorted(row):
        value = np.asarray(row[name])
        if value.dtype.hasobject or value.dtype.kind not in 'biufc':
            raise TypeError(f'{name} of a row is {value.dtype}; a batch holds numbers.')
        fields.append(Field(name, end, (rows, *value.shape), value.dtype.str))
        end += rows * value.nbytes
        end += -end % _ALIGNED
    return fields, max(end, 1)


def write_rows(buffer: Buffer, rows: Mapping[int, Mapping[str, Any]], total: int) -> list[Field]:
    """Puts rows where they belong among ``total``; other processes put the others.

    Raises:
      OSError: the system has no memory left.
      ValueError: rows of different shapes.
    """
    fields, size = layout(next(iter(rows.values())), total)
    buffer.reserve(size)
    _, arrays = buffer.arrays(fields)
    for number, row in rows.items():
        for name, array in arrays.items():
            value = np.asarray(row[name])
            if value.shape != array.shape[1:] or value.dtype != array.dtype:
                raise ValueError(
                    f'{name} of row {number} is {value.dtype} {value.shape}, of others '
                    f'{array.dtype} {array.shape[1:]}.'
                )
            array[number] = value
    return fields


def _anonymous_file() -> int:
    if hasattr(os, 'memfd_create'):
        return os.memfd_create('alm_jax')
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
