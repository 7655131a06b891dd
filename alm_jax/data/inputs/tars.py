"""Tar sets in the layout of WebDataset: N.flac beside N.json, N.txt or N.cls, in any order.

A tar is read where it lies: its index ('NAME.tar.index.arrow' beside it) holds where each member
begins, the lengths in the audio headers and the texts, so any record is one read, in any order.

A recording's texts are the members of its name before the last dot, else, as WebDataset has it, of
its name before the first dot when one recording is called so. A key of the JSON is a column (see
``fields``); a .txt holds one caption a line, a .cls a class. When a tar holds a name several times
the last counts, as it does for tar.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from alm_jax.config import ConfigError
from alm_jax.data.catalog.rows import Row
from alm_jax.data.inputs import (
    containers,
    fields,
    files,
    headers,
    left_out,
    listing,
    tar_members,
)

_NUMBERS = ('file', 'offset', 'size')
NO_TEXT, NO_AUDIO = 'audio members without text', 'text members without audio'
BAD_AUDIO, BAD_TEXT = 'audio members that cannot be read', 'text members that cannot be used'
OTHER_FORM = 'further forms of a recording'


class Fetch:
    """(fields, file, offset, size) -> the bytes of the member."""

    def __init__(self, paths: Sequence[pathlib.Path], times: Sequence[int]):
        self._paths = list(map(str, paths))
        self._times = [int(time) for time in times]

    def __reduce__(self) -> tuple:
        return Fetch, (self._paths, self._times)

    def shard(self, file: int, *_: int) -> str:
        """The tar."""
        return self._paths[file]

    def __call__(self, _: dict[str, Any], file: int, offset: int, size: int) -> bytes:
        return files.read_at(self._paths[file], self._times[file], offset, size)


def open_tars(
    tars: str | Sequence[str],
    place: pathlib.Path,
    *,
    caption: str | Sequence[str] = '',
    audio: str = '',
) -> listing.Listed:
    """Opens a tar set.

    Args:
      tars: patterns, as in ``files.expand``.
      place: where listings are kept.
      caption: keys of the captions; see ``fields.described``.
      audio: which members are the recordings, by what follows the first or last dot ('flac',
        'mix.flac'), when a sample has several.

    Raises:
      ConfigError: nothing matches, a tar is compressed, cut off or damaged, or no record is left.
    """
    paths = containers.without_indexes(files.expand(tars, '.tar'))
    base = files.base_of(tars)
    caption = fields.as_columns(caption)
    stats = files.stats(paths)
    path = listing.path_of(place, 'tars', list(map(str, paths)), stats, str(base), caption, audio)

    def entries(notes: left_out.Notes) -> Iterator[listing.Entry]:
        containers.index_all(paths, tar_members.scan, place / 'files')
        for number, tar in enumerate(paths):
            facts = containers.facts(tar, place / 'files')
            yield from _Tar(tar, base, facts, caption, audio, notes).entries(number)

    listed = listing.opened(path, f'tars {tars}', entries, _NUMBERS)
    return listing.Listed(listed, Fetch(paths, stats[:, 1]))


class _Tar:
    """The records of one tar, from its facts."""

    def __init__(
        self,
        path: pathlib.Path,
        base: pathlib.Path,
        facts: pa.Table,
        caption: Sequence[str],
        audio: str,
        notes: left_out.Notes,
    ):
        self._path = path
        self._name = path.relative_to(base).with_suffix('').as_posix()
        self._package = fields.collection(base)
        self._split = fields.split_of(path.relative_to(base.parent))
        self._facts = facts
        self._caption = caption
        self._audio = audio.lstrip('.')
        self._notes = notes
        members: dict[str, int] = {}
        for row, name in enumerate(facts.column('name').to_pylist()):
            if name in members:
                notes.add('members that a later one of the same name replaces', self._title(name))
            members[name] = row
        self._members = members

    def entries(self, number: int) -> Iterator[listing.Entry]:
        """``number`` is that of the file in the set."""
        recordings = self._recordings()
        texts = [name for name in self._members if tar_members.is_text(name)]
        by_stem: dict[str, list[str]] = {}
        by_key: dict[str, list[str]] = {}
        for name in texts:
            by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
            by_key.setdefault(_key(name), []).append(name)
        one_of_key: dict[str, int] = {}
        for stem in recordings:
            one_of_key[_key(stem)] = one_of_key.get(_key(stem), 0) + 1
        used: set[str] = set()
        for stem, name in recordings.items():
            own = by_stem.get(stem, [])
            if not own and one_of_key[_key(stem)] == 1:
                own = by_key.get(_key(stem), [])
            used.update(own)
            entry = self._entry(number, stem, name, own)
            if entry:
                yield entry
        for name in texts:
            if name not in used:
                self._leave_out(NO_AUDIO, os.path.splitext(name)[0], self._title(name))

    def _recordings(self) -> dict[str, str]:
        """Name without its ending -> member, for every recording, in the tar's order."""
        found: dict[str, str] = {}
        for name in self._members:
            if not headers.is_audio(name):
                continue
            stem, ending = os.path.splitext(name)
            if self._audio and self._audio not in (ending[1:], _after_first_dot(name)):
                continue
            other = found.get(stem)
            if other is None:
                found[stem] = name
                continue
            order = [os.path.splitext(n)[1].lower() for n in (other, name)]
            first, second = map(headers.SUFFIXES.index, order)
            left, found[stem] = (name, other) if first <= second else (other, name)
            self._notes.add(OTHER_FORM, self._title(left))
        return found

    def _entry(
        self, number: int, stem: str, name: str, texts: Sequence[str]
    ) -> listing.Entry | None:
        facts, row = self._facts, self._members[name]
        if problem := facts.column('problem')[row].as_py():
            self._leave_out(BAD_AUDIO, stem, f'{self._title(name)} ({problem})')
            return None
        try:
            meta = self._meta(name, texts)
            found = fields.described(meta, self._caption)
        except ConfigError as error:
            self._leave_out(BAD_TEXT, stem, str(error))
            return None
        if not found['captions'] and self._caption != (fields.NO_CAPTION,):
            split = found.get('split', '')
            self._leave_out(NO_TEXT, stem, self._title(name) + fields.keys_of(meta), split)
            return None
        if self._split:
            found.setdefault('split', self._split)
        offset, size, *length = (
            facts.column(column)[row].as_py() for column in ('offset', 'size', 'samples', 'rate')
        )
        made = fields.completed(
            found,
            id=f'{self._name}/{stem}',
            package=self._package,
            source=self._title(name),
            size=tuple(length),
        )
        return listing.Entry(*made, (number, offset, size))

    def _meta(self, name: str, texts: Sequence[str]) -> Row:
        """The keys of the JSON, with 'txt' and 'cls' from the members of these endings."""
        row = Row({}, self._title(name))
        for text in sorted(texts):
            where, ending = self._title(text), os.path.splitext(text)[1].lower()
            if problem := self._facts.column('problem')[self._members[text]].as_py():
                raise ConfigError(f'{where} is {problem}.')
            content = self._facts.column('text')[self._members[text]].as_py()
            if ending == '.json':
                row.update(fields.load_json(content, where))
                row.where = where
            elif ending == '.txt':
                row['txt'] = fields.load_lines(content, where)
            else:
                row['cls'] = ' '.join(fields.load_lines(content, where))
        return row

    def _leave_out(self, kind: str, stem: str, name: str, split: str = '') -> None:
        id = f'{self._name}/{stem}'
        self._notes.leave_out(kind, id, name, str(self._path), split or self._split)

    def _title(self, member: str) -> str:
        return f'{self._path}/{member}'


def _key(name: str) -> str:
    """The sample that WebDataset assigns a member to: its path up to the file name's first dot."""
    folder, slash, file = name.rpartition('/')
    return folder + slash + file.partition('.')[0]


def _after_first_dot(name: str) -> str:
    return name.rpartition('/')[2].partition('.')[2]
