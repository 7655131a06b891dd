"""CREMA-D: 91 actors say 12 sentences in 6 emotions, 7,442 clips. Label: the intended emotion.

No official split: a hash of the actor decides (68, 13 and 10 actors), so no speaker is in two.
The clip without sound and the one that holds all emotions of its sentence are split 'faulty'.
"""

import re
from collections.abc import Iterator

from alm_jax.data import record
from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files

_EMOTIONS = {'ANG': 'anger', 'DIS': 'disgust', 'FEA': 'fear', 'HAP': 'happiness'}
_EMOTIONS |= {'NEU': 'neutral', 'SAD': 'sadness'}
_LEVELS = {'LO': 'low intensity', 'MD': 'medium intensity', 'HI': 'high intensity'}
_SENTENCES = {
    **{'IEO': "It's eleven o'clock.", 'TIE': 'That is exactly what happened.'},
    **{'IOM': "I'm on my way to the meeting.", 'IWW': 'I wonder what this is about.'},
    **{'TAI': 'The airplane is almost full.', 'MTI': 'Maybe tomorrow it will be cold.'},
    **{'IWL': 'I would like a new alarm clock.', 'ITH': "I think I have a doctor's appointment."},
    **{'DFA': "Don't forget a jacket.", 'ITS': "I think I've seen this before."},
    **{'TSI': 'The surface is slick.', 'WSI': "We'll stop in a couple of minutes."},
}
_NAME = re.compile(rf'(\d{{4}})_({"|".join(_SENTENCES)})_({"|".join(_EMOTIONS)})_(LO|MD|HI|XX)')
_FAULTY = ('1076_MTI_SAD_XX', '1064_IEO_DIS_MD')
_FILES = {'1040_ITH_SAD_XX': '1040_ITH_SAD_X'}  # called otherwise than in the list


def _items(files: Files, config: str) -> Iterator[Item]:
    demographics = files.csv('VideoDemographics.csv', required=('ActorID', 'Sex'))
    sexes = {row.text('ActorID'): row.text('Sex').lower() for row in demographics}
    for row in files.csv('SentenceFilenames.csv', required=('Filename',)):
        name = row.text('Filename')
        if not (match := _NAME.fullmatch(name)):
            raise row.error('Filename', 'expected ACTOR_SENTENCE_EMOTION_LEVEL')
        actor, sentence, emotion, level = match.groups()
        clip = files.audio(f'{_FILES.get(name, name)}.wav', 'AudioWAV', 'AudioMP3')
        fields = {'label': _EMOTIONS[emotion], 'transcript': _SENTENCES[sentence]}
        fields['tags'] = [tag for tag in (_LEVELS.get(level), sexes.get(actor)) if tag]
        fields['group'] = f'crema_d/{actor}'
        split = 'faulty' if name in _FAULTY else record.split_by_hash(fields['group'])
        yield Item(split, name, (clip,) if clip else (), fields)


DATASET = Dataset(
    name='crema_d',
    version='1.0.0',
    title='CREMA-D',
    homepage='https://github.com/CheyneyComputerScience/CREMA-D',
    licence='ODbL-1.0 (database), DbCL-1.0 (contents)',
    provenance='human',
    layout='AudioWAV/*.wav (git lfs pull fetches them), SentenceFilenames.csv and\n'
    'VideoDemographics.csv from https://github.com/CheyneyComputerScience/CREMA-D',
    items=_items,
    language='en',
    kind='speech',
)
