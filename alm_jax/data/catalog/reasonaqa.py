"""ReasonAQA: questions that need reasoning, on one clip or two of AudioCaps and Clotho.

Rows about the same clip, or the same two in the same order, are one record, each row a dialogue;
the clips of a pair come before the question, in order (see manifests.py). Rows without an answer
ask for the captions that they carry, and are answered from these as Mellow's loader does. The
collection (audiocaps or clothov21) is the package. Clotho's metadata, where they are there, tell
which Freesound upload a clip is, and so which records of other sets are the same.
"""

import re
from collections.abc import Iterator

from alm_jax.data.catalog import manifests
from alm_jax.data.catalog.declaration import Dataset, Item, freesound
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
_CAPTIONS = {'caption first audio': ['caption1'], 'caption second audio': ['caption2']}
_CAPTIONS['caption both audios'] = ['caption1', 'caption2']


def _items(files: Files, config: str) -> Iterator[Item]:
    uploads = {}
    for part in ('development', 'validation', 'evaluation'):
        if files.has(table := f'clotho_metadata_{part}.csv'):
            for row in files.csv(table, encoding='iso-8859-1', required=('file_name', 'sound_id')):
                if row.text('sound_id').isdecimal():
                    uploads[row.text('file_name')] = freesound(row.text('sound_id'))
    for name, split in _SPLITS.items():
        for _, row in files.json_rows(f'{name}.json'):
            paths, package = row.texts('filepath1', 'filepath2'), row.text('taskname')
            turns = [(row.text('input'), row.text('answer', '') or _described(row))]
            found = uploads.get(re.split(r'[\\/]', paths[0])[-1]) if paths else None
            known = {'recording_id': found} if found else {}
            yield manifests.item(files, row, split, package, paths, turns, **known)


def _described(row: Row) -> str:
    columns = _CAPTIONS.get(row.text('input'), ())
    return ' '.join(f'Audio {name[-1]}: {row.text(name).rstrip(".")}.' for name in columns)


DATASET = Dataset(
    name='reasonaqa',
    version='1.0.0',
    title='ReasonAQA',
    homepage='https://github.com/soham97/mellow',
    licence='as Zenodo states for the text; audio as AudioCaps and Clotho',
    provenance='generated: language models over human captions',
    layout='train.json, val.json, test.json from https://zenodo.org/records/15036628, and the\n'
    'audio of AudioCaps and Clotho at their paths, such as AudioCapsLarger/test/Y*.wav',
    items=_items,
    joined=True,
)
