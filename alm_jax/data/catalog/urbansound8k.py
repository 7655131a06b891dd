"""UrbanSound8K: 8,732 slices of up to 4 s in 10 classes, cut from Freesound.

As with ESC-50, all slices are split 'test' and the ten official folds are the ``group``. Slices of
one recording share a fold; scores on any other partition are not comparable.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, freesound
from alm_jax.data.catalog.files import Files

_SALIENCE = {'1': 'foreground', '2': 'background'}
_COLUMNS = ('slice_file_name', 'fsID', 'salience', 'fold', 'class')


def _items(files: Files, config: str) -> Iterator[Item]:
    for row in files.csv('metadata/UrbanSound8K.csv', required=_COLUMNS):
        name, fold = row.text('slice_file_name'), f'fold{row.text("fold")}'
        clip = files.audio(name, f'audio/{fold}')
        if row['salience'] not in _SALIENCE:
            raise row.error('salience', 'expected 1 or 2')
        yield Item(
            split='test',
            id=name,
            audio=(clip,) if clip else (),
            fields={
                'label': row.text('class').replace('_', ' '),
                'tags': [_SALIENCE[row['salience']]],
                'recording_id': freesound(row.text('fsID')),
                'group': fold,
            },
        )


DATASET = Dataset(
    name='urbansound8k',
    version='1.0.0',
    title='UrbanSound8K',
    homepage='https://urbansounddataset.weebly.com/urbansound8k.html',
    licence='CC-BY-NC-3.0',
    provenance='human',
    layout="""UrbanSound8K.tar.gz (zenodo.org/record/1203745), or unpacked:
  metadata/UrbanSound8K.csv
  audio/fold1 ... audio/fold10/*.wav""",
    items=_items,
)
