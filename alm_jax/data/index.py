"""Planning columns of a dataset, one row a record: an Arrow file, mapped into memory.

Opening 10**8 rows costs milliseconds and no memory; pages are read as they are touched.
"""

import hashlib
import os
import pathlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import record

ROWS_A_BATCH = 1 << 18
_CATEGORY = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in record.TEXTS),
        *((name, _CATEGORY) for name in record.CATEGORIES),
        *((name, pa.from_numpy_dtype(kind)) for name, kind in record.NUMBERS.items()),
    ]
)


class Index:
    """Columns by name, rows by number. Other processes map the same file.

    Attributes:
      table: the columns, of SCHEMA.
      path: of the mapped file, None when the columns are held in memory.
      made_from: what the writer said the columns describe.
    """

    def __init__(self, table: pa.Table, path: pathlib.Path | None = None):
        self.path = path
        self.table = table
        metadata = table.schema.metadata or {}
        self.made_from = metadata.get(b'made_from', b'').decode()

    @classmethod
    def open(cls, path: str | os.PathLike) -> 'Index':
        """Maps a file that ``write`` made. Raises ConfigError when it is damaged or of old form."""
        try:
            with pa.memory_map(os.fspath(path)) as file:
                table = pa.ipc.open_file(file).read_all()
        except pa.ArrowInvalid as error:
            raise ConfigError(
                f'{path} is not an index ({error}); delete it, and it is made again.'
            ) from error
        if table.schema.remove_metadata() != SCHEMA:
            raise ConfigError(f'{path} is an index of another version; delete it.')
        return cls(table, pathlib.Path(path))

    @classmethod
    def parse(cls, content: np.ndarray) -> 'Index':
        """In memory, of the bytes of such a file (uint8), which are not copied."""
        return cls(pa.ipc.open_file(pa.py_buffer(content)).read_all())

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> 'Index':
        """In memory, of records (their audio is not looked at)."""
        return cls(pa.Table.from_batches(_batches(map(record.columns_of, records)), SCHEMA))

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def digest(self) -> str:
        """Names the content, for results kept on disk; '' when nothing is known of its origin."""
        origin = f'{len(self)} {self.made_from}'
        return hashlib.sha256(origin.encode()).hexdigest() if self.made_from else ''

    def __reduce__(self) -> tuple:
        if self.path:
            return Index.open, (self.path,)
        content = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(unify_dictionaries=True)
        with pa.ipc.new_file(content, self.table.schema, options=options) as writer:
            writer.write_table(self.table)
        return Index.parse, (np.frombuffer(content.getvalue(), np.uint8),)

    def value(self, name: str, row: int) -> Any:
        """One cell."""
        return self._column(name)[row].as_py()

    def numpy(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """A column, or some rows of it: numbers in their dtype, text as numpy unicode."""
        column = self._column(name)
        if rows is not None:
            column = column.take(pa.array(rows))
        if name in record.NUMBERS:
            return column.to_numpy()
        if name in record.CATEGORIES:
            column = column.cast(pa.string())
        return np.array(column.to_pylist(), dtype=str)

    def parts(self, *names: str) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(first row, some columns of a stretch of rows), in order, at bounded memory."""
        start = 0
        for batch in self.table.select(list(names)).to_batches():
            yield start, batch
            start += batch.num_rows

    def rows_where(self, condition: Mapping[str, Any]) -> np.ndarray:
        """The rows whose columns hold one of the given values, or lie in a range.

        Args:
          condition: column -> a value, a list of values, or {'min': a, 'max': b} (inclusive,
            either may be left out), as in {'kind': ['sound'], 'duration': {'max': 30}}.

        Returns:
          uint32 or int64 [rows], rising.

        Raises:
          ConfigError: an unknown column, or a value of another type than the column's.
        """
        for name in condition:
            if name not in record.COLUMNS:
                hint = did_you_mean(name, list(record.COLUMNS))
                raise ConfigError(f'where {name!r} is not a column. {hint}')
        kind = np.uint32 if len(self) < 1 << 32 else np.int64
        if not condition:
            return np.arange(len(self), dtype=kind)
        kept = [np.zeros(0, kind)]
        for start, batch in self.parts(*condition):
            keep = np.ones(batch.num_rows, bool)
            for name, wanted in condition.items():
                keep &= _admitted(name, batch.column(name), wanted)
            kept.append((start + np.flatnonzero(keep)).astype(kind))
        return np.concatenate(kept)

    def write(self, path: str | os.PathLike, made_from: str = '') -> None:
        """Writes the columns to a file that ``open`` maps. Atomic."""
        write_batches(path, self.table.to_batches(), made_from)

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in record.COLUMNS:
            hint = did_you_mean(name, list(record.COLUMNS))
            raise ConfigError(f'{name!r} is not a column. {hint}')
        return self.table.column(name)


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], made_from: str = '') -> None:
    """Writes rows (``record.columns_of``) as they come: memory does not grow with their number."""
    write_batches(path, _batches(rows), made_from)


def write_batches(
    path: str | os.PathLike, batches: Iterable[pa.RecordBatch], made_from: str = ''
) -> None:
    """Writes record batches of SCHEMA, atomically. Categories of all batches get one numbering."""
    path = pathlib.Path(path)
    temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    known: dict[str, dict[str, int]] = {name: {} for name in record.CATEGORIES}
    try:
        schema = SCHEMA.with_metadata({'made_from': made_from})
        with (
            pa.OSFile(os.fspath(temporary), 'wb') as file,
            pa.ipc.new_file(file, schema, options=options) as writer,
        ):
            for batch in batches:
                writer.write_batch(_renumbered(batch, known))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _renumbered(batch: pa.RecordBatch, known: dict[str, dict[str, int]]) -> pa.RecordBatch:
    """The batch with its categories numbered as in ``known``, which grows at its end only."""
    columns = []
    for name, column in zip(batch.schema.names, batch.columns):
        if name in known:
            numbers = known[name]
            own = [numbers.setdefault(v, len(numbers)) for v in column.dictionary.to_pylist()]
            codes = pa.array(np.array(own or [0], np.int32)).take(column.indices)
            column = pa.DictionaryArray.from_arrays(codes, pa.array(list(numbers), pa.string()))
        columns.append(column)
    return pa.record_batch(columns, schema=SCHEMA)


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[pa.RecordBatch]:
    waiting: list[Mapping[str, Any]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == ROWS_A_BATCH:
            yield _batch(waiting)
            waiting = []
    if waiting:
        yield _batch(waiting)


def _batch(rows: list[Mapping[str, Any]]) -> pa.RecordBatch:
    columns = []
    for field in SCHEMA:
        values = [row[field.name] for row in rows]
        if field.name in record.CATEGORIES:
            columns.append(pa.array(values, pa.string()).dictionary_encode())
        elif field.name in record.NUMBERS:
            columns.append(pa.array(np.array(values, record.NUMBERS[field.name])))
        else:
            columns.append(pa.array(values, field.type))
    return pa.record_batch(columns, schema=SCHEMA)


def _admitted(name: str, column: pa.Array, wanted: Any) -> np.ndarray:
    """bool [rows]: which cells a condition admits."""
    if isinstance(wanted, Mapping):
        for key in wanted:
            if key not in ('min', 'max'):
                raise ConfigError(f'where {name!r}: {key!r} is neither min nor max.')
        if name not in record.NUMBERS:
            raise ConfigError(f'where {name!r}: only numbers have a range; give a list of values.')
        values = column.to_numpy()
        return (values >= wanted.get('min', -np.inf)) & (values <= wanted.get('max', np.inf))
    values = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
    if name in record.NUMBERS:
        return np.isin(column.to_numpy(), values)
    try:
        wanted_values = pa.array([str(v) for v in values], pa.string())
        if name in record.CATEGORIES:
            known = pc.is_in(column.dictionary, wanted_values).to_numpy(zero_copy_only=False)
            return known[column.indices.to_numpy()] if len(known) else np.zeros(len(column), bool)
        return pc.is_in(column, wanted_values).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise ConfigError(f'where {name!r} in {values}: {error}.') from error
