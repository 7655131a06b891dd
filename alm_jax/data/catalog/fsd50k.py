"""FSD50K: 51,197 clips of Freesound with labels of the AudioSet ontology, by people.

``tags`` are the labels, parents included. Config ``described`` adds the uploader's title and
description as a caption, as in the pretraining of several CLAP models; its text is from the web.
"""

from collections.abc import Iterator
from typing import Any

from alm_jax.data.catalog.declaration import Dataset, Item, freesound, licence_name, words
from alm_jax.data.catalog.files import Files

_SPLITS = {'train': 'train', 'val': 'validation'}


def _items(files: Files, config: str) -> Iterator[Item]:
    for part in ('dev', 'eval'):
        info = files.json(f'FSD50K.metadata/{part}_clips_info_FSD50K.json')
        table = f'FSD50K.ground_truth/{part}.csv'
        for row in files.csv(table, required=('fname', 'labels', 'mids')):
            number = row.text('fname')
            clip = files.audio(f'{number}.wav', f'FSD50K.{part}_audio')
            fields = {
                'tags': [label.replace('_', ' ') for label in words(row.text('labels'))],
                'recording_id': freesound(number),
                **_described(info.get(number, {}), config),
            }
            split = 'test' if part == 'eval' else _SPLITS.get(row.text('split'))
            if split is None:
                raise row.error('split', 'expected train or val')
            yield Item(split, number, (clip,) if clip else (), fields)


def _described(info: dict[str, Any], config: str) -> dict[str, Any]:
    fields = {
        'licence': licence_name(info.get('license', '')),
        'author': info.get('uploader', ''),
    }
    if config == 'described':
        title = info.get('title', '').rsplit('.', 1)[0].replace('_', ' ').strip()
        caption = ': '.join(filter(None, (title, ' '.join(info.get('description', '').split()))))
        fields |= {'captions': [caption] if caption else [], 'provenance': 'web'}
    return {name: value for name, value in fields.items() if value}


DATASET = Dataset(
    name='fsd50k',
    version='1.0.0',
    title='FSD50K',
    homepage='https://zenodo.org/records/4060432',
    licence='CC-BY-4.0 as a whole; each clip under its own Creative Commons licence',
    provenance='human',
    layout="""FSD50K.ground_truth/{dev,eval}.csv  or FSD50K.ground_truth.zip, from the homepage
FSD50K.metadata/{dev,eval}_clips_info_FSD50K.json  or FSD50K.metadata.zip
FSD50K.dev_audio/*.wav, FSD50K.eval_audio/*.wav  7z x FSD50K.dev_audio.zip unpacks all its parts""",
    items=_items,
    configs=('labels', 'described'),
)
