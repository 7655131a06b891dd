"""Manifests over other corpora: rows that name audio files and say or ask something about them.

Rows about the same file, or the same files in the same order, become one record with a dialogue
each, so that audio is stored once however often it is asked about.

Where audio stands in a dialogue: all clips of the record come first, in order, unless the record
has several and the dialogue says it with slots: at '<sound-2>' in a text stands clip 2, counted
from 1. Only records of several clips have slots; those of one clip have lost theirs.
"""

import dataclasses
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


@dataclasses.dataclass
class _Gathered:
    split: str
    audio: tuple[Clip, ...]
    fields: dict[str, Any]
    dialogues: int = 0


class Records:
    """Collects rows by the audio that they name.

    ``add`` a row at a time, then take ``items``.
    """

    def __init__(self, files: Files):
        self._files = files
        self._found: dict[str, _Gathered] = {}

    def add(
        self,
        row: Row,
        split: str,
        package: str,
        paths: Sequence[str],
        dialogue: Sequence[tuple[str, str]] = (),
        captions: Sequence[str] = (),
        start: float = 0.0,
        **fields: Any,
    ) -> None:
        """One row.

        Args:
          row: for messages.
          split: of the record.
          package: the collection that the row belongs to.
          paths: its audio, in order; backslashes are slashes.
          dialogue: questions with their answers, in order.
          captions: of the audio; the same text again is not kept.
          start: where in the (single) file the clip begins, seconds.
          **fields: of the record, alike in all rows about the same audio.

        Raises:
          ConfigError: names the row; see ``find`` and ``placed``, no audio, an empty answer, or a
            field that an earlier row about the same audio gave otherwise.
        """
        paths = [path.replace('\\', '/') for path in paths]
        key = f'{split}/{package}/' + ' + '.join(paths) + (f' @{start:g}' if start else '')
        if key not in self._found:
            self._found[key] = self._first(row, split, package, paths, start)
        record = self._found[key]
        for name, value in fields.items():
            if value and record.fields.setdefault(name, value) != value:
                before = record.fields[name]
                raise ConfigError(f'{row.where}: {name} {value!r} of {paths[0]!r} was {before!r}.')
        if dialogue:
            texts = placed([text for pair in dialogue for text in pair], len(paths), row)
            if not all(texts[1::2]):
                raise ConfigError(f'{row.where}: an answer is empty.')
            turns = zip(texts[::2], texts[1::2])
            record.fields['turns'] += [turn(q, a, record.dialogues) for q, a in turns]
            record.dialogues += 1
        known = record.fields['captions']
        known += [text for text in dict.fromkeys(captions) if text and text not in known]

    def items(self) -> Iterator[Item]:
        """The records, in the order of their first rows."""
        for key, record in self._found.items():
            yield Item(record.split, key, record.audio, record.fields)

    def _first(self, row, split, package, paths, start) -> _Gathered:
        if not paths or not all(paths):
            raise ConfigError(f'{row.where}: it names no audio file.')
        clips = [find(self._files, path, row) for path in paths]
        if start:
            clips = [clip.cut(start) if clip else None for clip in clips]
        fields = {'turns': [], 'captions': [], 'package': package}
        fields['recording_id'] = recording_id(paths[0], package)
        return _Gathered(split, tuple(clips) if all(clips) else (), fields)
