"""Fingerprints of a whole dataset, made once and kept on disk.

Clips are read in chunks on several processes. A chunk is two files: the pictures of its clips end
to end (see ``fingerprint``), mapped when used, and their patches, by which candidates are found.
The patches are written last and alone make the chunk complete: a killed run goes on where it was.
The folder is named by what the clips are (ids, recordings, lengths), so that a dataset that changed
is read anew.
"""

import functools
import hashlib
import json
import os
import pathlib
import uuid
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import mapped, record
from alm_jax.data.hygiene import fingerprint
from alm_jax.data.hygiene.workers import in_order

_VERSION = 1  # of what a chunk holds
_CLIPS = 256  # a chunk
LONGEST = 600.0  # seconds of a recording that are looked at
_PATCH, _TIMES, _BANDS = 24, 4, 2  # frames; frames and bands that are averaged to one value
_PEAKS = 5  # patches of the most change in a clip, and one a
_RADIUS = 31  # frames either side, 0.5 s, so that a cut from a long recording has its patches too
DIMENSIONS = (_PATCH // _TIMES) * (32 // _BANDS)
_INT8 = 127.0  # a component of 1
_ROWS_A_PART = 1 << 18


class Held:
    """Pictures in memory, with the patches by which candidates are found.

    Attributes:
      patches, owner, frame: see ``Pictures``.
    """

    def __init__(self, pictures: Sequence[np.ndarray]):
        made = [patches_of(levels) for levels in pictures]
        self._pictures = pictures
        self.patches = np.concatenate([np.zeros((0, DIMENSIONS), np.int8), *(v for v, _ in made)])
        self.owner = np.repeat(np.arange(len(made)), [len(frames) for _, frames in made])
        self.frame = np.array([frame for _, frames in made for frame in frames], np.int64)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> np.ndarray:
        """uint8 [frames, 32]."""
        return self._pictures[i]


class Pictures:
    """The pictures and patches of a source, kept on disk, by the numbers of its records.

    Attributes:
      patches: int8 [p, DIMENSIONS], 127 times unit vectors.
      owner: int64 [p], the record a patch belongs to.
      frame: int64 [p], where the patch is in ``fingerprint.changes`` of its record.
      left_out: (number of the record, reason) of records that cannot be decoded.
    """

    def __init__(self, folder: pathlib.Path, count: int):
        self._folder = folder
        self._count = count
        self._maps: dict[int, np.ndarray] = {}
        frames = self._arrays('frames')
        self._frames = np.concatenate([np.zeros(0, np.int64), *frames])
        self._starts = np.concatenate([np.zeros(0, np.int64), *(np.cumsum(f) - f for f in frames)])

    @functools.cached_property
    def patches(self) -> np.ndarray:
        return np.concatenate([np.zeros((0, DIMENSIONS), np.int8), *self._arrays('patches')])

    @functools.cached_property
    def owner(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *self._arrays('owner')])

    @functools.cached_property
    def frame(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *self._arrays('frame')])

    @functools.cached_property
    def left_out(self) -> list[tuple[int, str]]:
        found = [json.loads(str(array)) for array in self._arrays('left_out')]
        return [(row, reason) for chunk in found for row, reason in chunk]

    def _arrays(self, name: str) -> list[np.ndarray]:
        """One array of every chunk; the others of the file are not read."""
        arrays = []
        for start in range(0, self._count, _CLIPS):
            path = _patches_path(self._folder, start)
            try:
                with np.load(path, allow_pickle=False) as chunk:
                    arrays.append(chunk[name])
                if not isinstance(arrays[-1], np.ndarray):
                    raise ValueError(f'{name} is no array')
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise ConfigError(
                    f'{path} is damaged ({str(error)[:100]}); delete it, it is made again.'
                ) from error
        return arrays

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> np.ndarray:
        """uint8 [frames, 32]; no frame where the record cannot be decoded."""
        start = i - i % _CLIPS
        if start not in self._maps:
            path = _pictures_path(self._folder, start)
            self._maps[start] = mapped.load(path)
        first = int(self._starts[i])
        return self._maps[start][first : first + int(self._frames[i])]

    def __getstate__(self) -> dict:
        return {'folder': self._folder, 'count': self._count}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state['folder'], state['count'])


def make(source, folder: pathlib.Path, workers: int = 2) -> Pictures:
    """The pictures of every record of ``source``, read where ``folder`` does not hold them yet.

    Args:
      source: an alm_jax.data.sources.Source.
      folder: where the fingerprints of all datasets are kept.
      workers: processes; 0 reads in this one.
    """
    folder = folder / _digest(source)
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(source), _CLIPS)
    todo = [start for start in starts if not _patches_path(folder, start).exists()]
    with tqdm(
        total=len(source),
        initial=len(source) - sum(min(_CLIPS, len(source) - start) for start in todo),
        desc=f'Fingerprints of {source.name}'[:60],
        unit='clip',
        disable=None if todo else True,
    ) as bar:
        write = functools.partial(_write_chunk, source, folder)
        for _, done in in_order(write, todo, workers):
            bar.update(done)
    return Pictures(folder, len(source))


def _write_chunk(source, folder: pathlib.Path, start: int) -> int:
    """Reads the records from ``start`` on; returns how many."""
    stop = min(start + _CLIPS, len(source))
    frames, parts, patches, owner, moments, left_out = [], [], [], [], [], []
    for i in range(start, stop):
        try:
            levels = fingerprint.picture(*beginning(source.read(i), LONGEST))
        except AudioError as error:
            left_out.append((i, str(error)))
            levels = np.zeros((0, 32), np.uint8)
        vectors, at = patches_of(levels)
        frames.append(len(levels))
        parts.append(levels)
        patches.append(vectors)
        owner += [i] * len(at)
        moments += at
    _atomic(_pictures_path(folder, start), lambda file: np.save(file, np.concatenate(parts)))
    arrays = {
        'frames': np.array(frames, np.int64),
        'patches': np.concatenate(patches),
        'owner': np.array(owner, np.int64),
        'frame': np.array(moments, np.int64),
        'left_out': np.array(json.dumps(left_out)),
    }
    _atomic(_patches_path(folder, start), lambda file: np.savez(file, **arrays))
    return stop - start


def beginning(fields: Mapping, seconds: float) -> tuple[np.ndarray, int]:
    """(int16 [n], rate) of the first ``seconds`` of a record as it is stored.

    Raises:
      AudioError: it cannot be decoded, or its file is truncated.
    """
    audio = fields['audio']
    if isinstance(audio, decode.FILE) and fields['duration'] > seconds:
        name = fields['source'] or fields['id']
        frames = max(1, int(seconds * decode.header(audio, name)[1]))
        samples, rate = decode.decode_part(audio, name, 0, frames)
        return decode.to_pcm16(samples), rate
    fields = record.decoded(fields)
    return fields['audio'][: int(seconds * fields['rate'])], fields['rate']


def patches_of(levels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """(int8 [p, DIMENSIONS] unit vectors times 127, their p frames) of one picture."""
    clip = fingerprint.changes(levels) if len(levels) > 4 * fingerprint.STEP else None
    frames = [] if clip is None else _moments(np.abs(clip).sum(axis=1))
    if not frames:
        return np.zeros((0, DIMENSIONS), np.int8), []
    padded = np.pad(clip, ((_PATCH // 2, _PATCH), (0, 0)))
    cut = np.stack([padded[frame : frame + _PATCH] for frame in frames])
    cells = cut.reshape(len(frames), _PATCH // _TIMES, _TIMES, 32 // _BANDS, _BANDS)
    flat = cells.mean(axis=(2, 4)).reshape(len(frames), DIMENSIONS)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)
    return np.round(unit * _INT8).astype(np.int8), frames


def _moments(change: np.ndarray) -> list[int]:
    """Frames of most change in the clip, and those of most change within half a second."""
    padded = np.pad(change, _RADIUS)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _RADIUS + 1).max(axis=1)
    chosen = fingerprint.peaks(change, _PEAKS, _PATCH // 2)
    last = -_RADIUS
    for frame in np.flatnonzero((change == around) & (change > 0)).tolist():
        if frame - last >= _RADIUS:  # of equal ones, as a steady tone has, one
            chosen.append(frame)
            last = frame
    return sorted(set(chosen))


def _digest(source) -> str:
    """Of what the clips are."""
    digest = hashlib.sha256(f'{_VERSION} {DIMENSIONS} {LONGEST}'.encode())
    for start in range(0, len(source), _ROWS_A_PART):
        stop = min(start + _ROWS_A_PART, len(source))
        rows = (
            np.arange(start, stop) if source.rows is None else np.asarray(source.rows[start:stop])
        )
        for name in ('recording_hash', 'num_samples', 'rate'):
            digest.update(np.ascontiguousarray(source.index.numpy(name, rows)).tobytes())
        digest.update('\0'.join(source.index.numpy('id', rows)).encode())
    return digest.hexdigest()[:24]


def _pictures_path(folder: pathlib.Path, start: int) -> pathlib.Path:
    return folder / f'{start:09}.pictures.npy'


def _patches_path(folder: pathlib.Path, start: int) -> pathlib.Path:
    return folder / f'{start:09}.patches.npz'


def _atomic(path: pathlib.Path, write) -> None:
    temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    try:
        with open(temporary, 'wb') as file:
            write(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
