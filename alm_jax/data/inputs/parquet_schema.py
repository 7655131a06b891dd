"""Which column of a Parquet file is what."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from alm_jax import json_text
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data.inputs import fields


class Schema(NamedTuple):
    """The columns of a file that are read.

    Attributes:
      column: path of the bytes of the audio, such as 'audio.bytes'.
      path_of: (column, part) of the name beside the audio, or None.
      texts: columns of metadata.
      classes: class names of those of them that hold integer labels.
    """

    column: str
    path_of: tuple[str, str] | None
    texts: tuple[str, ...]
    classes: dict[str, list[str]]

    def columns(self) -> list[str]:
        """All but the audio."""
        return [*self.texts, *(['.'.join(self.path_of)] if self.path_of else [])]

    def cells(self, row: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """(metadata with class names for numbers, the name beside the audio) of a row."""
        name = ''
        if self.path_of:
            column, part = self.path_of
            name = (row.pop(column) or {}).get(part) or ''
        named = {column: _named(row[column], names) for column, names in self.classes.items()}
        return row | named, name


def read(path: pathlib.Path, caption: Sequence[str], audio: str) -> Schema:
    """Finds the columns.

    Args:
      path: of the file.
      caption, audio: columns that the user names, or empty.

    Raises:
      ConfigError: not a Parquet file, or a column is missing or could be several; lists them.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f'{path} cannot be read as Parquet: {error}') from error
    features = _features(schema)
    name = _audio_column(path, schema, features, audio)
    kind = schema.field(name).type
    in_struct = pa.types.is_struct(kind)
    has_path = in_struct and kind.get_field_index('path') >= 0
    others = [n for n in schema.names if n != name]
    texts = tuple(n for n in others if fields.is_known(n, caption))
    classes = {n: found for n in texts if (found := _class_names(features.get(n)))}
    if caption != (fields.NO_CAPTION,):
        _check_captions(path, schema, caption, others)
    return Schema(
        f'{name}.bytes' if in_struct else name, (name, 'path') if has_path else None, texts, classes
    )


def _check_captions(
    path: pathlib.Path, schema: pa.Schema, caption: Sequence[str], names: Sequence[str]
) -> None:
    for wanted in caption:
        if wanted not in names and wanted.split('.')[0] not in names:
            hint = did_you_mean(wanted, names)
            raise ConfigError(f'{path}: there is no column {wanted!r}. {hint}')
    labels = [name for name in fields.NAMES['label'] if name in names]
    if not caption and not fields.caption_columns(names) and not labels:
        raise ConfigError(
            f'{path}: no column of captions among {_listed(schema)}. Name it: caption=...; '
            f'caption={fields.NO_CAPTION} is audio without text.'
        )


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the datasets library notes of the columns."""
    try:
        noted = json_text.parse((schema.metadata or {}).get(b'huggingface', b'{}'), 'huggingface')
        return dict(noted.get('info', {}).get('features') or {})
    except (ValueError, AttributeError, TypeError):
        return {}


def _class_names(feature: Any) -> list[str]:
    """Those of a column of integers, or of lists of them."""
    while isinstance(feature, list | dict):
        if isinstance(feature, list):
            feature = feature[0] if feature else None
        elif 'names' in feature:
            return feature['names']
        else:
            feature = feature.get('feature')
    return []


def _named(value: Any, classes: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(part, classes) for part in value]
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else None


def _audio_column(path: pathlib.Path, schema: pa.Schema, features: dict, wanted: str) -> str:
    def holds_bytes(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind) and kind.get_field_index('bytes') >= 0:
            kind = kind.field('bytes').type
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    if wanted and wanted not in schema.names:
        raise ConfigError(
            f'{path}: there is no column {wanted!r}. {did_you_mean(wanted, schema.names)}'
        )
    able = [field.name for field in schema if holds_bytes(field.type)]
    noted = [n for n, f in features.items() if isinstance(f, dict) and f.get('_type') == 'Audio']
    found = [wanted] if wanted else [n for n in noted if n in schema.names] or able
    if not found or found[0] not in able:
        raise ConfigError(
            f'{path}: no column with the bytes of audio files (binary, or a struct with bytes) '
            f'among {_listed(schema)}.'
        )
    if len(found) > 1 and 'audio' not in found:
        raise ConfigError(f'{path}: audio may be in {", ".join(found)}; name one: audio=...')
    return 'audio' if len(found) > 1 else found[0]


def _listed(schema: pa.Schema) -> str:
    return ', '.join(f'{field.name} ({field.type})' for field in schema)
