"""What is in each file of a set, found once and kept beside it: 'NAME.index.arrow'.

The index of a file holds facts alone (where things lie, lengths, the text as it stands), so that it
serves whatever options the set is opened with, and new files leave those of the others valid.
"""

import concurrent.futures
import concurrent.futures.process
import hashlib
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import tqdm
from absl import logging

from alm_jax.config import ConfigError
from alm_jax.data.inputs import files

SUFFIX = '.index.arrow'
VERSION = 1  # of what the scanners find
_IN_PARALLEL_FROM = 512 << 20  # bytes; starting processes takes a second
# path -> what is in it, in the schema that goes with the scanner
Scanner = Callable[[pathlib.Path], pa.Table]


def without_indexes(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """A pattern such as 'shards/*' matches what is kept beside the files too."""
    return [path for path in paths if not path.name.endswith(SUFFIX)]


def index_all(
    paths: Sequence[pathlib.Path],
    scan: Scanner,
    cache: pathlib.Path,
    *,
    what: str = '',
    processes: int = 0,
) -> None:
    """Makes the index of every file that lacks a valid one.

    Args:
      paths: the files of the set.
      scan: a function of a module, which another process can import.
      cache: a folder for the indexes of files in places that cannot be written.
      what: of the files the scanner looks at, such as a column.
      processes: 0 is one for each core when there is much to do, else this one alone.

    Raises:
      ConfigError: a file that cannot be read; names it.
    """
    absent = [path for path in paths if not _is_indexed(path, cache, what)]
    size = sum(path.stat().st_size for path in absent)
    if not processes:
        processes = len(os.sched_getaffinity(0)) if size > _IN_PARALLEL_FROM else 1
    bar = tqdm.tqdm(total=size, desc='index', unit='B', unit_scale=True, delay=2, leave=False)
    with bar:
        for path in _indexed(absent, scan, (cache, what), min(processes, len(absent))):
            bar.update(path.stat().st_size)


def facts(path: pathlib.Path, cache: pathlib.Path, what: str = '') -> pa.Table:
    """What the index of a file says. Raises ConfigError when it has changed since ``index_all``."""
    place = _valid(path, cache, what)
    found = files.read_table(place, _state_of(path, what)) if place else None
    if found is None:
        raise ConfigError(f'{path} changes while it is read.')
    return found


def _state_of(path: pathlib.Path, what: str) -> str:
    """A file's size and a digest of its first and last kilobyte.

    A copy has the same, whatever its time. An index that is older than its file is made again, for
    what changes in the middle of a file.
    """
    with path.open('rb') as file:
        head = file.read(1024)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        ends = head + file.read()
    return f'{VERSION} {what} {size} {hashlib.blake2b(ends, digest_size=12).hexdigest()}'


def _indexed(
    paths: Sequence[pathlib.Path], scan: Scanner, where: tuple[pathlib.Path, str], processes: int
) -> Iterator[pathlib.Path]:
    """The paths as they are done, in no fixed order. ``where`` is (cache, what)."""
    if processes > 1:
        # Never a fork: jax may run in this process, and its threads would not be in the child.
        context = multiprocessing.get_context('spawn')
        left = set(paths)
        try:
            with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
                running = [pool.submit(_index, path, scan, *where) for path in paths]
                try:
                    for done in concurrent.futures.as_completed(running):
                        left.discard(done.result())
                        yield done.result()
                finally:
                    for future in running:
                        future.cancel()
            return
        except concurrent.futures.process.BrokenProcessPool as error:
            # As in a script without 'if __name__ == "__main__"', which children cannot import.
            logging.warning('indexing goes on in one process (%s).', error)
            paths = [path for path in paths if path in left]
    for path in paths:
        yield _index(path, scan, *where)


def _index(path: pathlib.Path, scan: Scanner, cache: pathlib.Path, what: str) -> pathlib.Path:
    state = _state_of(path, what)
    table = scan(path).replace_schema_metadata({'made_from': state})
    beside, instead = _places(path, cache)
    try:
        files.write_table(beside, table)
    except OSError:
        files.write_table(instead, table)
    return path


def _is_indexed(path: pathlib.Path, cache: pathlib.Path, what: str) -> bool:
    place = _valid(path, cache, what)
    return place is not None and place.stat().st_mtime_ns >= path.stat().st_mtime_ns


def _valid(path: pathlib.Path, cache: pathlib.Path, what: str) -> pathlib.Path | None:
    """The newest index of the file's state."""
    state = _state_of(path, what)
    found = [place for place in _places(path, cache) if files.made_from(place) == state]
    return max(found, key=lambda place: place.stat().st_mtime_ns, default=None)


def _places(path: pathlib.Path, cache: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Beside the file, and in the cache folder."""
    return path.with_name(path.name + SUFFIX), cache / f'{files.digest(str(path))}{SUFFIX}'
