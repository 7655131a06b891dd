"""Blocklists: records that must not be trained on, in our own format and in the published ones.

Ours is text: one recording id or record id a line; '#' starts a comment; a line that begins with a
double quote is a JSON string, for ids that would not survive as they are. ``alm_jax.data leaks``
writes it. A line blocks every record of that recording, and the record of that id.

Published ones are read as they are: WavCaps' JSON ({"AudioSet": ["Y<id>.wav"], "FreeSound":
["<id>"]}), aac-datasets' CSV (columns index,id; the same ids), and the CSV (column file_name) of
"Audio-Language Datasets of Scenes and Events: A Survey", whose name says whose files it lists:
audioset_in_audiocaps.csv lists files of AudioSet.
"""

import csv
import dataclasses
import io
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from absl import logging

from alm_jax import json_text
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import record
from alm_jax.data.catalog.declaration import bbc, freesound, youtube, youtube_id
from alm_jax.data.hygiene.recordings import Hashes

_NUMBER = re.compile(r'\d+')
_EXTENSION = r'(?i)\.(wav|flac|mp3|ogg|opus|m4a|aac|mp4|webm)$'
_WAVCAPS = {
    'AudioSet': 'youtube',
    'AudioSet_SL': 'youtube',
    'FreeSound': 'freesound',
    'BBC': 'bbc',
    'BBC_Sound_Effects': 'bbc',
    'SoundBible': 'soundbible',
}
# Whose names in the survey's lists are those of the site they come from. 'freesound' is not among
# them: its numbers there count the files of LAION's collection and are no Freesound ids.
_SURVEY = {
    'audioset': 'youtube',
    'audiocaps': 'youtube',
    'multis': 'youtube',
    'favdbench': 'youtube',
    'fsd50k': 'freesound',
}
_ABSENT = ('', 'not found')  # what aac-datasets writes for a recording it could not trace


@dataclasses.dataclass(frozen=True)
class Blocklist:
    """What one file blocks.

    Attributes:
      name: of the file.
      recordings: hashes of recording ids.
      ids: record ids.
      stems: names of files, without folder and suffix, in the last part of record ids.
      skipped: entries that name nothing.
    """

    name: str
    recordings: Hashes
    ids: frozenset[str]
    stems: frozenset[str] = frozenset()
    skipped: int = 0

    def __len__(self) -> int:
        return max(len(self.recordings), len(self.ids), len(self.stems))

    def blocks(self, ids: pa.Array, recording_hashes: np.ndarray) -> np.ndarray:
        """bool [n]: which of n records it names."""
        blocked = self.recordings.holds(recording_hashes)
        if self.ids:
            blocked |= _is_in(ids, self.ids)
        if self.stems:
            last = pc.replace_substring_regex(ids, r'^.*/', '')
            blocked |= _is_in(pc.replace_substring_regex(last, _EXTENSION, ''), self.stems)
        return blocked


def read(path: str | os.PathLike) -> Blocklist:
    """Reads a blocklist: .json is WavCaps', .csv one of the two others, anything else ours.

    Raises:
      ConfigError: no such file, another content than its suffix says, or nothing in it.
    """
    path = pathlib.Path(path).expanduser()
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f'blocklist {path} cannot be read: {error}.') from error
    reader = {'.json': _wavcaps, '.csv': _csv}.get(path.suffix.lower(), _lines)
    found = reader(path, text)
    # A list of ours without ids is what a search that found nothing leaves.
    if not len(found) and not (reader is _lines and text.startswith('#')):
        raise ConfigError(f'blocklist {path} names no record.')
    return found


def write(
    path: str | os.PathLike, header: Sequence[str], groups: Iterable[tuple[str, Sequence[str]]]
) -> None:
    """Writes our format: ``header`` as comments, then groups of ids, each under its comment."""
    lines = [f'# {line}' for line in header]
    for title, ids in groups:
        lines += ['', *(f'# {line}' for line in title.splitlines()), *map(_quoted, ids)]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    os.replace(temporary, path)


def rows_not_blocked(index, blocklists: Sequence[Blocklist]) -> np.ndarray:
    """The rows of an index that no blocklist names, a stretch at a time.

    A blocklist that names none of the records is warned of: it is likely another dataset's.

    Args:
      index: alm_jax.data.index.Index.

    Returns:
      uint32 [rows], or int64 where those do not suffice; rising.
    """
    kind = np.uint32 if len(index) < 1 << 32 else np.int64
    kept = [np.zeros(0, kind)]
    counts = np.zeros(len(blocklists), np.int64)
    for start, batch in index.parts('id', 'recording_hash'):
        hashes = batch.column(1).to_numpy()
        blocked = np.zeros(batch.num_rows, bool)
        for number, blocklist in enumerate(blocklists):
            here = blocklist.blocks(batch.column(0), hashes)
            counts[number] += np.count_nonzero(here)
            blocked |= here
        kept.append((start + np.flatnonzero(~blocked)).astype(kind))
    for blocklist, count in zip(blocklists, counts.tolist()):
        if count:
            logging.info('blocklist %s: %d of %d records', blocklist.name, count, len(index))
        else:
            logging.warning(
                'blocklist %s (%d entries) names none of %d records, such as %r. Is it that of '
                'another dataset?',
                blocklist.name,
                len(blocklist),
                len(index),
                index.value('id', 0) if len(index) else '',
            )
    return np.concatenate(kept)


def _is_in(column: pa.Array, values: frozenset[str]) -> np.ndarray:
    wanted = pa.array(sorted(values), pa.string())
    return pc.is_in(column, wanted).to_numpy(zero_copy_only=False)


def _blocklist(path: pathlib.Path, entries: Iterable[tuple[str, str]]) -> Blocklist:
    """Of (kind, text): a 'recording' id, a record 'id', 'either', a 'stem' or 'nothing'."""
    found: dict[str, set[str]] = {'recording': set(), 'id': set(), 'stem': set()}
    skipped = 0
    for kind, text in entries:
        if kind == 'nothing':
            skipped += 1
        for one in ('recording', 'id') if kind == 'either' else (kind,):
            found.get(one, set()).add(text)
    hashes = np.array([record.stable_hash(text) for text in found['recording']], np.uint64)
    if skipped:
        logging.warning('blocklist %s: %d entries name no recording.', path, skipped)
    return Blocklist(
        str(path), Hashes.of(hashes), frozenset(found['id']), frozenset(found['stem']), skipped
    )


def _lines(path: pathlib.Path, text: str) -> Blocklist:
    def entries() -> Iterator[tuple[str, str]]:
        for number, line in enumerate(text.split('\n'), start=1):
            line = line.strip()
            if line.startswith('"'):
                yield 'either', _unquoted(path, number, line)
            elif line and not line.startswith('#'):
                yield 'either', line

    return _blocklist(path, entries())


def _quoted(text: str) -> str:
    plain = text == text.strip() and text.isprintable() and not text.startswith(('#', '"'))
    return text if plain and text else json.dumps(text, ensure_ascii=True)


def _unquoted(path: pathlib.Path, number: int, line: str) -> str:
    value = json_text.parse(line, f'{path}, line {number}')
    if not isinstance(value, str):
        raise ConfigError(f'{path}, line {number}: expected one JSON string.')
    return value


def _wavcaps(path: pathlib.Path, text: str) -> Blocklist:
    content = json_text.parse(text, f'blocklist {path}')
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise ConfigError(f'blocklist {path}: expected {{"AudioSet": [ids], "FreeSound": [ids]}}.')
    for key in content:
        if key not in _WAVCAPS:
            hint = did_you_mean(key, list(_WAVCAPS))
            raise ConfigError(f'blocklist {path}: collection {key!r} is unknown. {hint}')
    return _blocklist(
        path,
        (_at(_WAVCAPS[key], str(value)) for key, values in content.items() for value in values),
    )


def _csv(path: pathlib.Path, text: str) -> Blocklist:
    rows = csv.DictReader(io.StringIO(text, newline=''))
    columns = rows.fieldnames or []
    if 'file_name' in columns:
        collection = path.stem.split('_in_')[0]
        site = _SURVEY.get(collection, '')
        return _blocklist(path, (_at(site, row['file_name'] or '') for row in rows))
    if 'id' not in columns:
        raise ConfigError(
            f"blocklist {path}: there is no column 'id' or 'file_name'; found {columns}."
        )
    return _blocklist(path, (_aac(row['id'] or '') for row in rows))


def _aac(value: str) -> tuple[str, str]:
    if _NUMBER.fullmatch(value):
        return 'recording', freesound(value)
    if value.lower() in _ABSENT:
        return 'nothing', value
    if value.startswith('Y') and value.endswith('.wav'):
        return _at('youtube', value)
    return 'either', value


def _at(site: str, value: str) -> tuple[str, str]:
    """The recording a file of a site is, or its name where the site is not known."""
    stem = re.sub(_EXTENSION, '', value.rsplit('/', 1)[-1])
    if value.lower() in _ABSENT:
        return 'nothing', value
    if site == 'youtube' and (video := youtube_id(value)):
        return 'recording', youtube(video)
    if site == 'freesound' and _NUMBER.fullmatch(stem):
        return 'recording', freesound(stem)
    if site == 'bbc':
        return 'recording', bbc(stem)
    if site == 'soundbible':
        return 'recording', f'soundbible/{stem}'
    return 'stem', stem
