"""Song Describer: captions of 706 tracks of MTG-Jamendo, one or more a track, for evaluation.

'full' takes all 1,106 captions; 'valid' those 746 that listeners confirmed.
"""

import re
from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, licence_name
from alm_jax.data.catalog.files import Files

_COLUMNS = ('track_id', 'caption', 'is_valid_subset', 'path')
_TRACK = re.compile(r'(?:\d+/)?(\d+)(?:\.\w+)?\.mp3$')
_TERMS = re.compile(r'license: (\S+)$')


def _items(files: Files, config: str) -> Iterator[Item]:
    licences = _licences(files)
    tracks: dict[str, Item] = {}
    for row in files.csv('song_describer.csv', required=_COLUMNS):
        number = row.text('track_id')
        if config == 'valid' and row['is_valid_subset'] != 'True':
            continue
        if number not in tracks:
            # The table names the whole track; the two minutes that are shipped are '.2min.mp3'.
            name = row.text('path').removesuffix('.mp3') + '.2min.mp3'
            clip = files.audio(name, 'audio', 'audio/audio')
            fields = {'captions': [], 'recording_id': f'jamendo/{number}'}
            fields['licence'] = licences.get(number, DATASET.licence)
            tracks[number] = Item('test', number, (clip,) if clip else (), fields)
        tracks[number].fields['captions'].extend(row.texts('caption'))
    yield from tracks.values()


def _licences(files: Files) -> dict[str, str]:
    """Track -> its licence, from lines of a path, a credit and the terms."""
    found, track = {}, None
    for line in files.lines('audio_licenses.txt') if files.has('audio_licenses.txt') else ():
        if path := _TRACK.match(line):
            track = path[1]
        elif track and (terms := _TERMS.search(line)):
            found[track] = licence_name(terms[1])
    return found


DATASET = Dataset(
    name='song_describer',
    version='1.0.0',
    title='Song Describer Dataset',
    homepage='https://github.com/mulab-mir/song-describer-dataset',
    licence='CC-BY-SA-4.0 (captions); audio under the Creative Commons licence of each track',
    provenance='human',
    layout="""From zenodo.org/record/10072001:
song_describer.csv
audio_licenses.txt  the licence of every track; may be left out
audio.zip, or audio/NN/TRACK.2min.mp3""",
    items=_items,
    configs=('full', 'valid'),
    kind='music',
)
