"""A listing: every record of a user's own data, where its audio is and all else that is known.

It is made when the data is opened first and kept in files that are mapped into memory, so that
opening a million records again costs the time to see that their files have not changed. The files
of a listing lie in ``data_dir``/indexes, which may be deleted at any time:

  NAME.json           what it was made from, records a split, and what was left out; written last
  NAME.index.arrow    planning columns (alm_jax.data.index)
  NAME.records.arrow  all other fields as JSON, and the numbers that say where the audio is
  NAME.SPLIT.npy      the rows of a split
  NAME.left_out.jsonl what is named but cannot be used, and why
"""

import atexit
import functools
import json
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import tqdm
from absl import logging

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import index, mapped, record
from alm_jax.data.inputs import fields as fields_of
from alm_jax.data.inputs import left_out
from alm_jax.data.inputs.files import digest

VERSION = 2  # of what is written, and of how metadata is read
_BATCH = 1 << 14
_HINT = f'caption=NAME says what holds the captions; caption={fields_of.NO_CAPTION} does without.'


class Entry(NamedTuple):
    """One record of a listing: its fields without audio, its split, where the audio is."""

    fields: dict[str, Any]
    split: str
    place: Sequence[int] = ()


class Listing:
    """An opened listing. Other processes open the same files.

    Attributes:
      index: planning columns of all records.
      notes: what was left out, as lines of text.
      left_out: what of it should have been a record.
      splits: records of each split.
    """

    def __init__(self, path: pathlib.Path):
        """Opens the listing of the file ``path`` (.json). Raises OSError or ValueError."""
        self._path = path
        about = json.loads(path.read_bytes())
        self.notes: list[str] = about['notes']
        self.splits: dict[str, int] = about['splits']
        self.left_out = left_out.LeftOut(
            _beside(path, 'left_out.jsonl'), about['left_out'], sum(self.splits.values())
        )
        self.index = index.Index.open(_beside(path, 'index.arrow'))
        with pa.memory_map(os.fspath(_beside(path, 'records.arrow'))) as file:
            table = pa.ipc.open_file(file).read_all()
        self._fields, *self._places = table.columns

    def __reduce__(self) -> tuple:
        return Listing, (self._path,)

    def __len__(self) -> int:
        return len(self.index)

    def fields(self, row: int) -> dict[str, Any]:
        """Record ``row`` without its audio; its lists are lists."""
        return {**record.DEFAULTS, **json.loads(self._fields[row].as_py())}

    def place(self, row: int) -> list[int]:
        """The numbers that say where the audio of record ``row`` is."""
        return [column[row].as_py() for column in self._places]

    def rows(self, split: str) -> mapped.Mapped | np.ndarray | None:
        """The rows of a split, or of several joined by '+'; None stands for all.

        Raises:
          ConfigError: a split that does not exist, or without records.
        """
        parts = [part for part in split.split('+') if part]
        for part in parts:
            if part not in fields_of.SPLITS:
                raise ConfigError(f'split {part!r}? {did_you_mean(part, fields_of.SPLITS)}')
            if part not in self.splits:
                raise ConfigError(f'no record in split {part!r}. Records: {self.splits}.')
        if set(self.splits) <= set(parts or self.splits):
            return None
        found = [mapped.Mapped(_beside(self._path, f'{part}.npy')) for part in set(parts)]
        return found[0] if len(found) == 1 else np.sort(np.concatenate(found))


class Listed:
    """The reader behind a Source: a listing, and how its audio is got."""

    def __init__(self, listing: Listing, fetch: Callable[..., bytes | pathlib.Path]):
        """
        Args:
          listing: what there is.
          fetch: fetch(fields, *place) gives a record's audio file: its content, or its path;
            fetch.shard(*place) names the file that holds it among others, or is ''.
        """
        self.listing = listing
        self.index = listing.index
        self._fetch = fetch

    def shard(self, row: int) -> str:
        """The file that holds record ``row`` among others; '' where it has one of its own."""
        return self._fetch.shard(*self.listing.place(row))

    def __reduce__(self) -> tuple:
        return Listed, (self.listing, self._fetch)

    def __len__(self) -> int:
        return len(self.listing)

    def read(self, row: int) -> dict[str, Any]:
        """Record ``row``, its audio as the bytes of a file or as its path."""
        fields = self.listing.fields(row)
        return {**fields, 'audio': self._fetch(fields, *self.listing.place(row))}


def folder(data_dir: str | os.PathLike) -> pathlib.Path:
    """Where listings are kept; a folder for this process alone when ``data_dir`` is read-only."""
    path = pathlib.Path(data_dir, 'indexes')
    try:
        path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    logging.warning('%s cannot be written; what is learnt of the data is not kept.', path)
    return _scratch()


def opened(
    path: pathlib.Path,
    title: str,
    entries: Callable[[left_out.Notes], Iterator[Entry]],
    numbers: Sequence[str] = (),
) -> Listing:
    """The listing of the file ``path``, made when it is not there.

    Args:
      path: from ``path_of``; its name stands for the data and all options in their present state.
      title: what messages call the data.
      entries: gives the records and notes what it leaves out. Called when the listing is made.
      numbers: what the numbers of an Entry's place are called.

    Raises:
      ConfigError: no record is left; says why.
    """
    found = existing(path)
    if found is None:
        _write(path, title, entries, tuple(numbers))
        found = Listing(path)
    for line in found.notes:
        logging.warning('%s: %s', title, line)
    return found


def existing(path: pathlib.Path) -> Listing | None:
    """The listing of a file, None when it is absent or damaged."""
    try:
        return Listing(path)
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None


def path_of(place: pathlib.Path, kind: str, *parts: object) -> pathlib.Path:
    """'tars-3f....json' in ``place``: a name for data in the state that ``parts`` describe."""
    return place / f'{kind}-{digest(VERSION, *parts)}.json'


def _write(
    path: pathlib.Path,
    title: str,
    entries: Callable[[left_out.Notes], Iterator[Entry]],
    numbers: Sequence[str],
) -> None:
    splits: dict[str, list[np.ndarray]] = {}
    schema = pa.schema([('fields', pa.binary()), *((name, pa.int64()) for name in numbers)])
    part = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    part_of_bad = part.with_suffix('.bad.part')
    try:
        with (
            pa.OSFile(os.fspath(part), 'wb') as file,
            pa.ipc.new_file(file, schema) as writer,
            part_of_bad.open('w', encoding='utf-8') as bad,
        ):
            notes = left_out.Notes(bad)
            rows = _written(entries(notes), writer, schema, splits)
            index.write(_beside(path, 'index.arrow'), rows, made_from=path.stem)
        if not splits:
            lines = '\n  '.join(notes.lines())
            raise ConfigError(f'{title} holds no record that can be used.\n  {lines}\n  {_HINT}')
        for split, places in splits.items():
            mapped.save(_beside(path, f'{split}.npy'), np.concatenate(places))
        os.replace(part, _beside(path, 'records.arrow'))
        os.replace(part_of_bad, _beside(path, 'left_out.jsonl'))
        counts = {split: sum(map(len, places)) for split, places in splits.items()}
        about = {'notes': notes.lines(), 'splits': counts, 'left_out': notes.counts()}
        part.write_text(json.dumps(about))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
        part_of_bad.unlink(missing_ok=True)


def _written(
    entries: Iterator[Entry], writer: pa.RecordBatchFileWriter, schema: pa.Schema, splits: dict
) -> Iterator[dict[str, Any]]:
    """The planning columns of the entries, which are written as they pass."""
    start, waiting = 0, []

    def flush() -> None:
        blobs = [json.dumps(e.fields, ensure_ascii=False).encode() for e in waiting]
        places = np.array([e.place for e in waiting], np.int64).reshape(len(waiting), -1)
        columns = [pa.array(blobs, pa.binary()), *map(pa.array, places.T)]
        writer.write_batch(pa.record_batch(columns, schema=schema))
        named = np.array([e.split for e in waiting])
        for split in np.unique(named).tolist():
            at = start + np.flatnonzero(named == split)
            splits.setdefault(split, []).append(at.astype(np.int64))

    for entry in tqdm.tqdm(entries, desc='listing', unit='record', delay=2, leave=False):
        waiting.append(entry)
        if len(waiting) == _BATCH:
            flush()
            start, waiting = start + len(waiting), []
        yield record.columns_of({**record.DEFAULTS, **entry.fields})
    if waiting:
        flush()


def _beside(path: pathlib.Path, ending: str) -> pathlib.Path:
    return path.with_name(f'{path.stem}.{ending}')


@functools.cache
def _scratch() -> pathlib.Path:
    path = pathlib.Path(tempfile.mkdtemp(prefix='alm_jax-indexes-'))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
