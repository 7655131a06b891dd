"""Rows of CSV, TSV, JSON, JSONL and Parquet files; mistakes name file, row and column."""

import ast
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from alm_jax import json_text
from alm_jax.config import ConfigError, did_you_mean

_PIECE = 1 << 20  # characters of a JSON file in memory, beyond one element
_CELL = 64 << 20  # characters of the longest cell
_LISTED = 1 << 20  # characters of a list in a cell
_QUOTED = r"""(?:'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+")"""
_TEXT_LIST = re.compile(rf'\[\s*+(?:{_QUOTED}\s*+(?:,\s*+{_QUOTED}\s*+)*+,?\s*+)?+\]')


class Row(dict):
    """The cells of one row by column; ``where`` is 'FILE, row N', for messages.

    ``row['x']`` is the cell as it stands in the file. The methods check it.
    """

    def __init__(self, cells: Mapping[str, Any], where: str):
        super().__init__(cells)
        self.where = where

    def __missing__(self, column: str) -> Any:
        hint = did_you_mean(column, [str(name) for name in self])
        raise ConfigError(f'{self.where}: there is no {column!r}. {hint}')

    def text(self, column: str, default: str | None = None) -> str:
        """Stripped text, or a number as text; absent or null is ``default`` when one is given."""
        value = self[column] if default is None else self.get(column)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(column, 'expected text')
        return str(value).strip()

    def number(self, column: str) -> float:
        """A finite number."""
        try:
            value = float(self[column])
        except (TypeError, ValueError) as error:
            raise self.error(column, 'expected a number') from error
        if not -1e300 < value < 1e300:
            raise self.error(column, 'expected a finite number')
        return value

    def texts(self, *columns: str) -> list[str]:
        """The non-empty texts of several columns, or of the lists that they hold."""
        found = []
        for column in columns:
            value = self[column]
            for part in value if isinstance(value, list) else [value]:
                if not isinstance(part, str):
                    raise self.error(column, 'expected text or a list of it')
                found.append(part.strip())
        return [text for text in found if text]

    def listed(self, column: str) -> list[str]:
        """The texts of a list that a cell holds as Python writes it: "['dog', 'bark']" or ''."""
        text = self.text(column) or '[]'
        # Python's parser sees nothing but a flat list of quoted texts: all else could exhaust it.
        if len(text) > _LISTED or not _TEXT_LIST.fullmatch(text):
            raise self.error(column, "expected a list of texts such as ['dog', 'bark']")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:  # an escape that is none
            raise self.error(column, "expected a list of texts such as ['dog', 'bark']") from error
        return [part.strip() for part in value if part.strip()]

    def rows(self, column: str) -> list['Row']:
        """The objects of the list in a cell."""
        value = self[column]
        if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
            raise self.error(column, 'expected a list of objects')
        return [Row(part, f'{self.where}, {column}[{i}]') for i, part in enumerate(value)]

    def error(self, column: str, reason: str) -> ConfigError:
        """The mistake in a cell, to raise."""
        return ConfigError(f'{self.where}: {column!r} is {self[column]!r:.200}; {reason}.')


# (place, mistake): what becomes of a row that is wrong while those around it may be right. By
# default the mistake is raised.
LeaveOut = Callable[[str, ConfigError], None]


def _refuse(_: str, error: ConfigError) -> None:
    raise error


def read_csv(
    file: IO[bytes],
    name: str,
    *,
    encoding: str = 'utf-8',
    delimiter: str = ',',
    columns: Sequence[str] = (),
    required: Sequence[str] = (),
    comment: str = '',
    skip_spaces: bool = False,
    leave_out: LeaveOut = _refuse,
) -> Iterator[Row]:
    """Rows of a CSV or TSV.

    Args:
      file: its bytes; closed at the end.
      name: for messages.
      encoding: of the text; a byte order mark of UTF-8 is no part of it.
      delimiter: one character.
      columns: of a file that has no header line.
      required: columns that must be there.
      comment: lines that begin with it are not data, '' is none.
      skip_spaces: whether a space after the delimiter is no part of the cell: 'a, "b,c"'.
      leave_out: see ``LeaveOut``.
    """
    csv.field_size_limit(_CELL)
    encoding = 'utf-8-sig' if encoding == 'utf-8' else encoding
    # What is not UTF-8 is found row by row, not for a whole piece of the file.
    errors = 'surrogateescape' if encoding == 'utf-8-sig' else 'strict'
    text = io.TextIOWrapper(file, encoding, errors, newline='')
    lines = _Lines(text, comment)
    quoting = csv.QUOTE_NONE if delimiter == '\t' else csv.QUOTE_MINIMAL
    reader = csv.reader(
        lines, delimiter=delimiter, skipinitialspace=skip_spaces, quoting=quoting, strict=True
    )
    try:
        with text:
            header = list(columns) or [cell.strip() for cell in next(reader, [])]
            if not _is_text(header):
                raise ConfigError(f'{name}, row {lines.number}: not utf-8 text.')
            for column in required:
                if column not in header:
                    raise ConfigError(
                        f'{name}: there is no column {column!r}. {did_you_mean(column, header)}'
                    )
            for cells in reader:
                if not cells:
                    continue
                where = f'{name}, row {lines.number}'
                if not _is_text(cells):
                    leave_out(where, ConfigError(f'{where}: not utf-8 text.'))
                    continue
                if len(cells) != len(header):
                    wrong = f'{where}: {len(cells)} cells; expected {len(header)}.'
                    leave_out(where, ConfigError(wrong))
                    continue
                yield Row(dict(zip(header, cells)), where)
    except UnicodeDecodeError as error:
        reason = f'not {encoding} text, at row {lines.number + 1} or a little after'
        raise ConfigError(f'{name}: {reason}.') from error
    except csv.Error as error:
        raise ConfigError(f'{name}, row {lines.number}: {error}.') from error


def _is_text(cells: Sequence[str]) -> bool:
    """Whether there is no half of a surrogate pair, as what is not UTF-8 becomes."""
    text = ''.join(cells)
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


class _Lines:
    """Lines that are no comments, and the number of the last."""

    def __init__(self, text: IO[str], comment: str):
        self._text, self._comment, self.number = text, comment, 0

    def __iter__(self) -> Iterator[str]:
        for line in self._text:
            self.number += 1
            if not (self._comment and line.startswith(self._comment)):
                yield line


def read_jsonl(file: IO[bytes], name: str, *, leave_out: LeaveOut = _refuse) -> Iterator[Row]:
    """The objects of a JSONL file; empty lines are none. For ``leave_out`` see ``LeaveOut``."""
    with file:
        for number, line in enumerate(iter(lambda: file.readline(_CELL + 1), b''), start=1):
            where = f'{name}, row {number}'
            if len(line) > _CELL:
                raise ConfigError(f'{where}: longer than {_CELL} bytes; no JSONL file?')
            if not line.strip():
                continue
            try:
                row = as_row(whole_text(json_text.parse(line, where), line), where)
            except ConfigError as error:
                leave_out(where, error)
                continue
            yield row


def read_parquet(file: IO[bytes], name: str) -> Iterator[Row]:
    """Rows of a Parquet file, a batch of them in memory; lists and structures as Python's own."""
    number = 0
    try:
        with file, pyarrow.parquet.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=1024):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(cells, f'{name}, row {number}')
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f'{name} cannot be read as Parquet: {error}') from error


def json_value(file: IO[bytes], name: str) -> Any:
    """The value of a whole JSON file; closed at the end."""
    try:
        with io.TextIOWrapper(file, 'utf-8-sig') as text:
            return json_text.parse(text.read(), name)
    except UnicodeDecodeError as error:
        raise ConfigError(f'{name}: not JSON ({error}).') from error


def whole_text(value: Any, content: bytes) -> Any:
    """A JSON value of ``content`` with '?' for half of a surrogate pair, which cannot be stored."""
    if b'\\ud' not in content.lower():
        return value
    return json.loads(json.dumps(value, ensure_ascii=False).encode(errors='replace'))


def as_row(value: Any, where: str) -> Row:
    """A JSON object as a row. Raises ConfigError for anything else."""
    if not isinstance(value, dict):
        raise ConfigError(f'{where}: {value!r:.100}; expected an object.')
    return Row(value, where)


def read_json_rows(file: IO[bytes], name: str, key: str = '') -> Iterator[tuple[str, Row]]:
    """(key or number, object) of every element of a JSON array or object of objects.

    However large the file is, one element is held at a time.

    Args:
      file: UTF-8 JSON; closed at the end.
      name: for messages.
      key: where the array or object stands in the file's object; '' is the whole file, and so is a
        file that is an array itself.
    """
    with file:
        scanner = _Scanner(file, name)
        if key and not scanner.is_array() and not scanner.enter(key):
            raise ConfigError(f'{name}: there is no {key!r} at its top.')
        for number, (found, value) in enumerate(scanner.elements()):
            found = str(number) if found is None else found
            yield found, as_row(value, f'{name}, {key or "element"} {found}')


class _Scanner:
    """A JSON text read in pieces: values are decoded by the json module, one at a time."""

    def __init__(self, file: IO[bytes], name: str):
        self._text = io.TextIOWrapper(file, 'utf-8-sig')
        self._name = name
        self._buffer, self._at, self._ended = '', 0, False
        self._decoder = json.JSONDecoder()

    def elements(self) -> Iterator[tuple[str | None, Any]]:
        """(key, None in an array; value) of the array or object that begins here."""
        opening = self._next()
        if opening not in ('[', '{'):
            raise self._damaged('an array or an object is expected')
        self._at += 1
        closing = ']' if opening == '[' else '}'
        if self._next() == closing:
            return
        while True:
            key = self._key() if opening == '{' else None
            yield key, self._value()
            mark = self._next()
            self._at += 1
            if mark == closing:
                return
            if mark != ',':
                raise self._damaged(f'"," or "{closing}" is expected')

    def is_array(self) -> bool:
        """Whether an array begins here."""
        return self._next() == '['

    def enter(self, wanted: str) -> bool:
        """Goes to the value of a key of the object that begins here; False when there is none."""
        if self._next() != '{':
            return False
        self._at += 1
        while self._next() not in ('}', ''):
            if self._key() == wanted:
                return True
            self._value()
            if self._next() == ',':
                self._at += 1
        return False

    def _key(self) -> str:
        key = self._value()
        if not isinstance(key, str) or self._next() != ':':
            raise self._damaged('a key is expected')
        self._at += 1
        return key

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except RecursionError:
                raise self._damaged('it is nested too deeply') from None
            except ValueError as error:
                if self._ended:
                    raise self._damaged(str(error)) from error
            else:
                # A number at the end of the piece may go on in the next.
                if end < len(self._buffer) or self._ended:
                    json_text.check_depth(value, self._buffer[self._at : end], self._name)
                    self._at = end
                    return value
            self._more()

    def _next(self) -> str:
        """The next character that is no space, '' at the end."""
        while True:
            while self._at < len(self._buffer):
                if not self._buffer[self._at].isspace():
                    return self._buffer[self._at]
                self._at += 1
            if self._ended:
                return ''
            self._more()

    def _more(self) -> None:
        # At least doubled, so that one huge value is not decoded again for every small piece.
        rest = self._buffer[self._at :]
        try:
            piece = self._text.read(max(_PIECE, len(rest)))
        except UnicodeDecodeError as error:
            raise ConfigError(f'{self._name} is not UTF-8 text.') from error
        self._buffer, self._at, self._ended = rest + piece, 0, not piece

    def _damaged(self, reason: str) -> ConfigError:
        near = self._buffer[max(0, self._at - 20) : self._at + 20]
        return ConfigError(f'{self._name} is not JSON as expected ({reason}) near {near!r}.')
