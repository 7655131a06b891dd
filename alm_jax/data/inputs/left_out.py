"""What a listing leaves out: named, but no record, for its audio or text cannot be used."""

import collections
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from alm_jax.config import ConfigError

_NAMES_TOLD = 3  # in a line of a log
_REASONS_TOLD = 5  # in an error


class Unusable(NamedTuple):
    """One that is left out.

    Attributes:
      id: what the record would be called, or where it stands ('row 7').
      reason: one line.
      shard: the file that holds it among others, '' where it has one of its own.
      split: '' where it is not known.
    """

    id: str
    reason: str
    shard: str = ''
    split: str = ''


class Notes:
    """What is left out while a listing is made: how many for each reason, and the first names."""

    def __init__(self, file: IO[str]):
        """``file`` gets a line for everything that should have been a record."""
        self._file = file
        self._kinds: collections.Counter[str] = collections.Counter()
        self._names: dict[str, list[str]] = {}
        self._unusable: collections.Counter[tuple[str, str]] = collections.Counter()

    def add(self, kind: str, name: str) -> None:
        """Counts one that no record is expected of, such as another form of the same recording."""
        self._kinds[kind] += 1
        names = self._names.setdefault(kind, [])
        if len(names) < _NAMES_TOLD:
            names.append(name)

    def leave_out(self, kind: str, id: str, name: str, shard: str = '', split: str = '') -> None:
        """Counts one that should have been a record; ``name`` says what is wrong with it."""
        self.add(kind, name)
        self._unusable[split, shard] += 1
        line = Unusable(id, ' '.join(f'{kind}: {name}'.split()), shard, split)
        self._file.write(json.dumps(line) + '\n')

    def lines(self) -> list[str]:
        """'12 audio files without text: a.wav, b.wav, c.wav, ...'."""
        made = []
        for kind, count in self._kinds.items():
            more = ', ...' * (count > len(self._names[kind]))
            made.append(f'{count} {kind}: {", ".join(self._names[kind])}{more}')
        return made

    def counts(self) -> list[tuple[str, str, int]]:
        """(split, shard, how many) of what should have been records."""
        return [(*place, count) for place, count in self._unusable.items()]


class LeftOut:
    """What should have been records of a listing, or of some splits of it.

    Attributes:
      path: a JSONL file of all of them in the listing.
      records: that there are, without them.
      by_shard: shard -> how many; '' is those that lie in none.
    """

    def __init__(
        self,
        path: pathlib.Path,
        counts: Sequence[tuple[str, str, int]],
        records: int,
        splits: frozenset[str] = frozenset(),
    ):
        """``splits`` are those that are meant; none is all."""
        self.path, self.records = path, records
        self._counts, self._splits = counts, splits
        self.by_shard: collections.Counter[str] = collections.Counter()
        for split, shard, count in counts:
            if self._is_meant(split):
                self.by_shard[shard] += count

    def __len__(self) -> int:
        return self.by_shard.total()

    def __iter__(self) -> Iterator[Unusable]:
        with self.path.open(encoding='utf-8') as file:
            for line in file:
                found = Unusable(*json.loads(line))
                if self._is_meant(found.split):
                    yield found

    def of(self, split: str, records: int) -> 'LeftOut':
        """Those of a split, or of several joined by '+', or that could be: of no known split."""
        splits = frozenset(part for part in split.split('+') if part)
        return LeftOut(self.path, self._counts, records, splits)

    def exceeds(self, share: float) -> bool:
        """Whether they are more than a share of all."""
        return len(self) > share * (self.records + len(self))

    def error(self, title: str, more: str = '') -> ConfigError:
        """To raise: how many cannot be used and the first of them, those of the worst shard."""
        worst, count = self.by_shard.most_common(1)[0]
        reasons = []
        for found in self:
            if found.shard == worst and len(reasons) < _REASONS_TOLD:
                reasons.append(found.reason)
            elif len(reasons) == _REASONS_TOLD:
                break
        of = f' Most of them, {count}, are of {worst}.' if worst else ''
        return ConfigError(
            f'{title}: {len(self)} of {self.records + len(self)} records cannot be used{more}.{of}'
            + ''.join(f'\n  {reason}' for reason in reasons)
            + '\n  ...' * (count > len(reasons))
            + f'\nMend them or take them out. All are listed in {self.path}'
        )

    def _is_meant(self, split: str) -> bool:
        return not split or not self._splits or split in self._splits
