"""Which recording a path in somebody's manifest is: the recording_id its own corpus gives it.

Instruction sets are made over other corpora and name their files. Records that were cut from one
recording must have one recording_id in all data sets, or a leak between them is not seen.
"""

import pathlib
import re

from alm_jax.data.catalog.declaration import bbc, freesound, youtube, youtube_id

# Files whose names alone say what they are.
_BY_NAME = (
    (re.compile(r'\d+-\d+-\d{4}$'), 'librispeech/{}'),
    (re.compile(r'\d{4}_[A-Z]{3}_[A-Z]{3}_(?:LO|MD|HI|XX?)$'), 'crema_d/{}'),
    (re.compile(r'03(?:-\d\d){6}$'), 'ravdess/{}'),
    (re.compile(r'[a-z_]+_(?:acoustic|electronic|synthetic)_\d{3}-\d{3}-\d{3}$'), 'nsynth/{}'),
    (re.compile(r'[a-z]+\.000\d\d$'), 'gtzan/{}'),
    (re.compile(r'[a-z_]+-[a-z]+-\d+-\d+-[a-z0-9]+$'), 'tau2019/{}'),
)
_ESC50 = re.compile(r'[1-5]-(\d+)-[A-Z]-\d+$')
_URBANSOUND8K = re.compile(r'(\d+)-\d-\d+-\d+$')
_BBC = re.compile(r'((?:NHU)?\d{8})(?:\D|$)')
_NUMBER = re.compile(r'(\d+)(?:\D|$)')
_ON_YOUTUBE = re.compile(r'audiocaps|audioset|youtube|vgg|musiccaps|(?<![a-z])as_')
_ON_FREESOUND = re.compile(r'freesound|fsd')


def recording_id(path: str, collection: str = '') -> str:
    """The recording_id of an audio file.

    Args:
      path: of the file, as a manifest names it. Its folders say which corpus it is from.
      collection: what else is known of that, such as the manifest's name ('AudioSet_SL'); without
        any hint the recording is '<collection or parent folder>/<file name without its ending>'.
    """
    file = pathlib.PurePosixPath(path.replace('\\', '/'))
    stem, folder = file.stem, (collection or file.parent.name or 'unknown')
    for pattern, template in _BY_NAME:
        if pattern.match(stem):
            return template.format(stem)
    hints = f'{collection}/{file.parent}'.lower()
    if 'esc' in hints and (match := _ESC50.match(stem)):
        return freesound(match[1])
    if 'urbansound' in hints and (match := _URBANSOUND8K.match(stem)):
        return freesound(match[1])
    if 'bbc' in hints and (match := _BBC.match(stem)):
        return bbc(match[1])
    if 'clotho' in hints:
        return f'clotho/{stem}.wav'  # as data/catalog/clotho.py calls what has no upload
    if _ON_FREESOUND.search(hints) and (match := _NUMBER.match(stem)):
        return freesound(match[1])
    if _ON_YOUTUBE.search(hints) and (video := youtube_id(file.name)):
        return youtube(video)
    return f'{folder.lower()}/{stem}'
