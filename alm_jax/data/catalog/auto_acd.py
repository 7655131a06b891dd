"""Auto-ACD: captions that language models wrote for AudioSet and VGGSound from sight and sound."""

import re
from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Clip, Dataset, Item, youtube, youtube_id
from alm_jax.data.catalog.files import Files

# The model's answer was kept whole: 'The audio caption ... could be: "A dog barks."'
_SAID = re.compile(r'\bbe: "(?P<caption>.+)"')


def _items(files: Files, config: str) -> Iterator[Item]:
    for split in ('train', 'test'):
        for row in files.csv(f'{split}.csv', required=('youtube_id', 'caption')):
            name = row.text('youtube_id')
            if not (video := youtube_id(name)):
                raise row.error('youtube_id', "expected 'YVIDEO' or 'VIDEO_SSSSSS'")
            caption = row.text('caption')
            said = _SAID.search(caption)
            clip = _clip(files, name, video)
            yield Item(
                split=split,
                id=name,
                audio=(clip,) if clip else (),
                fields={
                    'captions': [said['caption'].strip() if said else caption],
                    'recording_id': youtube(video),
                },
            )


def _clip(files: Files, name: str, video: str) -> Clip | None:
    """The table's 'YVIDEO' is AudioSet's clip, whose start it does not say."""
    for found in (name, video):
        if clip := files.audio(f'{found}.flac', 'audio'):
            return clip
    return None


DATASET = Dataset(
    name='auto_acd',
    version='1.0.0',
    title='Auto-ACD',
    homepage='https://auto-acd.github.io',
    licence='no licence of the captions is stated; audio under the terms of each YouTube video',
    provenance='generated: ChatGPT from visual and audio models',
    layout="""train.csv, test.csv  from huggingface.co/datasets/Loie/Auto-ACD: youtube_id, caption
audio/  clips named as in the column youtube_id (or by the video alone); archives will do""",
    items=_items,
    joined=True,
)
