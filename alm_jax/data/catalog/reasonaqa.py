"""ReasonAQA: questions that need reasoning, on one clip or two of AudioCaps and Clotho.

Rows about the same clip, or the same two in the same order, are one record, each row a dialogue;
the clips of a pair come before the question, in order (see manifests.py). Rows without an answer
ask for the captions that they carry, and are answered from these as Mellow's loader does.
The collection (audiocaps or clothov21) is the package.
"""

from collections.abc import Iterator

from alm_jax.data.catalog import manifests
from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
_CAPTIONS = {
    'caption both audios': ('caption1', 'caption2'),
    'caption first audio': ('caption1',),
    'caption second audio': ('caption2',),
}


def _items(files: Files, config: str) -> Iterator[Item]:
    records = manifests.Records(files)
    for name, split in _SPLITS.items():
        for _, row in files.json_rows(f'{name}.json'):
            turns = [(row.text('input'), row.text('answer', '') or _described(row))]
            records.add(
                row, split, row.text('taskname'), row.texts('filepath1', 'filepath2'), turns
            )
    yield from records.items()


def _described(row: Row) -> str:
    columns = _CAPTIONS.get(row.text('input'), ())
    said = (f'Audio {column[-1]}: {row.text(column).rstrip(".")}.' for column in columns)
    return ' '.join(said)


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
)
