"""CompA-R: instructions that need reasoning about sounds of AudioSet, and CompA-R-test.

Rows about one clip are one record, each row a dialogue. The training answers are GPT-4's, those of
the test set are checked by people. There is no validation split.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, turn, youtube, youtube_id
from alm_jax.data.catalog.files import Files

_SPLITS = {
    'train': ('CompA-R.json', 'generated: GPT-4'),
    'test': ('CompA-R-test.json', 'human'),
}


def _items(files: Files, config: str) -> Iterator[Item]:
    for split, (file, provenance) in _SPLITS.items():
        asked: dict[str, list[tuple[str, str]]] = {}
        for _, row in files.json_rows(file):
            name = row.text('audio_id').rsplit('/', 1)[-1]
            for part in row.rows('instruction_output') if 'instruction_output' in row else [row]:
                pair = (part.text('instruction'), part.text('output'))
                asked.setdefault(name, []).append(pair)
        for name, pairs in asked.items():
            folders = (f'compa_r_{split}_audios', split, '')
            clip = files.audio(name, *folders)
            fields = {'turns': [turn(*pair, number) for number, pair in enumerate(pairs)]}
            if video := youtube_id(name):
                fields['recording_id'] = youtube(video)
            fields['provenance'] = provenance
            yield Item(split, f'{split}/{name}', (clip,) if clip else (), fields)


DATASET = Dataset(
    name='compa_r',
    version='1.0.0',
    title='CompA-R and CompA-R-test',
    homepage='https://github.com/Sreyan88/GAMA',
    licence='not stated; audio: AudioSet videos',
    provenance='generated: GPT-4',
    layout='CompA-R.json, CompA-R-test.json, compa_r_train_audios/ and compa_r_test_audios/\n'
    'from the drive that https://github.com/Sreyan88/GAMA names',
    items=_items,
)
