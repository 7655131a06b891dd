"""LibriSpeech: read English books, 16 kHz FLAC, with transcripts in capitals as distributed.

Configs choose the official subsets of training: ``all`` (960 h), ``clean`` (460 h), ``clean_100``,
``other``. Validation is dev-clean and dev-other, or the one of the config's condition; test alike.
Speakers are in one subset only; ``group`` is the speaker.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files

_HOST = 'https://www.openslr.org/resources/12'
_TRAIN = {
    'all': ('train-clean-100', 'train-clean-360', 'train-other-500'),
    'clean': ('train-clean-100', 'train-clean-360'),
    'clean_100': ('train-clean-100',),
    'other': ('train-other-500',),
}


def _subsets(config: str) -> dict[str, str]:
    """Official subset -> split."""
    conditions = {'all': ('clean', 'other'), 'other': ('other',)}.get(config, ('clean',))
    subsets = dict.fromkeys(_TRAIN[config], 'train')
    for condition in conditions:
        subsets |= {f'dev-{condition}': 'validation', f'test-{condition}': 'test'}
    return subsets


def _items(files: Files, config: str) -> Iterator[Item]:
    subsets = _subsets(config)
    tables = [(path.split('/'), path) for path in files.files('*/*/*/*.trans.txt')]
    for subset in subsets:
        if not any(parts[-4] == subset for parts, _ in tables):
            raise files.missing(f'LibriSpeech/{subset}')
    for (*_, subset, speaker, _, _), path in tables:
        for line in files.lines(path) if subset in subsets else ():
            utterance, _, transcript = line.partition(' ')
            clip = files.audio(f'{path.rpartition("/")[0]}/{utterance}.flac')
            fields = {'transcript': transcript, 'group': f'librispeech/{speaker}'}
            yield Item(subsets[subset], utterance, (clip,) if clip else (), fields)


DATASET = Dataset(
    name='librispeech',
    version='1.0.0',
    title='LibriSpeech ASR corpus',
    homepage='https://www.openslr.org/12',
    licence='CC-BY-4.0',
    provenance='human',
    layout='LibriSpeech/SUBSET/SPEAKER/CHAPTER/*.flac and *.trans.txt, or SUBSET.tar.gz as\n'
    'fetched from https://www.openslr.org/12, for all subsets of the config',
    items=_items,
    configs=tuple(_TRAIN),
    downloads=lambda config: {f'{s}.tar.gz': f'{_HOST}/{s}.tar.gz' for s in _subsets(config)},
    language='en',
    kind='speech',
)
