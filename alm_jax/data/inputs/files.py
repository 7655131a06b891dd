"""Files that are read in pieces, watched for changes, and written whole or not at all."""

import contextlib
import functools
import glob
import hashlib
import io
import itertools
import os
import pathlib
import re
import stat
import uuid
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from alm_jax.audio.decode import AudioError, UnreadableFile
from alm_jax.config import ConfigError

_OPEN_FILES = 128  # of one process: a set has thousands of files
_BRACES = re.compile(r'\{([^{}]*)\}')
_RANGE = re.compile(r'(\d+)\.\.(\d+)$')
LARGEST_TEXT = 16 << 20  # bytes of what describes one recording; more is a mistake


class _Handle:
    """An open file that closes when nothing refers to it: no reader loses it to another thread."""

    def __init__(self, path: str):
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        if hasattr(self, 'fd'):
            os.close(self.fd)


@functools.lru_cache(maxsize=_OPEN_FILES)
def _handle(path: str, _mtime: int) -> _Handle:
    return _Handle(path)


def read_at(path: str, mtime: int, offset: int, size: int) -> bytes:
    """``size`` bytes of a file from ``offset`` on, by any thread; a fork shares no position.

    Args:
      path: of the file.
      mtime: its time of change in ns; another one opens the file again.
      offset, size: in bytes.

    Raises:
      UnreadableFile: the file is gone or ends before.
    """
    parts, left = [], size
    try:
        handle = _handle(path, mtime)
        # What says where to read may be damaged, and the system makes room for what is asked for.
        is_there = 0 <= offset <= offset + size <= os.fstat(handle.fd).st_size
        while is_there and left and (part := os.pread(handle.fd, left, offset + size - left)):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise UnreadableFile(f'{path} cannot be read: {error.strerror}.') from error
    if left or not is_there:
        raise UnreadableFile(f'{path} has changed: it ends before byte {offset + size}.')
    return b''.join(parts)


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[int]:
    """The number of an open file. A pipe, which might never say anything, is not waited for.

    Raises:
      UnreadableFile: the system does not open it.
      AudioError: it is not there, or a folder, a pipe or a device.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise AudioError('there is no such file') from error
    except OSError as error:
        raise UnreadableFile(f'{path} cannot be read: {error.strerror}.') from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise AudioError('a folder, a pipe or a device')
        yield fd
    finally:
        os.close(fd)


def read_text(path: str | os.PathLike) -> bytes:
    """The content of a small file.

    Raises:
      UnreadableFile: the system does not read it.
      ConfigError: no file, or larger than LARGEST_TEXT.
    """
    if not os.path.isfile(path):
        raise ConfigError(f'{path} is no file.')
    with opened(path) as fd:
        if (size := os.fstat(fd).st_size) > LARGEST_TEXT:
            raise ConfigError(f'{path} has {size} bytes; a text has at most {LARGEST_TEXT}.')
        return os.pread(fd, size, 0)


class Window(io.RawIOBase):
    """A stretch of a file as a file of its own: libsndfile reads of it what it needs."""

    def __init__(self, source: int | memoryview, start: int, size: int):
        """``source`` is an open file's number, or content in memory."""
        super().__init__()
        if isinstance(source, int):  # what says how large it is may be damaged
            size = max(0, min(size, os.fstat(source).st_size - start))
        self._source, self._start, self._size, self._at = source, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}
        self._at = max(0, origins[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        size = left if size is None or size < 0 else min(size, left)
        start = self._start + self._at
        if isinstance(self._source, int):
            content = os.pread(self._source, size, start)
        else:
            content = bytes(self._source[start : start + size])
        self._at += len(content)
        return content

    def readinto(self, buffer) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def expand(patterns: str | os.PathLike | Iterable[str], suffix: str) -> list[pathlib.Path]:
    """The files that patterns name, sorted within each pattern.

    Args:
      patterns: one or several. 'a/{000..012}.tar' and 'a/{x,y}.tar' stand for several names, '*',
        '?', '[]' and '**' for any; a folder for all files in and below it that end with ``suffix``.
      suffix: such as '.tar'.

    Raises:
      ConfigError: nothing matches, or a name without wildcards does not exist.
    """
    patterns = [patterns] if isinstance(patterns, str | os.PathLike) else list(patterns)
    found: dict[pathlib.Path, None] = {}
    missing = []
    for pattern in patterns:
        for name in _without_braces(os.path.expanduser(os.fspath(pattern))):
            name = os.path.join(name, '**', f'*{suffix}') if os.path.isdir(name) else name
            exists = os.path.exists(name)  # '[' may be part of a name
            matches = [name] if exists else sorted(glob.glob(name, recursive=True))
            matches = [match for match in matches if os.path.isfile(match)]
            if not matches:
                missing.append(name)
            found.update(dict.fromkeys(pathlib.Path(os.path.abspath(m)) for m in matches))
    if missing:
        listed = ', '.join(missing[:5]) + ', ...' * (len(missing) > 5)
        raise ConfigError(
            f'{len(missing)} of {len(found) + len(missing)} do not exist: {listed}'
            if found
            else f'nothing matches {", ".join(map(str, patterns))}.'
        )
    return list(found)


def base_of(patterns: str | os.PathLike | Iterable[str]) -> pathlib.Path:
    """The folder above all that patterns can name: what precedes their first wildcard."""
    patterns = [patterns] if isinstance(patterns, str | os.PathLike) else list(patterns)
    bases = []
    for pattern in patterns:
        pattern = os.path.abspath(os.path.expanduser(os.fspath(pattern)))
        fixed = re.split(r'[*?\[{]', pattern)[0]
        bases.append(pattern if os.path.isdir(pattern) else os.path.dirname(fixed))
    return pathlib.Path(os.path.commonpath(bases))


def _without_braces(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if not match:
        return [pattern]
    if numbers := _RANGE.match(match[1]):
        first, last = numbers.groups()
        steps = range(int(first), int(last) + 1)
        width = len(first) if first.startswith('0') else 0
        choices = [str(number).zfill(width) for number in steps]
    else:
        choices = match[1].split(',')
    ends = (_without_braces(pattern[: match.start()] + c + pattern[match.end() :]) for c in choices)
    return list(itertools.chain.from_iterable(ends))


def stats(paths: Iterable[str | os.PathLike]) -> np.ndarray:
    """int64 [n, 2]: size in bytes and time of change in ns of each file, -1 when it is gone."""
    numbers = (number for path in paths for number in _size_and_time(path))
    return np.fromiter(numbers, np.int64).reshape(-1, 2)


def _size_and_time(path: str | os.PathLike) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # the latter of names that no system can have
        return -1, -1
    return status.st_size, status.st_mtime_ns


def digest(*parts: object) -> str:
    """Names a state of things: 24 hex digits. Arrays count with all their numbers."""
    made = hashlib.blake2b(digest_size=12)
    for part in parts:
        content = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        made.update(b'%d ' % len(content) + content)
    return made.hexdigest()


def write_table(path: pathlib.Path, table: pa.Table) -> None:
    """Writes an Arrow file, compressed, atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    options = pa.ipc.IpcWriteOptions(compression='zstd')
    try:
        with (
            pa.OSFile(os.fspath(part), 'wb') as file,
            pa.ipc.new_file(file, table.schema, options=options) as writer,
        ):
            writer.write_table(table)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_table(path: pathlib.Path, made_from: str = '') -> pa.Table | None:
    """What ``write_table`` wrote; None when it is absent, damaged or says another ``made_from``."""
    try:
        with pa.OSFile(os.fspath(path), 'rb') as file, pa.ipc.open_file(file) as reader:
            if _made_from(reader) != made_from:
                return None
            table = reader.read_all()
            table.validate(full=True)  # it may have come with a set: offsets are believed after
            return table
    except (OSError, UnicodeDecodeError, pa.ArrowException):
        return None


def made_from(path: pathlib.Path) -> str | None:
    """What the metadata of an Arrow file say, without reading the rest; None as above."""
    try:
        with pa.OSFile(os.fspath(path), 'rb') as file, pa.ipc.open_file(file) as reader:
            return _made_from(reader)
    except (OSError, UnicodeDecodeError, pa.ArrowException):
        return None


def _made_from(reader: pa.RecordBatchFileReader) -> str:
    return (reader.schema.metadata or {}).get(b'made_from', b'').decode()
