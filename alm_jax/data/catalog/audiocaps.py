"""AudioCaps: 10 s clips of AudioSet with captions by people, one in train, five in the others.

Config ``1.0`` is the release of 2019, ``2.0`` that of 2025 with 91,256 captions of train. A clip is
a record with all its captions. The audio is not distributed: clips that YouTube has lost are
missing, so scores must name their number of clips.
"""

import collections
from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, youtube
from alm_jax.data.catalog.files import Files

_TABLES = {'1.0': ('dataset', 'csv_files_v1', ''), '2.0': ('dataset2.0', 'csv_files_v2')}
_COLUMNS = ('audiocap_id', 'youtube_id', 'start_time', 'caption')


def _items(files: Files, config: str) -> Iterator[Item]:
    for name, split in {'train': 'train', 'val': 'validation', 'test': 'test'}.items():
        captions: dict[tuple[str, float], list[str]] = collections.defaultdict(list)
        tables = [f'{folder}/{name}.csv'.lstrip('/') for folder in _TABLES[config]]
        for row in files.csv(*tables, required=_COLUMNS):
            captions[row.text('youtube_id'), row.number('start_time')].append(row.text('caption'))
        for (video, start), said in captions.items():
            clip = files.youtube(video, start, f'audio/{name}', 'audio', name)
            yield Item(
                split=split,
                id=f'{video}_{start:g}',
                audio=(clip,) if clip else (),
                fields={'captions': said, 'recording_id': youtube(video)},
            )


DATASET = Dataset(
    name='audiocaps',
    version='1.0.0',
    title='AudioCaps',
    homepage='https://github.com/cdjkim/audiocaps',
    licence='MIT (captions); audio for academic use under the terms of each YouTube video',
    provenance='human',
    layout="""dataset/{train,val,test}.csv     config 1.0, from the homepage
dataset2.0/{train,val,test}.csv  config 2.0, likewise
audio/{train,val,test}/ or audio/  the clips, called by video and start: VIDEO_30.wav, YVIDEO.flac,
  VIDEO_30000_40000.mp3, ...; archives will do. By the form on the homepage, or yt-dlp""",
    items=_items,
    configs=('1.0', '2.0'),
)
