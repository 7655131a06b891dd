"""The records of an evaluation: sorted by id, read one at a time."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.data import sources
from alm_jax.data.inputs import entries
from alm_jax.data.location import data_dir as data_dir_of


class Records:
    """A source in the order of record ids: ``len``, ``records[i]``, ``columns``."""

    def __init__(self, source: sources.Source):
        self._source = source
        self._order = source.sorted_indices()
        self.columns = {key: column[self._order] for key, column in source.columns.items()}

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self._order[index])]

    def stored(self, index: int) -> dict[str, Any]:
        """A record whose audio may still be an audio file: cheap where only texts are asked for."""
        return self._source.read(int(self._order[index]))


def open_sorted(data: str, data_dir: str, where: Mapping[str, Sequence[str]]) -> Records:
    """The records of 'NAME/config:split' that ``where`` admits, by id. Raises ConfigError."""
    return Records(sources.open_source(data, data_dir_of(data_dir), where))


def clips(records: Records, rows: Sequence[int]) -> Iterator[tuple[np.ndarray, int]]:
    """(int16 mono waveform [n], rate in Hz) of the given rows, read as they are asked for."""
    for row in rows:
        record = records[row]
        yield record['audio'], record['rate']


def texts(records: Records, field: str) -> list[list[str]]:
    """The texts of ``field`` of every record; a single text counts as a list, '' as none."""
    values = [records.stored(row)[field] for row in range(len(records))]
    return [[v] if isinstance(v, str) else list(v) for v in values]


def ids_sha256(records: Records, rows: Sequence[int]) -> str:
    """Names the set of records: a hash of their ids in order."""
    ids = '\n'.join(str(i) for i in records.columns['id'][rows])
    return hashlib.sha256(ids.encode()).hexdigest()


def classes_file(data: str, data_dir: str) -> dict[str, dict[str, Any]]:
    """``classes.json`` of the newest version of a prepared dataset: label -> what is known of it.

    Empty for a source that has none, such as a folder of one's own.
    """
    if entries.is_own_data(data):
        return {}
    root = data_dir_of(data_dir) / data.partition(':')[0]
    found = list(root.glob('*.*.*/classes.json'))
    if not found:
        return {}
    newest = max(found, key=lambda path: [int(part) for part in path.parent.name.split('.')])
    return json.loads(newest.read_text(encoding='utf-8'))
