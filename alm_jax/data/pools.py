"""What a dataset offers to the plan: its units, divided by the window length they need.

A unit is a record, or a pack of short records that share one window. Both are planned from the
lengths in the index, no audio is read, once for a version of a dataset; results for datasets on
disk are kept in files that are mapped when used, so that opening them again costs nothing.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.data import mapped, packing
from alm_jax.data.mapped import Mapped
from alm_jax.data.sources import Source

MAX_WINDOWS = 8  # each is compiled before the first step
_VERSION = 1  # of the planning below; part of the names of kept results
_ROWS_A_PART = 1 << 20
_KEEP_FROM = 100_000  # records; planning fewer takes no time


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """The units of one dataset.

    Attributes:
      sizes: units of each window length.
      members: records of all units end to end, those of the first window first; None when unit u
        is record u.
      offsets: where each unit starts in ``members``, and their end; None when a unit is one record.
    """

    sizes: tuple[int, ...]
    members: np.ndarray | Mapped | None = None
    offsets: np.ndarray | Mapped | None = None

    def __len__(self) -> int:
        return sum(self.sizes)

    def records(self, window: int, unit: int) -> tuple[int, ...]:
        """Indices of the records of unit ``unit`` of a window."""
        unit += sum(self.sizes[:window])
        if self.members is None:
            return (unit,)
        if self.offsets is None:
            return (int(self.members[unit]),)
        start, stop = self.offsets[unit : unit + 2]
        return tuple(int(record) for record in self.members[start:stop])


def make_pool(
    source: Source, windows: Sequence[float], *, pack: bool, cache_dir: pathlib.Path
) -> Pool:
    """Plans the units of a source.

    Args:
      source: its index has the durations.
      windows: window lengths in seconds, rising. A record goes to the shortest that holds it; one
        that is longer than all goes to the last, and is cropped.
      pack: short records are put together to fill the one window.
      cache_dir: where results are kept.

    Raises:
      ConfigError: too many windows, windows that do not rise, or several of them with ``pack``.
    """
    windows = tuple(windows)
    if len(windows) > MAX_WINDOWS or list(windows) != sorted(set(windows)) or min(windows) <= 0:
        raise ConfigError(
            f'config.data.buckets is {windows}; give at most {MAX_WINDOWS} rising lengths in s.'
        )
    if pack and len(windows) > 1:
        raise ConfigError('config.data.pack fills one window; leave config.data.buckets empty.')
    if pack:
        make, parts = _packs, ('members', 'offsets')
    elif len(windows) > 1:
        make, parts = _buckets, ('members',)
    else:
        return Pool((len(source),))
    if not source.digest or len(source) < _KEEP_FROM:
        return make(source, windows)
    name = repr((_VERSION, source.digest, windows, pack))
    folder = cache_dir / hashlib.sha256(name.encode()).hexdigest()[:24]
    try:
        sizes = Mapped(folder / 'sizes.npy')
    except FileNotFoundError:
        pool = make(source, windows)
        for part in parts:
            mapped.save(folder / f'{part}.npy', getattr(pool, part))
        sizes = mapped.save(folder / 'sizes.npy', np.array(pool.sizes))  # last: all is there
    arrays = {part: Mapped(folder / f'{part}.npy') for part in parts}
    return Pool(tuple(sizes[:].tolist()), **arrays)


def durations(source: Source) -> Iterator[tuple[int, np.ndarray]]:
    """(first record, float32 seconds [n]) of stretches of the source, at bounded memory."""
    if source.rows is None:
        for start, part in source.index.parts('duration'):
            yield start, part.column('duration').to_numpy()
        return
    for start in range(0, len(source), _ROWS_A_PART):
        rows = np.asarray(source.rows[start : start + _ROWS_A_PART])
        yield start, source.index.numpy('duration', rows)


def _buckets(source: Source, windows: tuple[float, ...]) -> Pool:
    """Records sorted by window; in one window they keep their order."""
    needs = np.concatenate([_window(seconds, windows) for _, seconds in durations(source)])
    sizes = np.bincount(needs, minlength=len(windows))
    members = np.empty(len(source), np.uint32 if len(source) < 1 << 32 else np.int64)
    ends = np.cumsum(sizes) - sizes
    for start in range(0, len(needs), _ROWS_A_PART):
        part = needs[start : start + _ROWS_A_PART]
        for window in range(len(windows)):
            here = start + np.flatnonzero(part == window)
            members[ends[window] : ends[window] + len(here)] = here
            ends[window] += len(here)
    return Pool(tuple(sizes.tolist()), members)


def _window(seconds: np.ndarray, windows: tuple[float, ...]) -> np.ndarray:
    """uint8 [n]: the shortest window that holds each record, else the last."""
    needs = np.searchsorted(np.array(windows[:-1], np.float32), seconds, side='left')
    return needs.astype(np.uint8)


def _packs(source: Source, windows: tuple[float, ...]) -> Pool:
    seconds = np.concatenate([part for _, part in durations(source)])
    members, offsets = packing.pack(seconds, windows[0])
    return Pool((len(offsets) - 1,), members, offsets)
