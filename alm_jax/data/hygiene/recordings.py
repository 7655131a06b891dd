"""Records of the same recording in two datasets, by their recording ids, at any size.

Only the column ``recording_hash`` is read, a stretch at a time.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from alm_jax.data import record

_BITS = 22  # of the table that tells most hashes apart from those looked for: 4 MB
_PASS = 1 << 24  # hashes that are sorted at once
NONE = np.uint64(record.stable_hash(''))  # of records that name no recording


@dataclasses.dataclass(frozen=True)
class Hashes:
    """A set of recording hashes, made to be asked for many at once.

    Attributes:
      values: uint64, sorted, without repetition and without that of no recording.
    """

    values: np.ndarray
    _table: np.ndarray

    @classmethod
    def of(cls, hashes: np.ndarray) -> 'Hashes':
        values = np.unique(np.asarray(hashes, np.uint64))
        values = values[values != NONE]
        table = np.zeros(1 << _BITS, bool)
        table[values >> np.uint64(64 - _BITS)] = True
        return cls(values, table)

    @classmethod
    def of_source(cls, source) -> 'Hashes':
        """Those of the records of a source; its distinct recordings are held in memory."""
        found = [np.zeros(0, np.uint64)]
        found += map(np.unique, _own(source))
        return cls.of(np.concatenate(found))

    def __len__(self) -> int:
        return len(self.values)

    def holds(self, hashes: np.ndarray) -> np.ndarray:
        """bool [n]: which of ``hashes`` uint64 [n] are in the set."""
        maybe = np.flatnonzero(self._table[hashes >> np.uint64(64 - _BITS)])
        found = np.zeros(len(hashes), bool)
        if len(maybe) and len(self.values):
            asked = hashes[maybe]
            at = np.searchsorted(self.values, asked)
            found[maybe] = self.values[np.minimum(at, len(self.values) - 1)] == asked
        return found


def rows_with(source, hashes: Hashes) -> np.ndarray:
    """The rows of ``source.index`` that belong to ``source`` and whose recording is in ``hashes``.

    Memory grows with what is found alone.
    """
    found = [np.zeros(0, np.int64)]
    for part, rows in _parts(source.index):
        found.append(rows.start + np.flatnonzero(hashes.holds(part)))
    return _of_source(source, np.concatenate(found))


def repeated(source) -> tuple[int, int]:
    """(recordings, records beyond the first of their recording).

    Sorts a share of the hashes at a time, so that memory does not grow with the dataset.
    """
    bits = max(0, (len(source.index) - 1) // _PASS).bit_length()
    recordings = records = 0
    for share in range(1 << bits):
        mine = [np.zeros(0, np.uint64)]
        for hashes in _own(source):
            mine.append(hashes[hashes >> np.uint64(64 - bits) == share] if bits else hashes)
        found = np.sort(np.concatenate(mine))
        found = found[found != NONE]
        records += len(found)
        recordings += int(np.count_nonzero(np.diff(found))) + bool(len(found))
    return recordings, records - recordings


def without_name(source) -> int:
    """Records that name no recording."""
    return sum(int(np.count_nonzero(hashes == NONE)) for hashes in _own(source))


def _own(source) -> Iterator[np.ndarray]:
    """The hashes of the source's records, a stretch at a time."""
    for hashes, rows in _parts(source.index):
        yield hashes[belongs(source, rows)]


def _parts(index) -> Iterator[tuple[np.ndarray, range]]:
    for start, batch in index.parts('recording_hash'):
        yield batch.column(0).to_numpy(), range(start, start + batch.num_rows)


def belongs(source, rows: range) -> np.ndarray | slice:
    """Which of some rows of the index belong to the source, whose rows rise."""
    if source.rows is None:
        return slice(None)
    own = np.asarray(source.rows)
    first, last = np.searchsorted(own, np.array([rows.start, rows.stop], own.dtype))
    return own[first:last].astype(np.int64) - rows.start


def _of_source(source, rows: np.ndarray) -> np.ndarray:
    """Those of some rows of the index that belong to the source."""
    if source.rows is None:
        return rows
    own = np.asarray(source.rows)
    if not len(own):
        return rows[:0]
    at = np.minimum(np.searchsorted(own, rows.astype(own.dtype)), len(own) - 1)
    return rows[own[at] == rows]
