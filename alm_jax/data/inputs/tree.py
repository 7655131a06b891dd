"""A plain folder tree: what is known of a recording is where it lies and what lies beside it.

A file 'dog/7.wav' takes its texts from 'dog/7.json' (keys as columns, see ``fields``) and
'dog/7.txt' (one caption a line). Without either, the name of its folder is its class and, in words,
its caption. Folders called train, validation or test at the top, or nearest to the file, are its
split; else a hash of its path decides.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from alm_jax.audio.decode import UnreadableFile
from alm_jax.config import ConfigError
from alm_jax.data.catalog.rows import Row
from alm_jax.data.inputs import fields, files, headers, left_out, listing

_TEXTS = ('.json', '.txt')
NO_TEXT, BAD_TEXT = 'files without text', 'files whose text cannot be used'
BAD_AUDIO, BAD_NAME = 'files that cannot be read as audio', 'files whose names are not UTF-8'


class Fetch:
    """(fields) -> the path of the file, of which only what is needed is read."""

    def __init__(self, root: pathlib.Path):
        self._root = str(root)

    def __reduce__(self) -> tuple:
        return Fetch, (pathlib.Path(self._root),)

    def shard(self) -> str:
        """None: each record is a file of its own."""
        return ''

    def __call__(self, record: dict[str, Any]) -> pathlib.Path:
        return pathlib.Path(self._root, record['id'])


def open_tree(
    tree: str | os.PathLike, place: pathlib.Path, *, caption: str | Sequence[str] = ''
) -> listing.Listed:
    """Opens a folder of audio files, with all folders in it.

    Args:
      tree: the folder.
      place: where listings are kept.
      caption: keys of the captions in the .json files; see ``fields.described``.

    Raises:
      ConfigError: no such folder, or no record that can be used.
    """
    root = folder_of(tree)
    caption = fields.as_columns(caption)
    names, stats = _walk(root)
    path = listing.path_of(place, 'tree', str(root), names, stats, caption)

    def entries(notes: left_out.Notes) -> Iterator[listing.Entry]:
        is_audio = np.zeros(len(names), bool)
        for row, name in enumerate(names):
            if not headers.is_audio(name):
                continue
            is_audio[row] = _is_utf8(name)
            if not is_audio[row]:
                notes.leave_out(BAD_NAME, ascii(name), ascii(name))
        recordings = [name for name, audio in zip(names, is_audio) if audio]
        texts = {name for name in names if not headers.is_audio(name)}
        cache = place / f'headers-{files.digest(str(root))}.arrow'
        sizes = headers.Headers(root, cache).of(recordings, stats[is_audio])
        for name, (samples, rate, problem) in zip(recordings, sizes):
            if problem:
                notes.leave_out(BAD_AUDIO, name, f'{name} ({problem})', split=_split_of(name))
            elif found := _described(root, name, texts, caption, notes):
                made = fields.completed(
                    found,
                    id=name,
                    package=fields.collection(root),
                    source=str(root / name),
                    size=(samples, rate),
                )
                yield listing.Entry(*made)

    listed = listing.opened(path, f'tree {root}', entries)
    return listing.Listed(listed, Fetch(root))


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # such bytes are half of a surrogate pair in Python
        return False


def folder_of(path: str | os.PathLike) -> pathlib.Path:
    """A user's folder, absolute. Raises ConfigError when it does not exist."""
    root = pathlib.Path(path).expanduser().resolve()
    if not root.is_dir():
        raise ConfigError(f'folder {str(path)!r} does not exist.')
    return root


def _described(
    root: pathlib.Path, name: str, texts: set[str], caption: Sequence[str], notes: left_out.Notes
) -> dict[str, Any] | None:
    """What is known of a recording, None when that is too little."""
    stem = os.path.splitext(name)[0]
    row = Row({}, str(root / name))
    try:
        for ending in _TEXTS:
            if stem + ending not in texts:
                continue
            where = str(root / (stem + ending))
            content = files.read_text(where)
            if ending == '.json':
                row = fields.load_json(content, where)
            else:
                row['txt'] = fields.load_lines(content, where)
        folders = pathlib.PurePath(name).parent.parts
        classes = [part for part in folders if not fields.split_named(part)]
        if not row and classes:
            row['label'] = fields.words(classes[-1])
        found = fields.described(row, caption)
    except UnreadableFile:  # what the system does may pass, and is nothing to keep
        raise
    except ConfigError as error:
        notes.leave_out(BAD_TEXT, name, str(error), split=_split_of(name))
        return None
    if not found['captions'] and caption != (fields.NO_CAPTION,):
        split = found.get('split') or _split_of(name)
        notes.leave_out(NO_TEXT, name, name + fields.keys_of(row), split=split)
        return None
    found.setdefault('split', _split_of(name))
    return found


def _split_of(name: str) -> str:
    """The split that a file's folders say, or ''."""
    folders = pathlib.PurePath(name).parent.parts
    return next(filter(None, map(fields.split_named, folders[:1] + folders[-1:])), '')


def _walk(root: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """(names, ``files.stats`` of them) of audio files and their texts, in the order of names.

    Links to folders are followed, each folder once, under its own name when it lies in the tree.
    Names that begin with a dot are left out.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [''], []
    while folders or links:
        below = (folders or links).pop()
        here = os.path.join(root, below)
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
                name = os.path.join(below, entry.name)
                if entry.name.startswith('.'):
                    continue
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(name)
                elif headers.is_audio(name) or os.path.splitext(name)[1].lower() in _TEXTS:
                    found.append(name)
    found.sort()
    return found, files.stats(os.path.join(root, name) for name in found)
