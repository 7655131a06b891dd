"""Records that cannot be used: which they were, and when there are too many to go on."""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from alm_jax.config import ConfigError

if TYPE_CHECKING:
    from alm_jax.data.inputs.left_out import LeftOut

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
      data_step: the batch it was read for; None where it was left out before the first.
      shard: the file that holds it among others; '' where it has one of its own.
    """

    dataset: str
    id: str
    reason: str
    data_step: int | None
    shard: str = ''


class BadRecords:
    """Counts what was read and skipped, on this host, from where the run was started.

    Attributes:
      read: records.
      skipped: records, each time that they were, and those that were never there to be read.
      by_dataset: name -> how many of those that were read were skipped.
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
        self._left_out = 0
        self._by_shard: collections.Counter[tuple[str, str]] = collections.Counter()
        self._max_share = max_share
        self._quarantine = quarantine and pathlib.Path(quarantine)
        self._written: set[tuple[str, str]] | None = None  # what the file holds; read when needed
        self._examples: dict[tuple[str, str], list[BadRecord]] = {}

    def leave_out(self, dataset: str, found: 'LeftOut') -> None:
        """Counts what is named in a dataset but was found to be no record when it was opened.

        How much of it there may be was judged then (``sources.open_source``).
        """
        self._left_out += len(found)
        self.skipped += len(found)
        if len(found):
            self._write(BadRecord(dataset, bad.id, bad.reason, None, bad.shard) for bad in found)

    def add(self, read: int, bad: Iterable[BadRecord]) -> None:
        """Counts the records of one batch.

        Raises:
          ConfigError: more are bad than may be; names the dataset with most of them, and examples.
        """
        self.read += read
        bad = list(bad)
        for record in bad:
            self.skipped += 1
            self.by_dataset[record.dataset] += 1
            place = (record.dataset, record.shard)
            self._by_shard[place] += 1
            examples = self._examples.setdefault(place, [])
            if len(examples) < _EXAMPLES and record.id not in (e.id for e in examples):
                examples.append(record)
        if bad:
            self._write(bad)
        if self.skipped - self._left_out > self._max_share * max(self.read, _JUDGED_ON):
            raise ConfigError(self._too_many())

    def _write(self, records: Iterable[BadRecord]) -> None:
        """Adds those to the file that it does not hold yet, from this run or one before."""
        if self._quarantine is None:
            return
        if self._written is None:
            self._written = _listed(self._quarantine)
        with open(self._quarantine, 'a', encoding='utf-8') as file:
            for record in records:
                key = (record.dataset, record.id)
                if key not in self._written:
                    self._written.add(key)
                    line = json.dumps(dataclasses.asdict(record), ensure_ascii=False)
                    file.write(line.encode(errors='replace').decode() + '\n')

    def _too_many(self) -> str:
        (dataset, shard), count = worst = self._by_shard.most_common(1)[0]
        examples = [f'  {record.id}: {record.reason}' for record in self._examples[worst[0]]]
        listed = f' All are listed in {self._quarantine}.' if self._quarantine else ''
        return '\n'.join(
            [
                f'{self.skipped - self._left_out} of {self.read} records cannot be used, more than '
                f'config.data.max_bad_share ({self._max_share:g}) allows. Most of them, {count}, '
                f'are of {f"{shard} of " * bool(shard)}{dataset}:',
                *examples,
                f'Mend or exclude them, or allow more.{listed}',
            ]
        )


def _listed(quarantine: pathlib.Path) -> set[tuple[str, str]]:
    """(dataset, id) of what an earlier start of the run has written, whose last line may be cut."""
    try:
        content = quarantine.read_bytes()
    except FileNotFoundError:
        return set()
    found = set()
    for line in content.splitlines():
        try:
            record = json.loads(line)
            found.add((record['dataset'], record['id']))
        except (ValueError, KeyError, TypeError):  # cut off by the end of that start
            continue
    if content and not content.endswith(b'\n'):
        with quarantine.open('ab') as file:
            file.write(b'\n')
    return found
