"""Parquet files with a column of audio files, as the Hugging Face hub has them.

The audio column holds {bytes, path} or bytes; the other columns are metadata (see ``fields``), and
the class names of integer labels come from the schema. The index of a file ('NAME.parquet
.index.arrow' beside it) says where each recording lies in its page (see ``parquet_values``), so
that a record costs a read of its own bytes whatever the size of the row group, when the column is
packed with snappy, which is the default, or not at all. With zstd, gzip, brotli or lz4 the whole
page is unpacked for a record: 100 clips in a page cost 100 times as much. Write such files again
with compression='snappy', or with small pages.
"""

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data.catalog.rows import Row
from alm_jax.data.inputs import (
    containers,
    fields,
    files,
    headers,
    left_out,
    listing,
    parquet_schema,
    parquet_values,
)
from alm_jax.data.inputs.parquet_values import Value

_NUMBERS = ('file', *Value._fields)
_FACTS = pa.schema(
    [
        *((name, pa.int64()) for name in (*Value._fields, 'samples', 'rate')),
        ('problem', pa.string()),
    ]
)
NO_AUDIO, BAD_AUDIO = 'rows without audio', 'recordings that cannot be read'
NO_TEXT, BAD_TEXT = 'rows without text', 'rows whose text cannot be used'
_NULL = 'null'
_ROWS = 1024  # of text columns in memory


class Fetch:
    """(fields, file, *Value) -> the bytes of the recording."""

    def __init__(self, paths: Sequence[pathlib.Path], times: Sequence[int]):
        self._paths = list(map(str, paths))
        self._times = [int(time) for time in times]

    def __reduce__(self) -> tuple:
        return Fetch, (self._paths, self._times)

    def shard(self, file: int, *_: int) -> str:
        """The Parquet file."""
        return self._paths[file]

    def __call__(self, _: dict[str, Any], file: int, *place: int) -> bytes:
        value = Value(*place)
        path = self._paths[file]
        stored = files.read_at(path, self._times[file], value.offset, value.stored)
        try:
            return parquet_values.unpack(stored, value)
        except (pa.ArrowException, OSError) as error:
            raise AudioError(f'{path}: page at byte {value.offset} is damaged ({error}).') from None


def open_parquet(
    parquet: str | Sequence[str],
    place: pathlib.Path,
    *,
    caption: str | Sequence[str] = '',
    audio: str = '',
) -> listing.Listed:
    """Opens Parquet files.

    Args:
      parquet: patterns, as in ``files.expand``.
      place: where listings are kept.
      caption: columns of the captions; see ``fields.described``.
      audio: the column of the recordings, when there are several.

    Raises:
      ConfigError: nothing matches, a file that cannot be read or lacks a column, or no record is
        left.
    """
    paths = containers.without_indexes(files.expand(parquet, '.parquet'))
    base = files.base_of(parquet)
    caption = fields.as_columns(caption)
    stats = files.stats(paths)
    path = listing.path_of(
        place, 'parquet', list(map(str, paths)), stats, str(base), caption, audio
    )

    def entries(notes: left_out.Notes) -> Iterator[listing.Entry]:
        tables = [_Table(file, base, caption, audio) for file in paths]
        columns = {table.column for table in tables}
        if len(columns) > 1:
            raise ConfigError(f'the audio is in {sorted(columns)}; name one column: audio=...')
        cache, what = place / 'files', columns.pop()
        containers.index_all(paths, functools.partial(scan, column=what), cache, what=what)
        for number, table in enumerate(tables):
            yield from table.entries(number, containers.facts(table.path, cache, what), notes)

    listed = listing.opened(path, f'parquet {parquet}', entries, _NUMBERS)
    return listing.Listed(listed, Fetch(paths, stats[:, 1]))


def scan(path: pathlib.Path, column: str) -> pa.Table:
    """Where the recordings of a file lie and how long they are, one row each.

    A null has the problem 'null'. Raises ConfigError: the file is damaged.
    """
    rows = {name: [] for name in _FACTS.names}
    for value, content in parquet_values.values(path, column):
        length, problem = (0, 0), ''
        try:
            if value is None:
                problem = _NULL
            else:
                length = headers.read(content)
        except AudioError as error:
            problem = str(error)
        cells = (*(value or Value(0, 0, 0, 0, 0, 0)), *length, problem)
        for cell, column_cells in zip(cells, rows.values()):
            column_cells.append(cell)
    return pa.table({name: pa.array(rows[name], _FACTS.field(name).type) for name in rows})


class _Table:
    """The records of one file.

    Attributes:
      column: path of the audio in the schema, such as 'audio.bytes'.
    """

    def __init__(self, path: pathlib.Path, base: pathlib.Path, caption: Sequence[str], audio: str):
        self.path = path
        self._caption = caption
        self._name = path.relative_to(base).with_suffix('').as_posix()
        self._package = fields.collection(base)
        self._split = fields.split_of(path.relative_to(base.parent))
        self._schema = parquet_schema.read(path, caption, audio)
        self.column = self._schema.column

    def entries(
        self, number: int, facts: pa.Table, notes: left_out.Notes
    ) -> Iterator[listing.Entry]:
        """``number`` is that of the file in the set."""
        self._names_differ = self._schema.path_of is not None and self._all_names_differ()
        rows = enumerate(zip(facts.to_pylist(), self._rows(), strict=True))
        for row, (found, cells) in rows:
            if entry := self._entry(number, row, found, cells, notes):
                yield entry

    def _all_names_differ(self) -> bool:
        """Whether the names beside the audio tell the recordings apart; some files repeat one."""
        column, part = self._schema.path_of
        with self._opened() as parquet:
            names = parquet.read(columns=[f'{column}.{part}']).column(column)
        names = pc.struct_field(names.combine_chunks(), part)
        return pc.count_distinct(names).as_py() == len(names)

    def _rows(self) -> Iterator[dict[str, Any] | None]:
        """All cells but the audio, row by row; None for a row with text that is not UTF-8."""
        columns = self._schema.columns()
        with self._opened() as parquet:
            if not columns:
                yield from ({} for _ in range(parquet.metadata.num_rows))
                return
            for batch in parquet.iter_batches(_ROWS, columns=columns):
                try:
                    yield from batch.to_pylist()
                except UnicodeDecodeError:
                    yield from (_plain(batch.slice(row, 1)) for row in range(len(batch)))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        """The file, whatever of it may turn out to be damaged."""
        try:
            with pq.ParquetFile(self.path) as parquet:
                yield parquet
        except (pa.ArrowException, OSError) as error:
            reason = ' '.join(str(error).split())
            raise ConfigError(f'{self.path} is damaged: {reason} Fetch it again.') from error

    def _entry(
        self,
        number: int,
        row: int,
        found: dict[str, Any],
        cells: dict[str, Any] | None,
        notes: left_out.Notes,
    ) -> listing.Entry | None:
        where = f'{self.path}, row {row}'

        def leave_out(kind: str, name: str, split: str = '') -> None:
            id, shard = f'{self._name}/{row}', str(self.path)
            notes.leave_out(kind, id, name, shard, split or self._split)

        if problem := found['problem']:
            if problem == _NULL:
                leave_out(NO_AUDIO, where)
            else:
                leave_out(BAD_AUDIO, f'{where} ({problem})')
            return None
        if cells is None:
            leave_out(BAD_TEXT, f'{where}: not UTF-8 text.')
            return None
        cells, file = self._schema.cells(cells)
        try:
            described = fields.described(Row(cells, where), self._caption)
        except ConfigError as error:
            leave_out(BAD_TEXT, str(error))
            return None
        if not described['captions'] and self._caption != (fields.NO_CAPTION,):
            leave_out(NO_TEXT, where, described.get('split', ''))
            return None
        if self._split:
            described.setdefault('split', self._split)
        made = fields.completed(
            described,
            id=f'{self._name}/{row}',
            package=self._package,
            source=f'{where} ({file})' if file else where,
            size=(found['samples'], found['rate']),
            name=file if self._names_differ else '',
        )
        return listing.Entry(*made, (number, *(found[name] for name in Value._fields)))


def _plain(row: pa.RecordBatch) -> dict[str, Any] | None:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError:
        return None
