"""WavText5K: 4,525 sounds of BigSoundBank and SoundBible with their titles and descriptions."""

import re
from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_COLUMNS = ('download_link', 'title', 'description', 'fname', 'tags')
_FOLDERS = ('download', 'audios', '44100/audios', 'Webcrawl/download', 'Webcrawl/44100/audios')
_MARKUP = re.compile(r'<li>.*?</li>', re.S)  # what the crawler left of the page among the tags
_SITES = (
    ('soundbible', re.compile(r'soundbible\.com/grab\.php\?id=(\d+)')),
    ('bigsoundbank', re.compile(r'bigsoundbank\.com/.*?(\d+)\.wav')),
)


def _items(files: Files, config: str) -> Iterator[Item]:
    for row in files.csv('WavText5K.csv', required=_COLUMNS):
        name = row.text('fname')
        row['tags'] = _MARKUP.sub("''", row['tags'])
        site, number = _origin(row)
        clip = files.audio(name, *_FOLDERS)
        yield Item(
            split='train',
            id=name,
            audio=(clip,) if clip else (),
            fields={
                # Some descriptions are empty; the title is then all there is.
                'captions': list(dict.fromkeys(row.texts('description', 'title'))),
                'tags': row.listed('tags'),
                'package': site,
                'recording_id': f'{site}/{number}',
            },
        )


def _origin(row: Row) -> tuple[str, str]:
    for site, address in _SITES:
        if match := address.search(row['download_link']):
            return site, match[1]
    raise row.error('download_link', 'expected an address of bigsoundbank.com or soundbible.com')


DATASET = Dataset(
    name='wavtext5k',
    version='1.0.0',
    title='WavText5K',
    homepage='https://github.com/microsoft/WavText5K',
    licence='terms of bigsoundbank.com and soundbible.com, clip by clip',
    provenance='web',
    layout="""WavText5K.csv  from github.com/microsoft/WavText5K
download/*.wav  as its process.py names them (or 44100/audios/*.wav, resampled by it)""",
    items=_items,
)
