"""Manifests over other corpora: rows that name audio files and say or ask something about them.

Every row is an item. Items about the same file, or the same files in the same order, are one record
with a dialogue each (``Dataset.joined``), so that audio is stored once however often it is asked
about.

Where audio stands in a dialogue: all clips of the record come first, in order, unless the record
has several and the dialogue says it with slots: at '<sound-2>' in a text stands clip 2, counted
from 1. Only records of several clips have slots; those of one clip have lost theirs.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any

from alm_jax.config import ConfigError
from alm_jax.data.catalog.declaration import Clip, Item, turn
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.recordings import recording_id
from alm_jax.data.catalog.rows import Row

FOLDER = 'manifests'  # in manual_dir, where they are looked for
_SLOT = re.compile(r'<(?:sound|speech|audio)(?:-(\d+))?>')
_LOCATION = re.compile(r'[A-Za-z]:/|[A-Za-z][A-Za-z0-9+.-]+://')  # on a drive, or an address
_SPLIT = re.compile(r'(?<![a-z])(train|val|valid|validation|dev|test|eval|evaluation)(?![a-z])')
_SPLITS = {'train': 'train', 'test': 'test', 'eval': 'test', 'evaluation': 'test'}


def named(files: Files, pattern: str) -> Iterator[tuple[str, str, str]]:
    """(file, name without ending, split) of the manifests in FOLDER.

    The split is what the last word in the path says that is train, val, valid, validation, dev,
    test, eval or evaluation ('AQA/val.json', 'librispeech_test.jsonl'); without any it is train.

    Raises:
      ConfigError: there is none.
    """
    found = files.files(pattern, FOLDER)
    if not found:
        raise files.missing(f'{FOLDER}/{pattern}')
    for path in found:
        stem = path.partition('/')[2].rpartition('.')[0]
        words = _SPLIT.findall(stem.lower())
        yield path, stem, _SPLITS.get(words[-1], 'validation') if words else 'train'


def find(files: Files, path: str, row: Row) -> Clip | None:
    """The clip that a row names; None when it is not there.

    ``manual_dir`` is the root of all paths, so '/data/a.wav' is its 'data/a.wav', and a link serves
    for a manifest of absolute paths.

    Raises:
      ConfigError: names the row: an address, a drive letter, a path that leads out of manual_dir,
        or an absolute path whose first folder manual_dir lacks.
    """
    if _LOCATION.match(path):
        raise ConfigError(
            f'{row.where}: {path!r} is no path below {files.root}; fetch the audio there and '
            'rewrite the manifest.'
        )
    absolute = path.startswith('/')
    name = path.removeprefix(f'{files.root}/').lstrip('/')
    try:
        if absolute and not files.has(top := name.partition('/')[0]):
            raise ConfigError(
                f'{path!r} is an absolute path, read as {files.root}/{name}. Move the files there, '
                f'or make a link: ln -s /{top} {files.root}/{top}'
            )
        return files.audio(posixpath.normpath(name))
    except ConfigError as error:
        raise ConfigError(f'{row.where}: {error}') from error


def placed(texts: Sequence[str], clips: int, row: Row) -> list[str]:
    """The texts of a dialogue with their audio slots in the form that records have.

    Slots without a number count up from 1 over the dialogue. Records of one clip keep none.

    Raises:
      ConfigError: names the row: a slot for a clip that the row does not have.
    """
    counted = 0

    def slot(match: re.Match) -> str:
        nonlocal counted
        if clips == 1 and not match[1]:
            return ''
        counted += 1
        number = int(match[1] or counted)
        if not 1 <= number <= clips:
            raise ConfigError(f'{row.where}: {match[0]!r}, but it has {clips} clips.')
        return f'<sound-{number}>' if clips > 1 else ''

    return [_SLOT.sub(slot, text).strip() for text in texts]


def item(
    files: Files,
    row: Row,
    split: str,
    package: str,
    paths: Sequence[str],
    dialogue: Sequence[tuple[str, str]] = (),
    start: float = 0.0,
    **fields: Any,
) -> Item:
    """One row.

    Args:
      files: the distribution.
      row: for messages.
      split: of the record.
      package: the collection that the row belongs to.
      paths: its audio, in order; backslashes are slashes.
      dialogue: questions with their answers, in order.
      start: where in the (single) file the clip begins, seconds.
      **fields: of the record; recording_id is that of the first path when it is not given.

    Raises:
      ConfigError: names the row; see ``find`` and ``placed``, no audio, or an empty answer.
    """
    paths = [path.replace('\\', '/') for path in paths]
    if not paths or not all(paths):
        raise ConfigError(f'{row.where}: it names no audio file.')
    clips = [find(files, path, row) for path in paths]
    audio = tuple(clip.cut(start) if start else clip for clip in clips if clip)
    texts = placed([text for pair in dialogue for text in pair], len(paths), row)
    if not all(texts[1::2]):
        raise ConfigError(f'{row.where}: an answer is empty.')
    turns = [turn(*pair) for pair in zip(texts[::2], texts[1::2])]
    known = {'package': package, 'recording_id': recording_id(paths[0], package), 'turns': turns}
    name = f'{split}/{package}/' + ' + '.join(paths) + (f' @{start:g}' if start else '')
    return Item(split, name, audio if len(audio) == len(paths) else (), {**known, **fields})
