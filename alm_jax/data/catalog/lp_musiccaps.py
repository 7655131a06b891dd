"""LP-MusicCaps: captions that GPT-3.5 Turbo wrote from the tags of three music collections.

Not taken: the human captions of 'mc', which are those of ``musiccaps``, and the captions by
attribute prediction, which the authors advise against.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, youtube
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.musiccaps import clip_of
from alm_jax.data.catalog.rows import Row

_SPLITS = (('train', 'train'), ('test', 'test'), ('valid', 'validation'))
_CAPTIONS = ('caption_writing', 'caption_summary', 'caption_paraphrase')
_TAGS = {'mc': 'aspect_list', 'mtt': 'tag_top188', 'msd': 'tag'}


def _items(files: Files, config: str) -> Iterator[Item]:
    folder = f'LP-MusicCaps-{config.upper()}/data'
    for official, split in _SPLITS[: 2 if config == 'mc' else 3]:
        for row in files.parquet(f'{official}-*.parquet', folder):
            track = row.text('fname' if config == 'mc' else 'track_id')
            clip = clip_of(files, row) if config == 'mc' else files.audio(row['path'], 'audio')
            yield Item(
                split=split,
                id=track,
                audio=(clip,) if clip else (),
                fields={
                    # 4,000 records of 'mtt' have neither tags nor text.
                    'captions': [text for name in _CAPTIONS if (text := row.text(name, ''))],
                    'tags': row.texts(_TAGS[config]),
                    'author': row.text('artist_name', ''),
                    'recording_id': _recording(config, row),
                },
            )


def _recording(config: str, row: Row) -> str:
    if config == 'mc':
        return youtube(row.text('ytid'))
    if config == 'msd':
        return f'msd/{row.text("track_id")}'
    # 'd/artist-album-01-title-88-117.mp3' holds seconds 88 to 117 of a track.
    return f'magnatagatune/{row.text("path").rsplit("-", 2)[0]}'


DATASET = Dataset(
    name='lp_musiccaps',
    version='1.0.0',
    title='LP-MusicCaps',
    homepage='https://github.com/seungheondoh/lp-music-caps',
    licence='MIT (text, by its card; the repository says CC-BY-NC-4.0); audio of its own sources',
    provenance='generated: GPT-3.5 Turbo',
    layout="""LP-MusicCaps-MC/data/*.parquet (or -MTT, -MSD)  huggingface.co/datasets/seungheondoh
audio/  mc: [VIDEO]-[START-END].wav; mtt, msd: as in the column path (8/1/8134074.clip.mp3)""",
    items=_items,
    configs=tuple(_TAGS),
    kind='music',
)
