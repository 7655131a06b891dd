"""DAQA: questions from templates about sequences of sounds that were put together, 100,000 clips.

All questions about a clip are turns of one record, each a dialogue.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, turn
from alm_jax.data.catalog.files import Files

_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}


def _items(files: Files, config: str) -> Iterator[Item]:
    for name, split in _SPLITS.items():
        table = f'daqa_{name}_questions_answers'
        asked: dict[str, list[dict]] = {}
        for _, row in files.json_rows(f'{table}.json', f'{table}_5.json', key='questions'):
            if row.text('set') != name:
                raise row.error('set', f'expected {name}')
            turns = asked.setdefault(row.text('audio_filename'), [])
            turns.append(turn(row.text('question'), row.text('answer'), len(turns)))
        for file, turns in asked.items():
            clip = files.audio(file, f'audio/{name}', name, 'audio')
            yield Item(split, f'{split}/{file}', (clip,) if clip else (), {'turns': turns})


DATASET = Dataset(
    name='daqa',
    version='1.0.0',
    title='Diagnostic Audio Question Answering',
    homepage='https://github.com/facebookresearch/daqa',
    licence='CC-BY-4.0 (code and questions); events from AudioSet and recordings',
    provenance='generated: templates',
    layout='daqa_train_questions_answers_5.json, daqa_val_questions_answers.json,\n'
    'daqa_test_questions_answers.json and audio/{train,val,test}/*.wav, as the scripts of\n'
    'https://github.com/facebookresearch/daqa make them',
    items=_items,
)
