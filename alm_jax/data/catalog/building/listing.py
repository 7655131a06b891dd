"""All items of a dataset, sorted by id and cut into jobs of one shard, at bounded memory.

Items are sorted in runs that fit into memory; the runs are merged from disk. A job is a JSONL file:
what is needed to write one shard, and nothing else.
"""

import collections
import dataclasses
import functools
import heapq
import itertools
import json
import operator
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import record
from alm_jax.data.catalog.declaration import Clip, Dataset, Item
from alm_jax.data.catalog.files import Files

_RUN = 64 << 20  # characters sorted in memory at a time
_EXAMPLES = 5
MISSING = 'missing.jsonl'


@dataclasses.dataclass
class Listing:
    """What was found.

    Attributes:
      items: split -> items with audio on disk; records, unless several items are joined.
      missing: split -> items listed without it.
      examples: split -> ids of the first of them.
      jobs: split -> files of items, a shard each, in order.
    """

    items: collections.Counter
    missing: collections.Counter
    examples: dict[str, list[str]]
    jobs: dict[str, list[pathlib.Path]]

    def complaint(self) -> str:
        """How many are missing where, '' when none are."""
        lines = []
        for split, count in sorted(self.missing.items()):
            listed = ', '.join(self.examples[split]) + ', ...' * (count > len(self.examples[split]))
            lines.append(f'  {split}: {count} of {count + self.items[split]} records: {listed}')
        return '\n'.join(lines)


def list_items(
    dataset: Dataset,
    config: str,
    files: Files,
    work: pathlib.Path,
    splits: Sequence[str],
    size: int,
) -> Listing:
    """Lists and sorts the items of the wanted splits, and writes the jobs below ``work``.

    Args:
      dataset: its declaration.
      config: one of its configs.
      files: its distribution.
      work: folder for jobs, sorted runs and MISSING.
      splits: those wanted; () is all.
      size: items a shard.

    Raises:
      ConfigError: what the declaration says of damaged tables; an id that occurs twice; a split
        that does not exist.
    """
    _stamp.cache_clear()
    listing = Listing(collections.Counter(), collections.Counter(), {}, {})
    runs: dict[str, _Runs] = {}
    seen = set()
    with (work / MISSING).open('w') as missing:
        for item in dataset.items(files, config):
            seen.add(item.split)
            if splits and item.split not in splits:
                continue
            if item.audio:
                listing.items[item.split] += 1
                of_split = runs.setdefault(item.split, _Runs(work / f'runs-{item.split}'))
                of_split.add(item.id, _line(dataset, item))
            else:
                listing.missing[item.split] += 1
                examples = listing.examples.setdefault(item.split, [])
                if len(examples) < _EXAMPLES:
                    examples.append(item.id)
                line = {'split': item.split, 'id': item.id, 'reason': 'not on disk'}
                missing.write(json.dumps(line) + '\n')
    for split in splits:
        if split not in seen:
            hint = did_you_mean(split, sorted(seen))
            raise ConfigError(f'{dataset.name} has no split {split!r}. {hint}')
    for split in sorted(runs):
        listing.jobs[split] = _write_jobs(
            runs[split].merged(), work / 'jobs', split, size, joined=dataset.joined
        )
    return listing


def items_of(job: pathlib.Path) -> Iterator[tuple[str, list[Clip], dict[str, Any]]]:
    """(id, clips, fields) of every item of a job."""
    with job.open() as lines:
        for line in lines:
            identity, clips, _, fields = json.loads(line)
            yield identity, [Clip(*clip[:4], span=tuple(clip[4])) for clip in clips], fields


def _line(dataset: Dataset, item: Item) -> str:
    """Fields that hold their default are left out; when a file changes, so does its line."""
    fields = {
        name: value
        for name, value in dataset.fields(item).items()
        if value != record.DEFAULTS[name]
    }
    clips = [[clip.path, clip.member, clip.start, clip.seconds, clip.span] for clip in item.audio]
    stamps = [_stamp(clip.path) for clip in item.audio]
    return json.dumps([item.id, clips, stamps, fields], sort_keys=True) + '\n'


@functools.lru_cache(maxsize=64)  # archives come again and again
def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


class _Runs:
    """Lines sorted by id: in memory up to a size, then in files."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._lines: list[tuple[str, str]] = []
        self._size = 0
        self._files: list[pathlib.Path] = []

    def add(self, identity: str, line: str) -> None:
        self._lines.append((identity, line))
        self._size += len(line)
        if self._size > _RUN:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f'{len(self._files)}.jsonl'
            with path.open('w') as file:
                file.writelines(line for _, line in self._sorted())
            self._files.append(path)
            self._lines, self._size = [], 0

    def _sorted(self) -> list[tuple[str, str]]:
        return sorted(self._lines, key=operator.itemgetter(0))

    def merged(self) -> Iterator[tuple[str, str]]:
        """(id, line) of all, sorted by id; lines of one id in the order they came."""
        runs: list[Iterable[tuple[str, str]]] = [map(_keyed, _lines(path)) for path in self._files]
        return heapq.merge(*runs, self._sorted(), key=operator.itemgetter(0))  # stable


def _lines(path: pathlib.Path) -> Iterator[str]:
    with path.open() as lines:
        yield from lines


def _keyed(line: str) -> tuple[str, str]:
    return json.loads(line)[0], line


def _write_jobs(
    lines: Iterator[tuple[str, str]], folder: pathlib.Path, split: str, size: int, *, joined: bool
) -> list[pathlib.Path]:
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    unique = _unique(lines, split, joined=joined)
    while first := next(unique, None):
        path = folder / f'{split}-{len(jobs):05d}.jsonl'
        with path.open('w') as file:
            file.write(first)
            file.writelines(itertools.islice(unique, size - 1))
        jobs.append(path)
    return jobs


def _unique(lines: Iterator[tuple[str, str]], split: str, *, joined: bool) -> Iterator[str]:
    """A line for every id."""
    for identity, group in itertools.groupby(lines, key=operator.itemgetter(0)):
        same = [line for _, line in group]
        if len(same) > 1 and not joined:
            raise ConfigError(f'split {split!r} has two records with the id {identity!r}.')
        yield _join(same) if len(same) > 1 else same[0]


def _join(lines: Sequence[str]) -> str:
    """One line of several about one record."""
    records = [json.loads(line) for line in lines]
    identity, clips, stamps, _ = records[0]
    lists: dict[str, list] = {name: [] for name in ('captions', 'tags', 'times', 'turns')}
    single: dict[str, Any] = {}
    dialogues = 0
    for _, _, _, more in records:
        for name in ('captions', 'tags'):
            new = [text for text in more.get(name, ()) if text not in lists[name]]
            lists[name] += new
        lists['times'] += more.get('times', ())
        turns = [{**t, 'dialogue': t['dialogue'] + dialogues} for t in more.get('turns', ())]
        lists['turns'] += turns
        dialogues = max((turn['dialogue'] + 1 for turn in turns), default=dialogues)
        single = {**more, **single}
    return json.dumps([identity, clips, stamps, {**single, **lists}], sort_keys=True) + '\n'


def splits_of(listing: Listing) -> list[str]:
    """All that have a record, on disk or not, sorted."""
    return sorted({*listing.items, *listing.missing})


def count(job: pathlib.Path) -> int:
    """Items of a job."""
    with job.open('rb') as lines:
        return sum(1 for _ in lines)
