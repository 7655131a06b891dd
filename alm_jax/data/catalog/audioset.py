"""AudioSet: 10 s clips of YouTube videos with labels of an ontology, by people.

Config ``full`` trains on the unbalanced and the balanced list, ``balanced`` on the latter, and
``strong`` on the clips whose events have times, with the labels of those. The official eval list is
split test. ``tags`` are the display names.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, time, words, youtube
from alm_jax.data.catalog.files import Files

_BALANCED = {'balanced_train': 'train', 'eval': 'test'}
_LISTS = {'full': {**_BALANCED, 'unbalanced_train': 'train'}, 'balanced': _BALANCED}
_COLUMNS = ('YTID', 'start_seconds', 'end_seconds', 'positive_labels')


def _items(files: Files, config: str) -> Iterator[Item]:
    for part, split in _LISTS.get(config, {'train': 'train', 'eval': 'test'}).items():
        for video, start, fields in (_weak if config in _LISTS else _strong)(files, part):
            folder = f'{part}_segments'
            clip = files.youtube(video, start, f'audio/{folder}', 'audio', folder)
            fields['recording_id'] = youtube(video)
            yield Item(split, f'{video}_{start:g}', (clip,) if clip else (), fields)


def _weak(files: Files, part: str) -> Iterator[tuple[str, float, dict]]:
    names = {row['mid']: row['display_name'] for row in files.csv('class_labels_indices.csv')}
    rows = files.csv(f'{part}_segments.csv', columns=_COLUMNS, comment='#', skip_spaces=True)
    for row in rows:
        tags = [names.get(mid, mid) for mid in words(row.text('positive_labels'))]
        yield row['YTID'], row.number('start_seconds'), {'tags': tags}


def _strong(files: Files, part: str) -> Iterator[tuple[str, float, dict]]:
    table = files.csv('mid_to_display_name.tsv', delimiter='\t', columns=('mid', 'name'))
    names = {row['mid']: row['name'] for row in table}
    for row in files.csv(f'audioset_{part}_strong.tsv', delimiter='\t', required=('segment_id',)):
        video, _, start = row['segment_id'].rpartition('_')  # milliseconds
        name = names.get(row['label'], row['label'])
        event = time(row.number('start_time_seconds'), row.number('end_time_seconds'), name)
        yield video, int(start) / 1000, {'tags': [name], 'times': [event]}


DATASET = Dataset(
    name='audioset',
    version='1.0.0',
    title='AudioSet',
    homepage='https://research.google.com/audioset/download.html',
    licence='CC-BY-4.0 (labels); audio under the terms of each YouTube video',
    provenance='human',
    layout="""{balanced_train,unbalanced_train,eval}_segments.csv, class_labels_indices.csv
audioset_{train,eval}_strong.tsv, mid_to_display_name.tsv  for config strong, from the homepage
audio/  the clips, called by video and start: VIDEO_30.wav, YVIDEO.flac, VIDEO_30000_40000.mp3, ...
  or folders of the lists' names in it; archives will do""",
    items=_items,
    configs=('full', 'balanced', 'strong'),
    joined=True,  # a row of the strong lists is one event
)
