"""Sound-VECaps: 1.66 M captions of AudioSet that a language model wrote with the help of vision.

'audio' keeps what can be heard; 'full' also says what only the picture shows.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, youtube, youtube_id
from alm_jax.data.catalog.files import Files


def _items(files: Files, config: str) -> Iterator[Item]:
    for row in files.csv(f'Sound-VECaps_{config}.csv', required=('id', 'caption')):
        name = row.text('id')  # 'YVIDEO.wav'
        if not (video := youtube_id(name)):
            raise row.error('id', "expected the name of an AudioSet clip, such as 'YVIDEO.wav'")
        clip = files.audio(name, 'audio') or files.audio(f'{video}.wav', 'audio')
        yield Item(
            split='train',
            id=name,
            audio=(clip,) if clip else (),
            fields={'captions': row.texts('caption'), 'recording_id': youtube(video)},
        )


DATASET = Dataset(
    name='sound_vecaps',
    version='1.0.0',
    title='Sound-VECaps',
    homepage='https://yyua8222.github.io/Sound-VECaps-demo',
    licence='as its Zenodo record says (captions); audio under the terms of each YouTube video',
    provenance='generated: Llama 3 from visual captions, audio captions and labels',
    layout="""Sound-VECaps_audio.csv, Sound-VECaps_full.csv  from Zenodo: id, caption
audio/  AudioSet clips named as in the column id: YVIDEO.wav; archives will do""",
    items=_items,
    joined=True,
    configs=('audio', 'full'),
)
