"""How long recordings are, from their headers: nothing is decoded."""

import concurrent.futures
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import pyarrow as pa
import soundfile
import tqdm

from alm_jax.audio.decode import RATES, AudioError, UnreadableFile, counted, reason
from alm_jax.data.catalog import archives
from alm_jax.data.inputs import files

# Of files that are taken for audio. The order decides between forms of one recording.
SUFFIXES = (*archives.AUDIO, '.oga', '.aif', '.aiff', '.au', '.w64', '.rf64', '.caf')
_LONGEST = 1 << 40  # samples; libsndfile gives 2**63 - 1 where a header does not say
_SCHEMA = pa.schema(
    [
        ('name', pa.string()),
        *((name, pa.int64()) for name in ('size', 'mtime', 'num_samples', 'rate')),
        ('problem', pa.string()),
    ]
)
_CHUNK = 4096  # files handed to the threads at a time: bounds memory
_THREADS = 16  # opening waits for the disk, and libsndfile lets other threads run


def is_audio(name: str) -> bool:
    """Whether a file of this name is taken for audio."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def read(file: str | os.PathLike | IO[bytes] | memoryview) -> tuple[int, int]:
    """(samples of one channel, rate in Hz) of a file or its content.

    They come from the header. MP3 without a length there is estimated from its bit rate; FLAC
    without one, as a stream is written, is decoded, though none of it is kept.

    Raises:
      AudioError: not audio, no samples, or an absurd rate.
      UnreadableFile: the system does not read it.
    """
    if isinstance(file, memoryview):
        file = files.Window(file, 0, len(file))
    if isinstance(file, str | os.PathLike):
        with files.opened(file) as number:
            if not os.fstat(number).st_size:
                raise AudioError('empty, 0 bytes')
            samples, rate = _of(number)
    else:
        samples, rate = _of(file)
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f'a sampling rate of {rate} Hz')
    if samples >= _LONGEST:
        if not isinstance(file, str | os.PathLike):
            file.seek(0)
            file = file.read()
        samples, _ = counted(file)
    if samples < 1:
        raise AudioError('no samples')
    return samples, rate


def _of(file: int | IO[bytes]) -> tuple[int, int]:
    try:
        with soundfile.SoundFile(file, closefd=False) as opened:
            return opened.frames, opened.samplerate
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        raise AudioError(reason(error)) from error


class Headers:
    """The headers of the files below a folder, kept in a file so that each is read once.

    A file is read again when its size or time of change is another.
    """

    def __init__(self, root: pathlib.Path, cache: pathlib.Path):
        """``cache`` is the file that keeps them; it is made when it is not there."""
        self._root = root
        self._cache = cache

    def of(self, names: Sequence[str], stats: np.ndarray) -> Iterator[tuple[int, int, str]]:
        """(samples, rate, '') or (0, 0, what is wrong) of each file, in the order of ``names``.

        Args:
          names: relative paths.
          stats: int64 [n, 2], of ``files.stats``.
        """
        known = files.read_table(self._cache) or _SCHEMA.empty_table()
        rows = {name: row for row, name in enumerate(known.column('name').to_pylist())}
        old = np.array([rows.get(name, -1) for name in names], np.int64)
        if rows:
            then = np.stack([known.column(n).to_numpy() for n in ('size', 'mtime')], axis=1)
            old[(then[old] != stats).any(axis=1)] = -1
        kept = zip(*(known.column(n).to_pylist() for n in ('num_samples', 'rate', 'problem')))
        kept = list(kept)
        fresh = [name for name, row in zip(names, old) if row < 0]
        read_now = iter(self._read(fresh))
        found = [next(read_now) if row < 0 else kept[row] for row in old]
        if fresh:
            samples, rates, why = zip(*found)
            table = [list(names), stats[:, 0], stats[:, 1], list(samples), list(rates), list(why)]
            files.write_table(self._cache, pa.table(list(map(pa.array, table)), schema=_SCHEMA))
        yield from found

    def _read(self, names: Sequence[str]) -> Iterator[tuple[int, int, str]]:
        bar = tqdm.tqdm(total=len(names), desc='audio headers', unit='file', delay=2, leave=False)
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads, bar:
            for start in range(0, len(names), _CHUNK):
                chunk = names[start : start + _CHUNK]
                yield from threads.map(self._one, chunk)
                bar.update(len(chunk))

    def _one(self, name: str) -> tuple[int, int, str]:
        try:
            return *read(self._root / name), ''
        except UnreadableFile:  # what the system does may pass, and is nothing to keep
            raise
        except AudioError as error:
            return 0, 0, str(error)
