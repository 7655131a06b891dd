"""MusicCaps: 5,521 clips of 10 s of AudioSet, each described by a musician.

AudioSet's evaluation clips are split 'test', the others 'train', as in the paper.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Clip, Dataset, Item, youtube
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_COLUMNS = ('ytid', 'start_s', 'end_s', 'aspect_list', 'caption', 'is_audioset_eval')
_SPLITS = {'True': 'test', 'False': 'train'}


def _items(files: Files, config: str) -> Iterator[Item]:
    for row in files.csv('musiccaps-public.csv', required=_COLUMNS):
        if row['is_audioset_eval'] not in _SPLITS:
            raise row.error('is_audioset_eval', 'expected True or False')
        video = row.text('ytid')
        clip = clip_of(files, row)
        yield Item(
            split=_SPLITS[row['is_audioset_eval']],
            id=f'{video}_{row.text("start_s")}',
            audio=(clip,) if clip else (),
            fields={
                'captions': row.texts('caption'),
                'tags': row.listed('aspect_list'),
                'recording_id': youtube(video),
                'author': f'musician {row.text("author_id", "")}'.strip(),
            },
        )


def clip_of(files: Files, row: Row) -> Clip | None:
    """Downloaders write '[VIDEO]-[30-40].wav' or one of the names of ``Files.youtube``."""
    video, start, end = row.text('ytid'), row.text('start_s'), row.text('end_s')
    if clip := files.audio(f'[{video}]-[{start}-{end}].wav', 'audio'):
        return clip
    return files.youtube(video, row.number('start_s'), 'audio')


DATASET = Dataset(
    name='musiccaps',
    version='1.0.0',
    title='MusicCaps',
    homepage='https://huggingface.co/datasets/google/MusicCaps',
    licence='CC-BY-SA-4.0 (text); audio under the terms of each YouTube video',
    provenance='human',
    layout="""musiccaps-public.csv  from the homepage or kaggle.com/datasets/googleai/musiccaps
audio/  [VIDEO]-[START-END].wav, VIDEO_START.wav or VIDEO.wav, the clip alone""",
    items=_items,
    kind='music',
)
