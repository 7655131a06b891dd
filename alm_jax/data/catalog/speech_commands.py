"""Speech Commands v0.02: 105,829 utterances of 35 words by 2,618 speakers, one second, 16 kHz.

The two lists of the distribution say what is validation and test; all other utterances are train.
A speaker (the hash before ``_nohash_``) is in one split only. The six long recordings of
``_background_noise_`` are split 'noise', for mixing under others.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files

_ADDRESS = 'http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz'
_NOISE = '_background_noise_'
_LISTS = {'validation': 'validation_list.txt', 'test': 'testing_list.txt'}


def _items(files: Files, config: str) -> Iterator[Item]:
    listed = {
        name: split
        for split, file in _LISTS.items()
        for name in files.lines(file, f'speech_commands_v0.02/{file}')
    }
    for path in files.files('*/*.wav'):
        word, file = path.split('/')[-2:]
        name = f'{word}/{file}'
        audio = (files.audio(path),)
        if word == _NOISE:
            yield Item('noise', name, audio, {'kind': 'sound', 'language': ''})
        else:
            yield _utterance(listed.pop(name, 'train'), name, audio)
    for name, split in listed.items():
        yield _utterance(split, name, ())


def _utterance(split: str, name: str, audio: tuple) -> Item:
    word, _, file = name.partition('/')
    speaker = file.partition('_nohash_')[0]
    fields = {'label': word, 'transcript': word, 'group': f'speech_commands/{speaker}'}
    return Item(split, name, audio, fields)


DATASET = Dataset(
    name='speech_commands',
    version='1.0.0',
    title='Speech Commands v0.02',
    homepage='https://arxiv.org/abs/1804.03209',
    licence='CC-BY-4.0',
    provenance='human',
    layout=(
        'speech_commands_v0.02.tar.gz, or what it holds: WORD/SPEAKER_nohash_N.wav,\n'
        '_background_noise_/*.wav, validation_list.txt, testing_list.txt\n'
        f'from {_ADDRESS}'
    ),
    items=_items,
    downloads=lambda config: {_ADDRESS.rsplit('/', 1)[1]: _ADDRESS},
    language='en',
    kind='speech',
)
