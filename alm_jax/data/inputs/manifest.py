"""A folder of audio files and a CSV or JSONL manifest.

Columns: ``file`` (path inside the folder), ``caption`` or ``caption_1`` ... ``caption_n``, and, if
you have them, ``label``, ``tags`` (separated by commas), ``language``, ``kind``, ``split`` (train,
validation or test), ``recording_id`` (cuts of one recording share it) and others of
``fields.NAMES``. A file may have several rows: their captions are collected. Without a ``split``
column a hash of the recording id decides (80 % train, 10 % validation, 10 % test), so a record
added later moves no other.

A manifest says what must be there: a row that cannot be used (its file is missing, no audio or
outside the folder, a text is empty or not UTF-8, another row of the file says otherwise) is an
error, unless rows may be skipped, as in training. What is wrong with the manifest as a whole, such
as a missing column, always is. While the listing is made, about 800 bytes a record are held in
memory; afterwards none.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data.catalog import rows
from alm_jax.data.catalog.rows import Row
from alm_jax.data.inputs import fields, files, headers, left_out, listing
from alm_jax.data.inputs.tree import Fetch, folder_of

FILE = ('file', 'file_name', 'filename', 'path', 'filepath')
BAD_ROW, BAD_AUDIO = 'rows that cannot be used', 'files that cannot be read as audio'


def open_folder(
    folder: str | os.PathLike,
    place: pathlib.Path,
    *,
    captions: str | os.PathLike,
    caption: str | Sequence[str] = '',
) -> listing.Listed:
    """Opens a folder with a manifest; what cannot be used of it is left out, and told.

    Args:
      folder: the folder.
      place: where listings are kept.
      captions: the manifest, .csv or .jsonl; looked for where it says, then inside the folder.
      caption: columns of the captions; see ``fields.described``.

    Raises:
      ConfigError: names the manifest, the row and the column, and what to do.
    """
    root = folder_of(folder)
    manifest = _find(root, captions)
    status = manifest.stat()
    state = (status.st_size, status.st_mtime_ns)
    caption = fields.as_columns(caption)
    key = files.digest(str(root), str(manifest))
    # The names of the files are in the listing: to see that they are unchanged, it is opened first.
    kind = f'folder-{files.digest(listing.VERSION, key, state, caption)}'
    for path in sorted(place.glob(f'{kind}-*.json')):
        found = listing.existing(path)
        if found and path == listing.path_of(place, kind, _state(root, _names(found))):
            return listing.Listed(found, Fetch(root))
    by_file, bad = _read(root, manifest, caption)

    def entries(notes: left_out.Notes) -> Iterator[listing.Entry]:
        for where, reason in bad:
            notes.leave_out(BAD_ROW, where, reason)
        stats = files.stats(os.path.join(root, name) for name in by_file)
        sizes = headers.Headers(root, place / f'headers-{key}.arrow').of(list(by_file), stats)
        for (name, packed), (samples, rate, problem) in zip(by_file.items(), sizes):
            found = json.loads(packed)
            row = found.pop('row')
            if problem:
                split = fields.split_for(found, name)
                told = f'row {row}: {name} ({problem})'
                notes.leave_out(BAD_AUDIO, name, told, split=split)
                continue
            made = fields.completed(
                found,
                id=name,
                package=fields.collection(root),
                source=str(root / name),
                size=(samples, rate),
            )
            yield listing.Entry(*made)

    names = [*by_file, *(where for where, _ in bad)]
    path = listing.path_of(place, kind, _state(root, names))
    return listing.Listed(listing.opened(path, str(manifest), entries), Fetch(root))


def _find(root: pathlib.Path, manifest: str | os.PathLike) -> pathlib.Path:
    given = pathlib.Path(manifest).expanduser()
    for path in (given, root / given):
        if path.is_file():
            if path.suffix.lower() not in ('.csv', '.jsonl'):
                raise ConfigError(f'captions {str(path)!r} must be a .csv or a .jsonl file.')
            return path.resolve()
    raise ConfigError(f'captions {str(manifest)!r} exists neither here nor in {root}.')


def _state(root: pathlib.Path, names: Iterable[str]) -> np.ndarray:
    """Of all that a manifest names, in whatever order."""
    return files.stats(os.path.join(root, name) for name in sorted(names))


def _names(listed: listing.Listing) -> Iterator[str]:
    for _, batch in listed.index.parts('id'):
        yield from batch.column(0).to_pylist()
    for unusable in listed.left_out:
        yield unusable.id


def _read(
    root: pathlib.Path, manifest: pathlib.Path, caption: Sequence[str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """What the rows say, and (row, reason) of those that cannot be used.

    The first is file -> its fields and first row number, as JSON: a third of the memory of objects.
    """
    is_csv = manifest.suffix.lower() == '.csv'
    read = rows.read_csv if is_csv else rows.read_jsonl
    by_file: dict[str, str] = {}
    bad: list[tuple[str, str]] = []

    def leave_out(where: str, error: ConfigError) -> None:
        bad.append((where.rsplit(', ', 1)[-1], str(error)))

    columns: set[str] = set()
    for row in read(manifest.open('rb'), str(manifest), leave_out=leave_out):
        if not columns >= row.keys():
            columns |= row.keys()
            if is_csv:
                _check_columns(manifest, columns, caption)
        try:
            found = _described(root, row, caption)
            name = found.pop('file')
            if name in by_file:
                found = _merged(manifest, name, json.loads(by_file[name]), found)
        except ConfigError as error:
            leave_out(row.where, error)
            continue
        by_file[name] = json.dumps(found)
    if not by_file and not bad:
        raise ConfigError(f'{manifest} holds no row.')
    ignored = {c for c in columns - {*FILE, *caption} if not fields.is_known(c, caption)}
    if ignored:
        logging.warning('%s: columns not used: %s', manifest, ', '.join(sorted(ignored)))
    return by_file, bad


def _check_columns(manifest: pathlib.Path, columns: set[str], caption: Sequence[str]) -> None:
    if not columns & set(FILE):
        raise ConfigError(f"{manifest}: there is no column 'file'; found {sorted(columns)}.")
    if caption == (fields.NO_CAPTION,):
        return
    for wanted in caption:
        if wanted not in columns:
            hint = did_you_mean(wanted, sorted(columns))
            raise ConfigError(f'{manifest}: there is no column {wanted!r}. {hint}')
    labels = columns & set(fields.NAMES['label'])
    if not caption and not fields.caption_columns(columns) and not labels:
        raise ConfigError(
            f"{manifest}: there is no column 'caption'; found {sorted(columns)}. Name the column "
            f'of captions: caption=...; caption={fields.NO_CAPTION} is audio without text.'
        )


def _described(root: pathlib.Path, row: Row, caption: Sequence[str]) -> dict[str, Any]:
    """The fields of one row, with 'file' and 'row'."""
    column = next((name for name in FILE if name in row), '')
    if not column:
        raise ConfigError(f"{row.where}: there is no 'file'; found {sorted(row)}.")
    file = row.text(column, '')
    if not file:
        raise ConfigError(f'{row.where}: column {column!r} is empty.')
    path = os.path.normpath(os.path.join(root, file))  # links stay links
    name = os.path.relpath(path, root)
    if name.startswith('..') or '\0' in name:
        raise ConfigError(f'{row.where}: column {column!r} is {file!r}, outside the folder {root}.')
    found = fields.described(row, caption)
    if not found['captions'] and caption != (fields.NO_CAPTION,):
        names = [*caption, *fields.caption_columns(row), 'caption']
        raise ConfigError(f'{row.where}: column {names[0]!r} is empty for {file!r}.')
    return {**found, 'file': name, 'row': row.where.rsplit(' ', 1)[-1]}


def _merged(
    manifest: pathlib.Path, name: str, first: dict[str, Any], again: dict[str, Any]
) -> dict[str, Any]:
    """The fields of a file with the captions of another of its rows."""
    lists = ('captions', 'tags', 'turns', 'times')
    for key in (first.keys() | again.keys()) - {*lists, 'row'}:
        if first.get(key, '') != again.get(key, ''):
            raise ConfigError(
                f'{manifest}, rows {first["row"]} and {again["row"]}: {name!r} has {key} '
                f'{first.get(key, "")!r} and {again.get(key, "")!r}.'
            )
    for key in lists:
        both = first.get(key, []) + again.get(key, [])
        first[key] = [value for i, value in enumerate(both) if value not in both[:i]]
    return first
