"""What a user's columns and keys say of a recording, as fields of a record."""

import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alm_jax import json_text
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import record
from alm_jax.data.catalog import rows
from alm_jax.data.catalog.rows import Row

SPLITS = ('train', 'validation', 'test')
NO_CAPTION = 'none'  # caption=none: records without text, as noises and impulse responses are
# Field -> the names under which it is looked for, best first. 'txt' and 'cls' are members of tars.
NAMES = {
    'label': ('label', 'class', 'category', 'cls'),
    'language': ('language', 'lang'),
    'kind': ('kind',),
    'split': ('split',),
    'recording_id': ('recording_id',),
    'group': ('group',),
    'licence': ('licence', 'license'),
    'provenance': ('provenance',),
    'author': ('author', 'username'),
    'transcript': ('transcript', 'transcription'),
    'source': ('source', 'url'),
}
_TAGS = ('tags', 'tag', 'keywords', 'labels')
_TURN = ('question', 'answer')
_IDS = {'youtube_id': 'youtube', 'ytid': 'youtube', 'freesound_id': 'freesound'}
_CAPTION = re.compile(r'captions?$|caption_?\d+$')
_TEXT = ('text', 'texts', 'txt')
_SPLIT_NAMES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(('valid', 'val', 'dev'), 'validation'),
    **dict.fromkeys(('eval', 'evaluation'), 'test'),
}
_PARTS = ('data', 'shards', 'tars', 'audio', 'wav', 'default')  # folders that say nothing
_LEADING_WORD = re.compile(r'([a-z]+)(?=[-_.\d])', re.IGNORECASE)


def is_known(name: str, caption: Sequence[str] = ()) -> bool:
    """Whether a column or key of this name is read."""
    known = (*_TAGS, *_TURN, *_IDS, *_TEXT, *record.STRUCTURES)
    known += tuple(other for names in NAMES.values() for other in names)
    wanted = [path.split('.')[0] for path in caption]
    return name in known or name in caption or name in wanted or bool(_CAPTION.match(name))


def caption_columns(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that hold captions, in their order; a label may stand in for none."""
    names = list(names)
    found = sorted(filter(_CAPTION.match, names), key=lambda name: (len(name), name))
    return found or [name for name in _TEXT if name in names][:1]


def described(row: Row, caption: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a record that a row of metadata gives, and its 'split'.

    Args:
      row: cells by column; of a JSON object, nested ones are reached as 'original_data.title'.
      caption: columns of the captions; by default ``caption``, ``captions``, ``caption_1`` ..., or
        else ``text``; where there is none of them, the label is the caption. ('none',) is none.

    Raises:
      ConfigError: a cell of the wrong type, a split or provenance that does not exist.
    """
    found: dict[str, Any] = {}
    for field, names in NAMES.items():
        name = next((name for name in names if _filled(row, name)), '')
        if name:
            found[field] = row.text(name)
    for name, site in _IDS.items():
        if _filled(row, name) and 'recording_id' not in found:
            found['recording_id'] = f'{site}/{row.text(name)}'
    found['captions'] = _captions(row, caption, found.get('label', ''))
    if tags := [tag for name in _TAGS if _filled(row, name) for tag in _tags(row, name)]:
        found['tags'] = list(dict.fromkeys(tags))
    if all(_filled(row, name) for name in _TURN):
        found['turns'] = [{**record.TURN, **{name: row.text(name) for name in _TURN}}]
    for name, template in record.STRUCTURES.items():
        if _filled(row, name):
            found[name] = _structures(row, name, template)
    if split := found.get('split'):
        found['split'] = _SPLIT_NAMES.get(split.lower(), '')
        if not found['split']:
            raise ConfigError(f"{row.where}: 'split' is {split!r}. {did_you_mean(split, SPLITS)}")
    made = found.get('provenance', 'human')
    if not made.startswith(record.PROVENANCES):
        raise row.error('provenance', f'expected one of {", ".join(record.PROVENANCES)}')
    return found


def completed(
    found: Mapping[str, Any],
    *,
    id: str,
    package: str,
    source: str,
    size: tuple[int, int],
    name: str = '',
) -> tuple[dict[str, Any], str]:
    """(the fields of a record that are not at their default, its split).

    Args:
      found: from ``described``; its 'split' wins over the hash.
      id: unique in the dataset.
      package: the collection.
      source: where the audio is, for messages.
      size: (samples, rate in Hz).
      name: of the recording in its collection, when it lasts longer than ``id``.
    """
    fields = {'kind': 'sound', 'package': package, 'source': source, **found, 'id': id}
    split = fields.pop('split', '')
    split = split or split_for(found, name or id)
    fields.setdefault('recording_id', f'{package}/{id}')
    fields.setdefault('group', fields['recording_id'])
    samples, rate = size
    sizes = {'num_samples': samples, 'rate': rate, 'duration': samples / rate}
    return {name: value for name, value in (fields | sizes).items() if value}, split


def split_for(found: Mapping[str, Any], name: str) -> str:
    """The split of what ``described`` found, of a recording with this name in its collection."""
    # Of the name in the collection, so that moving or renaming it moves no record.
    own = found.get('group') or found.get('recording_id') or name
    return found.get('split') or record.split_by_hash(own)


def split_of(path: pathlib.PurePath) -> str:
    """The split that a file's name ('train-00000.tar') or its folder ('train/') says, or ''."""
    word = _LEADING_WORD.match(path.name)
    named = _SPLIT_NAMES.get(word[1].lower(), '') if word else ''
    return named or split_named(path.parent.name)


def collection(folder: pathlib.PurePath) -> str:
    """What a folder's records are a collection of: its name, or that of what it is a part of."""
    names = [n for n in folder.parts[1:] if not split_named(n) and n not in _PARTS]
    return names[-1] if names else folder.name


def split_named(folder: str) -> str:
    """The split that a folder's name stands for, '' when none."""
    return _SPLIT_NAMES.get(folder.lower(), '')


def words(label: str) -> str:
    """A class name as text: 'dog_bark' is 'dog bark'."""
    return ' '.join(label.replace('_', ' ').split())


def as_columns(caption: str | Sequence[str]) -> tuple[str, ...]:
    """The option ``caption`` of an entry: 'title,description', or a sequence of names."""
    names = caption.split(',') if isinstance(caption, str) else caption
    return tuple(name.strip() for name in names if name.strip())


def keys_of(row: Row) -> str:
    """' (has title, url)', for messages about a record without captions; '' when it has no key."""
    return f' (has {", ".join(map(str, row))})' if row else ''


def load_json(content: bytes, where: str) -> Row:
    """The object of a JSON file. Raises ConfigError when it is none."""
    value = json_text.parse_object(content, where)
    return Row(rows.whole_text(value, content), where)


def load_lines(content: bytes, where: str) -> list[str]:
    """The lines of a text file that are not empty: one text each."""
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ConfigError(f'{where}: not UTF-8 text ({error}).') from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _filled(row: Row, name: str) -> bool:
    return row.get(name) not in (None, '', [], ())


def _captions(row: Row, caption: Sequence[str], label: str) -> list[str]:
    if tuple(caption) == (NO_CAPTION,):
        return []
    names = [name for name in caption if _at(row, name) is not None]
    columns = caption_columns(row)
    if not caption and not columns:
        return [words(label)] if label and not label.isdigit() else []
    texts = []
    for name in names if caption else columns:
        value = _at(row, name)
        for text in value if isinstance(value, list | tuple) else [value]:
            if text is not None and not isinstance(text, str):
                raise ConfigError(
                    f'{row.where}: column {name!r} is {value!r:.200}; expected text or a list.'
                )
            texts.append((text or '').strip())
    return list(dict.fromkeys(filter(None, texts)))


def _at(row: Mapping[str, Any], path: str) -> Any:
    """A cell, or one of an object in a cell: 'original_data.title'."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split('.'):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _tags(row: Row, name: str) -> list[str]:
    value = row[name]
    parts = re.split('[,;]', value) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(p, str | int) for p in parts):
        raise row.error(name, 'expected a list, or text with commas')
    return [text for part in parts if (text := str(part).strip())]


def _structures(row: Row, name: str, template: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The turns or times of a record."""
    made = []
    for part in row.rows(name):
        values = {key: part.get(key, default) for key, default in template.items()}
        for key, default in template.items():
            kind = (int, float) if isinstance(default, int | float) else str
            if not isinstance(values[key], kind) or isinstance(values[key], bool):
                raise ConfigError(f'{part.where}: {key!r} is {values[key]!r}.')
        made.append(values)
    return made
