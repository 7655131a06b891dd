"""WavCaps: 403,050 clips of four sources, captioned by ChatGPT from what their pages say.

It holds clips of common evaluation sets. Those in the authors' blacklists are splits of their own,
so 'wavcaps:train' is free of them, and 'wavcaps:train+in_all_ac' adds some again: in_test_ac (test
sets of AudioCaps and Clotho), in_all_ac (their other splits), in_ub8k_esc50_vggsound, and
in_several (both). ``package`` is the source: 'wavcaps/FreeSound', ...
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item, bbc, freesound, youtube, youtube_id
from alm_jax.data.catalog.files import Files

# source -> its table, what the blacklists call it, and the recording_id.
_SOURCES = {
    'AudioSet_SL': ('as_final.json', 'AudioSet', lambda name: youtube(youtube_id(name))),
    'BBC_Sound_Effects': ('bbc_final.json', 'BBC', bbc),
    'FreeSound': ('fsd_final.json', 'FreeSound', freesound),
    'SoundBible': ('sb_final.json', 'SoundBible', 'soundbible/{}'.format),
}
_LISTS = ('test_ac', 'all_ac', 'ub8k_esc50_vggsound')


def _items(files: Files, config: str) -> Iterator[Item]:
    lists = {x: files.json(f'json_files/blacklist/blacklist_exclude_{x}.json') for x in _LISTS}
    for source, (table, called, recording) in _SOURCES.items():
        excluded = {name: set(map(str, lists[name].get(called, ()))) for name in _LISTS}
        places = [f'Zip_files/{source}', f'Audio/{source}', source, f'{source}_flac']
        for _, row in files.json_rows(f'json_files/{source}/{table}', key='data'):
            number = row.text('id')
            clip = files.audio(number, *places)  # 'Yb0RFKhbpFJA.wav' is stored as .flac
            fields = {
                'captions': [row.text('caption')],
                'author': row.text('author', ''),
                'source': row.text('download_link', '') or row.text('href', ''),
                'package': f'wavcaps/{source}',
                'recording_id': recording(number),
            }
            found = [name for name in _LISTS if number in excluded[name]]
            several = len(found) > 1 and found[-1] == _LISTS[-1]
            split = 'in_several' if several else f'in_{found[0]}' if found else 'train'
            yield Item(split, f'{source}/{number}', (clip,) if clip else (), fields)


DATASET = Dataset(
    name='wavcaps',
    version='1.0.0',
    title='WavCaps',
    homepage='https://huggingface.co/datasets/cvssp/WavCaps',
    licence='academic use only; each clip also under the terms of its source',
    provenance='generated: ChatGPT from descriptions on the web',
    layout="""json_files/{AudioSet_SL/as,BBC_Sound_Effects/bbc,FreeSound/fsd,SoundBible/sb}_final.json
json_files/blacklist/blacklist_exclude_{all_ac,test_ac,ub8k_esc50_vggsound}.json
Zip_files/SOURCE/  the four sources, from the homepage. Zips in parts must be joined or unpacked:
  zip -FF AudioSet_SL.zip --out AudioSet_SL_joined.zip""",
    items=_items,
)
