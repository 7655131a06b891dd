"""Audio files that a user names, and parts of them that a model is to hear."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from alm_jax.audio import decode, windows
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError

SUFFIXES = ('.wav', '.flac', '.ogg', '.oga', '.mp3', '.opus', '.aif', '.aiff', '.au')
SHORTEST = 0.01  # seconds; less is no sound, and resampling may leave nothing of it


def found(paths: Sequence[str | os.PathLike]) -> list[str]:
    """The audio files among ``paths``; folders are searched, hidden files left out.

    A file that is named is taken whatever its suffix.

    Raises:
      ConfigError: a path that does not exist, or no audio.
    """
    files: dict[str, None] = {}
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = (p for p in sorted(path.rglob('*')) if p.suffix.lower() in SUFFIXES)
            visible = (p for p in inside if not p.name.startswith('.') and p.is_file())
            files.update(dict.fromkeys(map(str, visible)))
        elif path.exists():
            files[str(path)] = None
        else:
            raise ConfigError(f'{path} does not exist.')
    if not files:
        listed = ', '.join(map(str, paths))
        raise ConfigError(f'no audio in {listed}; looked for {", ".join(SUFFIXES)}.')
    return list(files)


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A part of a recording.

    Attributes:
      waveform: mono float32 [n] in [-1, 1].
      rate: Hz.
      start: seconds from the beginning of the recording.
      total: seconds of the whole recording.
    """

    waveform: np.ndarray
    rate: int
    start: float
    total: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.waveform) / self.rate


def excerpts(
    source: str | os.PathLike | bytes,
    name: str = '',
    *,
    longest: float | None = None,
    every: float | None = None,
) -> Iterator[Excerpt]:
    """What a model hears of a file; little more of it is decoded or held than is given.

    Args:
      source: a path, or the content of a file.
      name: what messages call it; the path by default.
      longest: seconds of an excerpt at most; None is any number.
      every: seconds; the whole file in windows of this length, the last of which ends the file.
        None is one excerpt, from the start.

    Raises:
      AudioError: as ``decode.decode``, and for less than ``SHORTEST``.
    """
    samples, rate = decode.header(source, name)
    whole = None if samples else decode.decode(source, name)[0]  # a stream that tells no length
    samples = samples or len(whole)
    if samples < SHORTEST * rate:
        raise AudioError(f'{name or source} is {samples / rate:.4f} s long; at least {SHORTEST} s.')
    if every is None:
        spans = [(0, samples if longest is None else min(samples, round(longest * rate)))]
    else:
        window = max(1, round(min(every, longest or every) * rate))
        spans = windows.sliding(samples, window, window)
    for start, end in spans:
        if whole is None:
            part, _ = decode.decode_part(source, name, start, end - start)
        else:
            part = whole[start:end]
        yield Excerpt(part, rate, start / rate, samples / rate)
