"""VGGSound: clips of 10 s of YouTube videos in 309 classes, one class a clip."""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, youtube
from alm_jax.data.catalog.files import Files

_COLUMNS = ('video', 'start', 'label', 'split')  # the file has no header line


def _items(files: Files, config: str) -> Iterator[Item]:
    for row in files.csv('vggsound.csv', 'data/vggsound.csv', columns=_COLUMNS):
        video, start = row.text('video'), row.number('start')
        if row['split'] not in ('train', 'test'):
            raise row.error('split', 'expected train or test')
        clip = files.youtube(video, start, 'audio', 'video')
        yield Item(
            split=row['split'],
            id=f'{video}_{start:06.0f}',
            audio=(clip,) if clip else (),
            # A class may have a comma in its name: 'bird chirping, tweeting' is one.
            fields={'label': row.text('label'), 'recording_id': youtube(video)},
        )


DATASET = Dataset(
    name='vggsound',
    version='1.0.0',
    title='VGGSound',
    homepage='https://www.robots.ox.ac.uk/~vgg/data/vggsound/',
    licence='CC-BY-4.0 (labels); audio under the terms of each YouTube video',
    provenance='human',
    layout="""vggsound.csv  from github.com/hche11/VGGSound/data: video, start, label, split
audio/  (or video/) VIDEO_SSSSSS.wav, the start in seconds as six digits; archives will do""",
    items=_items,
)
