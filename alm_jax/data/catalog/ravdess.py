"""RAVDESS, the audio-only part: 24 actors say (1,440 clips) or sing (1,012) two sentences.

The seven numbers of a file name are modality, channel, emotion, intensity, statement, repetition
and actor; odd actors are men. All clips that the design gives are expected, so missing ones are
known: no strong neutral, no song by actor 18, no sung disgust or surprise. There is no official
split: actors 1-20 are train, 21-22 validation, 23-24 test, a man and a woman each.
"""

import itertools
from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files

_EMOTIONS = ('neutral', 'calm', 'happy', 'sad', 'angry', 'fearful', 'disgust', 'surprised')
_INTENSITIES = ('normal intensity', 'strong intensity')
_STATEMENTS = ('Kids are talking by the door.', 'Dogs are sitting by the door.')
_CHANNELS = {'speech': (1,), 'song': (2,), 'all': (1, 2)}
_FOLDERS = {1: 'Audio_Speech_Actors_01-24', 2: 'Audio_Song_Actors_01-24'}


def _items(files: Files, config: str) -> Iterator[Item]:
    for channel in _CHANNELS[config]:
        emotions = range(1, 9 if channel == 1 else 7)
        takes = itertools.product(range(1, 25), emotions, (1, 2), (1, 2), (1, 2))
        for actor, emotion, intensity, statement, repetition in takes:
            if (emotion, intensity) == (1, 2) or (channel, actor) == (2, 18):
                continue
            numbers = (3, channel, emotion, intensity, statement, repetition, actor)
            name = '-'.join(f'{number:02d}' for number in numbers)
            path = f'Actor_{actor:02d}/{name}.wav'
            clip = files.audio(path, '', _FOLDERS[channel])
            tags = [_INTENSITIES[intensity - 1], 'male' if actor % 2 else 'female']
            fields = {
                'label': _EMOTIONS[emotion - 1],
                'transcript': _STATEMENTS[statement - 1],
                'tags': tags if channel == 1 else [*tags, 'singing'],
                'kind': 'speech' if channel == 1 else 'music',
                'group': f'ravdess/{actor:02d}',
            }
            split = 'train' if actor < 21 else 'validation' if actor < 23 else 'test'
            yield Item(split, name, (clip,) if clip else (), fields)


DATASET = Dataset(
    name='ravdess',
    version='1.0.0',
    title='RAVDESS (audio-only speech and song)',
    homepage='https://zenodo.org/records/1188976',
    licence='CC-BY-NC-SA-4.0',
    provenance='human',
    layout=(
        'Actor_NN/*.wav, or Audio_Speech_Actors_01-24.zip and (configs song, all)\n'
        'Audio_Song_Actors_01-24.zip, from https://zenodo.org/records/1188976'
    ),
    items=_items,
    configs=('speech', 'song', 'all'),
    language='en',
    kind='speech',
)
