"""Your own recordings: a folder of audio files and a CSV or JSONL manifest of captions.

Columns: ``file`` (path inside the folder), ``caption`` or ``caption_1`` ... ``caption_n``, and, if
you have them, ``label``, ``tags`` (separated by commas), ``language``, ``kind``, ``split`` (train,
validation or test) and ``recording_id`` (cuts of one recording share it). A file may have several
rows: their captions are collected. Without a ``split`` column a hash of the recording id decides
(80 % train, 10 % validation, 10 % test), so a record added later moves no other.
"""

import csv
import io
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import soundfile
from absl import logging

from alm_jax.audio import decode
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import record
from alm_jax.data.index import Index

SPLITS = ('train', 'validation', 'test')
_TEXT = ('label', 'language', 'kind', 'split', 'recording_id')
_CAPTION = re.compile(r'caption(_\d+)?$')


class Folder:
    """The reader behind a Source: audio is decoded when a record is asked for, never before."""

    def __init__(self, root: str | os.PathLike, manifest: str | os.PathLike, split: str = ''):
        """Reads the manifest and every audio header.

        Args:
          root: the folder.
          manifest: .csv or .jsonl; looked for where it says, then inside ``root``.
          split: '' is all records.

        Raises:
          ConfigError: names the manifest, the row and the column, and what to do.
        """
        self._root = pathlib.Path(root).expanduser().resolve()
        if not self._root.is_dir():
            raise ConfigError(f'folder {str(root)!r} does not exist.')
        self._manifest = _find_manifest(self._root, manifest)
        if split and split not in SPLITS:
            raise ConfigError(f'{self._manifest}: split {split!r}? {did_you_mean(split, SPLITS)}')
        self.split = split
        self._records = self._read_records()
        self.index = Index.of(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def read(self, row: int) -> dict[str, Any]:
        """Record ``row``, its audio as the bytes of the file."""
        fields = self._records[row]
        return {**fields, 'audio': decode.read_bytes(self._root / fields['id'])}

    def _read_records(self) -> list[dict[str, Any]]:
        by_file: dict[str, dict[str, Any]] = {}
        for row, fields in _rows(self._manifest):
            fields = self._checked(row, fields)
            first = by_file.setdefault(fields['file'], fields)
            if first is not fields:
                self._merge(row, first, fields)
        self._check_files(by_file)
        chosen = [f for f in by_file.values() if self.split in ('', f['split'])]
        if not chosen:
            raise ConfigError(f'{self._manifest}: no record in split {self.split!r}.')
        return [self._record(fields) for fields in chosen]

    def _checked(self, row: int, fields: dict[str, Any]) -> dict[str, Any]:
        """One row: file, captions, and text columns with their defaults."""
        where = f'{self._manifest}, row {row}'
        file = _text(fields, 'file', where)
        if not file:
            raise ConfigError(f"{where}: column 'file' is empty.")
        path = pathlib.Path(os.path.normpath(self._root / file))  # links stay links
        if not path.is_relative_to(self._root):
            raise ConfigError(
                f"{where}: column 'file' is {file!r}, outside the folder {self._root}."
            )
        columns = sorted(filter(_CAPTION.match, fields), key=lambda name: (len(name), name))
        captions = [text for name in columns if (text := _text(fields, name, where))]
        if not captions:
            raise ConfigError(f"{where}: column 'caption' is empty for {file!r}.")
        checked = {name: _text(fields, name, where) for name in _TEXT}
        file = path.relative_to(self._root).as_posix()
        if checked['split'] and checked['split'] not in SPLITS:
            hint = did_you_mean(checked['split'], SPLITS)
            raise ConfigError(f"{where}: column 'split' is {checked['split']!r}. {hint}")
        checked['recording_id'] = checked['recording_id'] or file
        checked['split'] = checked['split'] or record.split_by_hash(checked['recording_id'])
        tags = [tag.strip() for tag in _text(fields, 'tags', where).split(',') if tag.strip()]
        return {'file': file, 'captions': captions, 'tags': tags, 'row': row, **checked}

    def _merge(self, row: int, first: dict[str, Any], again: dict[str, Any]) -> None:
        """Adds the captions of another row of the same file."""
        for name in _TEXT:
            if first[name] != again[name]:
                raise ConfigError(
                    f'{self._manifest}, rows {first["row"]} and {row}: {first["file"]!r} has '
                    f'{name} {first[name]!r} and {again[name]!r}.'
                )
        for name in ('captions', 'tags'):
            first[name] = list(dict.fromkeys(first[name] + again[name]))

    def _check_files(self, by_file: dict[str, dict[str, Any]]) -> None:
        missing = [f for f in by_file.values() if not (self._root / f['file']).is_file()]
        if missing:
            listed = '\n'.join(f'  row {f["row"]}: {f["file"]}' for f in missing[:5])
            raise ConfigError(
                f'{self._manifest}: {len(missing)} of {len(by_file)} files are not in '
                f'{self._root}:\n{listed}' + '\n  ...' * (len(missing) > 5)
            )

    def _record(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A record without its audio; sizes come from the header, which costs no decoding."""
        path = self._root / fields['file']
        try:
            header = soundfile.info(path)
        except soundfile.LibsndfileError as error:
            raise ConfigError(
                f'{self._manifest}, row {fields["row"]}: {path} is not audio that can be read '
                f'({error}).'
            ) from error
        return {
            **record.DEFAULTS,
            'num_samples': header.frames,
            'rate': header.samplerate,
            'duration': header.frames / header.samplerate,
            'captions': fields['captions'],
            'tags': fields['tags'],
            'label': fields['label'],
            'kind': fields['kind'] or 'sound',
            'language': fields['language'],
            'package': self._manifest.stem,
            'source': str(path),
            'recording_id': fields['recording_id'],
            'group': fields['recording_id'],
            'id': fields['file'],
        }


def _find_manifest(root: pathlib.Path, manifest: str | os.PathLike) -> pathlib.Path:
    given = pathlib.Path(manifest).expanduser()
    for path in (given, root / given):
        if path.is_file():
            if path.suffix.lower() not in ('.csv', '.jsonl'):
                raise ConfigError(f'captions {str(path)!r} must be a .csv or a .jsonl file.')
            return path.resolve()
    raise ConfigError(f'captions {str(manifest)!r} exists neither here nor in {root}.')


def _text(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if value is None:
        return ''
    if name == 'tags' and isinstance(value, list):
        value = ','.join(map(str, value))
    if not isinstance(value, str):
        raise ConfigError(f'{where}: column {name!r} is {value!r}; expected text.')
    return value.strip()


def _rows(manifest: pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number, fields) of every row; the header of a CSV is line 1."""
    try:
        text = manifest.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        line = manifest.read_bytes()[: error.start].count(b'\n') + 1
        raise ConfigError(f'{manifest}, row {line}: not UTF-8 text; save it as UTF-8.') from error
    rows = list(
        _jsonl(manifest, text) if manifest.suffix.lower() == '.jsonl' else _csv(manifest, text)
    )
    if not rows:
        raise ConfigError(f'{manifest} holds no row.')
    columns = {name for _, fields in rows for name in fields}
    captions = set(filter(_CAPTION.match, columns))
    for column, found in (('file', 'file' in columns), ('caption', captions)):
        if not found:
            raise ConfigError(
                f'{manifest}: there is no column {column!r}; found {sorted(columns)}.'
            )
    if ignored := sorted(columns - captions - {'file', 'tags', *_TEXT}):
        logging.warning('%s: columns not used: %s', manifest, ', '.join(ignored))
    return rows


def _csv(manifest: pathlib.Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
    try:
        for fields in reader:
            if None in fields:
                raise ConfigError(
                    f'{manifest}, row {reader.line_num}: more cells than columns; '
                    'a caption with commas needs "double quotes".'
                )
            yield reader.line_num, fields
    except csv.Error as error:
        raise ConfigError(f'{manifest}, row {reader.line_num}: {error}.') from error


def _jsonl(manifest: pathlib.Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, line in enumerate(text.split('\n'), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f'{manifest}, row {row}: not JSON ({error}).') from error
        if not isinstance(fields, dict):
            raise ConfigError(
                f'{manifest}, row {row}: expected an object, such as {{"file": ...}}.'
            )
        yield row, fields
