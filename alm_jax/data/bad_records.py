"""Records that cannot be used: which they were, and when there are too many to go on."""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable

from alm_jax.config import ConfigError

POLICIES = ('skip', 'fail')  # config.data.on_bad
# The share is judged as if at least so many records had been read: one bad record among the first
# ten is no sign of a bad dataset.
_JUDGED_ON = 1000
_EXAMPLES = 3


def file_of(process: int) -> str:
    """Where process ``process`` of a run lists its bad records: 'quarantine.jsonl' is the first's.

    Each has a file of its own: lines that several hosts add to one are lost on a network's disk.
    """
    return f'quarantine.{process}.jsonl' if process else 'quarantine.jsonl'


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """One record that gave way to another.

    Attributes:
      dataset: its name.
      id: of the record; of several in one row, joined by ', '.
      reason: one line.
      data_step: the batch it was read for.
    """

    dataset: str
    id: str
    reason: str
    data_step: int


class BadRecords:
    """Counts what was read and skipped, on this host, from where the run was started.

    Attributes:
      read: records.
      skipped: records, each time that they were.
      by_dataset: name -> how many of them were skipped.
    """

    def __init__(self, max_share: float, quarantine: str | os.PathLike | None = None):
        """
        Args:
          max_share: config.data.max_bad_share.
          quarantine: a JSONL file that gets a line for every bad record; None is none.

        Raises:
          ConfigError: a share that is none.
        """
        if not 0 <= max_share <= 1:
            raise ConfigError(f'config.data.max_bad_share is {max_share}; it is a share, 0 to 1.')
        self.read = 0
        self.skipped = 0
        self.by_dataset: collections.Counter[str] = collections.Counter()
        self._max_share = max_share
        self._quarantine = quarantine and pathlib.Path(quarantine)
        self._written: set[tuple[str, str]] = set()
        self._examples: dict[str, list[BadRecord]] = {}

    def add(self, read: int, bad: Iterable[BadRecord]) -> None:
        """Counts the records of one batch.

        Raises:
          ConfigError: more are bad than may be; names the dataset with most of them, and examples.
        """
        self.read += read
        for record in bad:
            self.skipped += 1
            self.by_dataset[record.dataset] += 1
            examples = self._examples.setdefault(record.dataset, [])
            if len(examples) < _EXAMPLES and record.id not in (e.id for e in examples):
                examples.append(record)
            self._write(record)
        if self.skipped > self._max_share * max(self.read, _JUDGED_ON):
            raise ConfigError(self._too_many())

    def _write(self, record: BadRecord) -> None:
        key = (record.dataset, record.id)
        if self._quarantine is None or key in self._written:
            return
        self._written.add(key)
        with open(self._quarantine, 'a', encoding='utf-8') as file:
            file.write(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + '\n')

    def _too_many(self) -> str:
        worst, count = self.by_dataset.most_common(1)[0]
        examples = '\n'.join(f'  {record.id}: {record.reason}' for record in self._examples[worst])
        listed = f' All are listed in {self._quarantine}.' if self._quarantine else ''
        return (
            f'{self.skipped} of {self.read} records cannot be used, more than '
            f'config.data.max_bad_share ({self._max_share:g}) allows. Most of them, {count}, are '
            f'of {worst}:\n{examples}\nMend or exclude them, or allow more.{listed}'
        )
