"""GTZAN: 1,000 clips of 30 s in ten genres of music.

It has no official division, and zero-shot scores are over all clips: 'all' is one split 'test'.
'filtered' is the fault-filtered, artist-disjoint division of 930 clips by Kereliuk et al. (2015).
Known faults remain in 'all': repeated and mislabelled clips (Sturm 2013), and jazz.00054, which
cannot be decoded in the WAV copies that circulate.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files

_GENRES = ('blues', 'classical', 'country', 'disco', 'hiphop', 'jazz', 'metal', 'pop', 'reggae')
_GENRES += ('rock',)
_LISTS = {'train': 'train', 'valid': 'validation', 'test': 'test'}
_FOLDERS = ('genres', 'genres_original', 'Data/genres_original')


def _items(files: Files, config: str) -> Iterator[Item]:
    if not files.has(*_FOLDERS, 'genres.tar.gz'):
        raise files.missing(*_FOLDERS)
    for name, split in _names(files, config):
        genre = name.split('.')[0]
        clip = files.audio(f'{genre}/{name}', *_FOLDERS)
        yield Item(
            split=split,
            id=name,
            audio=(clip,) if clip else (),
            fields={'label': genre, 'tags': [genre], 'recording_id': f'gtzan/{name}'},
        )


def _names(files: Files, config: str) -> Iterator[tuple[str, str]]:
    """('blues.00000', split) of every clip."""
    if config == 'all':
        yield from ((f'{genre}.{n:05d}', 'test') for genre in _GENRES for n in range(100))
        return
    for part, split in _LISTS.items():
        for line in files.lines(f'{part}_filtered.txt'):  # 'blues/blues.00029.wav'
            yield line.rsplit('/', 1)[-1].removesuffix('.wav'), split


DATASET = Dataset(
    name='gtzan',
    version='1.0.0',
    title='GTZAN',
    homepage='http://marsyas.info/downloads/datasets.html',
    licence='none is stated; research only',
    provenance='human',
    layout="""genres/GENRE/GENRE.NNNNN.au (or genres_original/, .wav), or genres.tar.gz
{train,valid,test}_filtered.txt  for 'filtered', from github.com/jongpillee/music_dataset_split""",
    items=_items,
    configs=('all', 'filtered'),
    kind='music',
)
