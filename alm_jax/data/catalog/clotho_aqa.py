"""Clotho-AQA: 1,991 clips of Clotho, six questions on each, three answers to each question.

Config ``all``: every answer is a turn, a dialogue of its own. ``unanimous``: one turn for each
question on which all three agree (but for case), the subset that most papers report. ``majority``:
where two do. Clips that are left without a question are left out.
"""

import collections
import re
from collections.abc import Iterator, Sequence

from alm_jax.data.catalog.declaration import Dataset, Item, freesound, licence_name, turn, words
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
# As the questions spell a file -> as the archive does. Of another the metadata has '18_44'.
_AUDIO = {'souffle_me_tallique.wav': 'souffle_me.tallique.wav'}


def _items(files: Files, config: str) -> Iterator[Item]:
    table = files.csv('clotho_aqa_metadata.csv', required=('file_name', 'sound_link'))
    known = {row['file_name'].replace('18_44', '18.44'): _described(row) for row in table}
    for name, split in _SPLITS.items():
        asked = collections.defaultdict(lambda: collections.defaultdict(list))
        for row in files.csv(f'clotho_aqa_{name}.csv', required=('QuestionText', 'answer')):
            asked[row['file_name']][row.text('QuestionText')].append(row.text('answer'))
        for file, questions in asked.items():
            pairs = [(q, answer) for q in questions for answer in _kept(questions[q], config)]
            clip = files.audio(_AUDIO.get(file, file), 'audio_files', '')
            if turns := [turn(*pair, number) for number, pair in enumerate(pairs)]:
                fields = {'recording_id': f'clotho/{file}', **known.get(file, {}), 'turns': turns}
                yield Item(split, file, (clip,) if clip else (), fields)


def _described(row: Row) -> dict[str, object]:
    fields = {'tags': words(row.text('keywords'), ';'), 'author': row.text('manufacturer')}
    if upload := re.search(r'/sounds?/(\d+)', row.text('sound_link')):
        fields['recording_id'] = freesound(upload[1])
    return fields | ({'licence': licence_name(row.text('license'))} if row.text('license') else {})


def _kept(answers: Sequence[str], config: str) -> Sequence[str]:
    counted = collections.Counter(map(str.casefold, answers))
    answer = max(answers, key=lambda answer: counted[answer.casefold()])
    needed = len(answers) if config == 'unanimous' else len(answers) // 2 + 1
    return answers if config == 'all' else [answer] * (counted[answer.casefold()] >= needed)


DATASET = Dataset(
    name='clotho_aqa',
    version='1.0.0',
    title='Clotho-AQA',
    homepage='https://zenodo.org/records/6473207',
    licence='MIT (questions and answers); sounds as their Freesound uploads',
    provenance='human',
    layout='clotho_aqa_{train,val,test,metadata}.csv, audio_files.zip or what it holds',
    items=_items,
    configs=('all', 'unanimous', 'majority'),
)
