"""LAION-Audio-630K: its parts that come with audio, Freesound and BBC, as WebDataset tars.

A sample is N.flac beside N.json {text, tag, original_data}. The parts that come as tables of
addresses are ``laion_audio_630k_tables``; four parts that LAION bought are not public.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, freesound, licence_name
from alm_jax.data.catalog.files import Files


def _items(files: Files, config: str) -> Iterator[Item]:
    licences = _licences(files, f'{config}_meta.csv')
    for key, row, clip in files.samples(config):  # key is 'train_1/0/2394': folder, tar, file
        about = row.get('original_data', {})
        number = about.get('id')
        # An empty description has become the caption '.'.
        captions = [text for text in row.texts('text') if any(map(str.isalnum, text))]
        yield Item(
            split={'test': 'test', 'valid': 'validation'}.get(key.split('/')[0], 'train'),
            id=key,
            audio=(clip,) if clip else (),
            fields={
                'captions': captions,
                'tags': row.texts('tag') if 'tag' in row else [],
                'author': str(about.get('username', '')),
                'recording_id': '' if number is None else freesound(number),
                'licence': licences.get(number, DATASET.licence),
            },
        )


def _licences(files: Files, table: str) -> dict[int, str]:
    """Freesound number -> licence."""
    if not files.has(table):
        return {}
    rows = files.csv(table, required=('freesound_id', 'license'))
    return {int(row.number('freesound_id')): licence_name(row.text('license')) for row in rows}


DATASET = Dataset(
    name='laion_audio_630k',
    version='1.0.0',
    title='LAION-Audio-630K',
    homepage='https://github.com/LAION-AI/audio-dataset/tree/main/laion-audio-630k',
    licence='research only; Freesound clips each under its Creative Commons licence',
    provenance='web',
    layout="""From huggingface.co/datasets/Meranti/CLAP_freesound:
freesound_no_overlap/{train_1,train_2,test}/N.tar (or freesound/..., or bbc/{train,test})
freesound_no_overlap_meta.csv  licence of every clip; may be left out""",
    items=_items,
    configs=('freesound_no_overlap', 'freesound', 'bbc'),
)
