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


class RowWriter:
    """Puts rows where they belong in a batch; other processes put the others.

    What a row holds may come in several calls: arrays that are made early are then not kept, which
    leaves their memory, still in the cache, to the next row. All writers of a batch must agree on
    the names of each call, as their order is that of the arrays in the buffer.

    Attributes:
      fields: of the arrays so far.
    """

    def __init__(self, buffer: Buffer, rows: int):
        """A batch has ``rows`` rows."""
        self.fields: list[Field] = []
        self._buffer, self._rows, self._end = buffer, rows, 0
        self._arrays: dict[str, np.ndarray] = {}

    def write(self, number: int, row: Mapping[str, Any]) -> None:
        """Writes some arrays of row ``number``.

        Raises:
          OSError: the system has no memory left.
          TypeError: what is no number. ValueError: another shape or dtype than that of other rows.
        """
        values = {name: np.asarray(row[name]) for name in sorted(row)}
        if any(name not in self._arrays for name in values):
            self._append(values)
        for name, value in values.items():
            array = self._arrays[name]
            if value.shape != array.shape[1:] or value.dtype != array.dtype:
                raise ValueError(
                    f'{name} of row {number} is {value.dtype} {value.shape}, of others '
                    f'{array.dtype} {array.shape[1:]}.'
                )
            array[number] = value

    def _append(self, values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            if name in self._arrays:
                continue
            if value.dtype.kind not in 'biufc':
                raise TypeError(f'{name} of a row is {value.dtype}; a batch holds numbers.')
            field = Field(name, self._end, (self._rows, *value.shape), value.dtype.str)
            self.fields.append(field)
            self._end = aligned(self._end + self._rows * value.nbytes)
        self._buffer.reserve(max(self._end, 1))
        _, self._arrays = self._buffer.arrays(self.fields)


def aligned(size: int) -> int:
    """Bytes, with those that are left free behind them."""
    return size + -size % _ALIGNED


def _anonymous_file() -> int:
    if hasattr(os, 'memfd_create'):
        return os.memfd_create('alm_jax')
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
