"""AudioSetCaps: generated captions and questions of AudioSet, YouTube-8M and VGGSound clips.

It holds clips that AudioCaps and VGGSound are evaluated on: train with a blocklist of those.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, turn, youtube, youtube_id
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_TABLES = {
    'audioset': 'AudioSetCaps_caption.csv',
    'youtube8m': 'YouTube-8M_AudioSetCaps_caption.csv',
    'vggsound': 'VGGSound_AudioSetCaps_caption.csv',
    'audioset_qa': 'AudioSetCaps_Qwen-Audio_Q&A.csv',
    'youtube8m_qa': 'YouTube-8M_Qwen-Audio_Q&A.csv',
    'vggsound_qa': 'VGGSound_Qwen-Audio_Q&A.csv',
}
# What was asked, where the table holds the answers alone.
_ABOUT = 'Based on the QAs, give some information about the {0}, only if {0} is present.'
_QUESTIONS = ['Describe this audio according to the sounds in it.']
_QUESTIONS += [_ABOUT.format('speech'), _ABOUT.format('music')]


def _items(files: Files, config: str) -> Iterator[Item]:
    table, asked = _TABLES[config], config.endswith('_qa')
    for row in files.csv(f'Dataset/{table}', table, required=('id',)):
        name = row.text('id')  # 'YVIDEO', 'VIDEO_SSSSSS' or 'VIDEO_START_SECONDS'
        if not (video := youtube_id(name)):
            raise row.error('id', 'expected the name of a YouTube clip')
        clip = files.audio(f'{name}.wav', f'audio/{config.removesuffix("_qa")}', 'audio')
        text = {'turns': _turns(row)} if asked else {'captions': row.texts('caption')}
        yield Item(
            split='train',
            id=name,
            audio=(clip,) if clip else (),
            fields={**text, 'recording_id': youtube(video)},
        )


def _turns(row: Row) -> list[dict]:
    """Three questions that were put to every clip; each stands alone."""
    asked = [row.text(f'question_{i}', default) for i, default in enumerate(_QUESTIONS, start=1)]
    return [turn(text, row.text(f'answer_{i}'), i) for i, text in enumerate(asked, start=1)]


DATASET = Dataset(
    name='audiosetcaps',
    version='1.0.0',
    title='AudioSetCaps',
    homepage='https://huggingface.co/datasets/baijs/AudioSetCaps',
    licence='CC-BY-4.0 (text); audio under the terms of each YouTube video',
    provenance='generated: Qwen-Audio and Mistral-7B',
    layout="""Dataset/*.csv  from the homepage: *_caption.csv (id, caption), *_Q&A.csv
audio/ (or audio/audioset, audio/youtube8m, audio/vggsound)  clips named as in the column id""",
    items=_items,
    joined=True,
    configs=tuple(_TABLES),
)
