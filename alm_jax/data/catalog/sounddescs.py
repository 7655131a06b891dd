"""SoundDescs: 32,979 BBC sound effects with the archive's descriptions and categories."""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Clip, Dataset, Item, bbc
from alm_jax.data.catalog.files import Files

_LISTS = {'train_list.txt': 'train', 'val_list.txt': 'validation', 'test_list.txt': 'test'}


def _items(files: Files, config: str) -> Iterator[Item]:
    descriptions = _table(files, 'descriptions.pkl')
    categories = _table(files, 'categories.pkl')  # some sounds have none
    for name, split in _LISTS.items():
        for number in files.lines(name, f'data/SoundDescs/{name}'):
            clip = _clip(files, number)
            description = descriptions.get(number) or ''
            yield Item(
                split=split,
                id=number,
                audio=(clip,) if clip else (),
                fields={
                    'captions': [description.strip()] if description.strip() else [],
                    'tags': list(categories.get(number) or ()),
                    'recording_id': bbc(number),
                },
            )


def _table(files: Files, name: str) -> dict:
    return files.table(name, f'sounddescs_data/{name}')


def _clip(files: Files, number: str) -> Clip | None:
    """The lists are in lower case; the site's own files are 'NHU05030045.wav'."""
    folders = (f'audios/{number}', 'audios', 'audio', f'zip_audios/{number}')
    for name in dict.fromkeys((number, number.upper())):
        if clip := files.audio(f'{name}.wav', *folders):
            return clip
    return None


DATASET = Dataset(
    name='sounddescs',
    version='1.0.0',
    title='SoundDescs',
    homepage='https://github.com/akoepke/audio-retrieval-benchmark',
    licence='RemArc: non-commercial',
    provenance='web',
    layout="""train_list.txt, val_list.txt, test_list.txt  from data/SoundDescs of the repository
descriptions.pkl, categories.pkl             from its folder sounddescs_data
audios/ID/ID.wav (or audios/ID.wav, or zip_audios/ID/ID.wav.zip as downloaded)""",
    items=_items,
)
