"""LAION-Audio-630K: its parts that come as tables of addresses, Epidemic Sound and Audiostock.

'epidemic_sound' takes the site's own titles and keywords, 'epidemic_sound_t5' the captions that T5
made of the keywords.
"""

import re
import urllib.parse
from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files

_TABLES = {
    'epidemic_sound': 'Epidemic_all_debiased.csv',
    'epidemic_sound_t5': 'Epidemic_all_debiased.csv',
    'audiostock': 'Audiostock.csv',
}
_WRITTEN = re.compile(r'caption_?\d+$')


def _items(files: Files, config: str) -> Iterator[Item]:
    site = config.removesuffix('_t5')
    for row in files.csv(_TABLES[config], required=('url',)):
        # '.../ES_Wrestling%20Crowd%205.mp3' or '.../audio/1150592/play'
        address = urllib.parse.unquote(row.text('url')).removesuffix('/play').rsplit('/', 1)[-1]
        name = row.text('id', row.text('epidemic_id', address.removesuffix('.mp3')))
        clip = files.audio(name, site) or files.audio(address, site)
        fields = {'package': site, 'recording_id': f'{site}/{name}'}
        if config.endswith('_t5'):
            fields |= {'captions': row.texts('caption_t5'), 'provenance': 'generated: T5'}
        else:
            fields |= {'captions': row.texts(*filter(_WRITTEN.match, row))}
        yield Item('train', name, (clip,) if clip else (), fields)


DATASET = Dataset(
    name='laion_audio_630k_tables',
    version='1.0.0',
    title='LAION-Audio-630K, Epidemic Sound and Audiostock',
    homepage='https://github.com/LAION-AI/audio-dataset/tree/main/laion-audio-630k',
    licence='research only, under the terms of epidemicsound.com and audiostock.net',
    provenance='web',
    layout="""Epidemic_all_debiased.csv  from the homepage: url, caption1, caption2, caption_t5, id
epidemic_sound/ID.mp3      (or as the address ends, ES_*.mp3)
Audiostock.csv             from the homepage: url, caption1
audiostock/NUMBER.mp3      as in the address .../audio/NUMBER/play""",
    items=_items,
    joined=True,
    configs=tuple(_TABLES),
)
