"""How configs and binaries name data of one's own: as an entry of config.data.train, or as text.

  {'folder': DIR, 'captions': 'my.csv', 'split': 'train'}   'folder:DIR?captions=my.csv&split=train'
  {'tars': 'shards/{000..099}.tar', 'split': 'train'}       'tars:shards/{000..099}.tar?split=train'
  {'parquet': 'data/*.parquet', 'caption': 'title'}         'parquet:data/*.parquet?caption=title'
  {'tree': DIR}                                             'tree:DIR'

Without 'split' all records are meant.
"""

import os
import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data.inputs import listing, manifest, parquet, tars, tree
from alm_jax.data.mapped import Mapped

# What is opened -> by what, and the options it takes besides 'split'.
_KINDS = {
    'folder': (manifest.open_folder, ('captions', 'caption')),
    'tars': (tars.open_tars, ('caption', 'audio')),
    'parquet': (parquet.open_parquet, ('caption', 'audio')),
    'tree': (tree.open_tree, ('caption',)),
}
KINDS = tuple(_KINDS)
OPTIONS = ('captions', 'caption', 'audio', 'split')


def is_own_data(name: str) -> bool:
    """Whether a name is that of data of one's own: 'tars:shards/*.tar' is."""
    return str(name).partition(':')[0] in KINDS


def parsed(name: str) -> dict[str, str]:
    """The entry that a name stands for. Raises ConfigError for an unknown option."""
    kind, _, rest = name.partition(':')
    path, mark, query = rest.rpartition('?')
    if not mark or '=' not in query:  # a wildcard
        path, query = rest, ''
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    _check(kind, options, f'{name!r}: option')
    return {kind: path, **options}


def name_of(entry: Mapping[str, Any], split: str) -> str:
    """The name of an entry's data, of the catalog or one's own, in another split.

    Raises:
      ConfigError: a list of patterns, which has no name.
    """
    if is_own_data(entry.get('name', '')):
        entry = parsed(entry['name'])
    kind = next((key for key in KINDS if entry.get(key)), '')
    if not kind:
        return f'{entry["name"].partition(":")[0]}:{split}'
    if not isinstance(entry[kind], str | os.PathLike):
        raise ConfigError(f'{kind} {entry[kind]!r} has no name; give one pattern.')
    options = {key: entry[key] for key in OPTIONS if entry.get(key)} | {'split': split}
    options = {k: v if isinstance(v, str) else ','.join(v) for k, v in options.items()}
    return f'{kind}:{entry[kind]}?{urllib.parse.urlencode(options)}'


def opened(
    kind: str, entry: Mapping[str, Any], data_dir: pathlib.Path
) -> tuple[str, listing.Listed, Mapped | np.ndarray | None]:
    """(title, reader, the reader's rows that are in the split, None for all).

    Raises:
      ConfigError: see the functions that open; an option that the kind has not, no record in the
        split.
    """
    if kind == 'folder' and not entry.get('captions'):
        raise ConfigError(
            f'folder {str(entry[kind])!r} needs captions: a CSV or JSONL manifest. Without one, '
            "open it as 'tree'."
        )
    given = {key: entry[key] for key in OPTIONS if entry.get(key)}
    _check(kind, given, f'dataset entry with {kind!r}: key')
    split = given.pop('split', '')
    open_kind, _ = _KINDS[kind]
    reader = open_kind(entry[kind], listing.folder(data_dir), **given)
    title = str(entry.get('captions') or f'{kind}:{entry[kind]}')
    try:
        return title, reader, reader.listing.rows(split)
    except ConfigError as error:
        raise ConfigError(f'{title}: {error}') from error


def _check(kind: str, options: Iterable[str], what: str) -> None:
    valid = (*_KINDS[kind][1], 'split')
    for key in options:
        if key not in valid:
            raise ConfigError(f'{what} {key!r} is unknown. {did_you_mean(key, valid)}')
