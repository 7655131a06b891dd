"""Clotho v2.1: sounds of Freesound, 15 to 30 s, with five captions each.

The official development, validation and evaluation are train, validation and test.
"""

from collections.abc import Iterator
from typing import Any

from alm_jax.data.catalog.declaration import Dataset, Item, freesound, licence_name, words
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_SPLITS = {'development': 'train', 'validation': 'validation', 'evaluation': 'test'}
_CAPTIONS = tuple(f'caption_{number}' for number in range(1, 6))


def _items(files: Files, config: str) -> Iterator[Item]:
    for name, split in _SPLITS.items():
        metadata = files.csv(
            f'clotho_metadata_{name}.csv', encoding='iso-8859-1', required=('file_name', 'sound_id')
        )
        known = {row.text('file_name'): _metadata(row) for row in metadata}
        for row in files.csv(f'clotho_captions_{name}.csv', required=('file_name', *_CAPTIONS)):
            file = row.text('file_name')
            clip = files.audio(file, name, f'clotho_audio_{name}', f'clotho_audio_{name}/{name}')
            fields = {**known.get(file, {}), 'captions': row.texts(*_CAPTIONS)}
            yield Item(split, file, (clip,) if clip else (), fields)


def _metadata(row: Row) -> dict[str, Any]:
    fields = {
        'tags': words(row.text('keywords'), ';'),
        'author': row.text('manufacturer'),
        'source': row.text('sound_link'),
        'licence': licence_name(row.text('license')),
    }
    if row.text('sound_id').isdecimal():  # some are 'Not found'
        fields['recording_id'] = freesound(row.text('sound_id'))
    return fields


DATASET = Dataset(
    name='clotho',
    version='1.0.0',
    title='Clotho v2.1',
    homepage='https://zenodo.org/records/4783391',
    licence='Tampere University: non-commercial (captions); each sound under its own licence',
    provenance='human',
    layout="""clotho_captions_{development,validation,evaluation}.csv  from the homepage
clotho_metadata_{development,validation,evaluation}.csv
{development,validation,evaluation}/*.wav  what 7z x clotho_audio_*.7z unpacks""",
    items=_items,
)
