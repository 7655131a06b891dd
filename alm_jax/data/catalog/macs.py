"""MACS: 3,930 street scenes of TAU Urban Acoustic Scenes 2019, two to five captions each."""

from collections.abc import Iterator

from alm_jax.data.catalog import rows
from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files

_TAU = 'TAU-urban-acoustic-scenes-2019-development'


def _items(files: Files, config: str) -> Iterator[Item]:
    for row in rows.as_row(files.yaml('MACS.yaml'), 'MACS.yaml').rows('files'):
        name = row.text('filename')
        annotations = row.rows('annotations')
        scene, city, place = _scene(row)
        clip = files.audio(name, f'{_TAU}/audio', 'audio')
        captions = [text for note in annotations for text in note.texts('sentence')]
        tags = [text for note in annotations for text in note.texts('tags')]
        yield Item(
            split='train',  # the authors give one set, without a division
            id=name,
            audio=(clip,) if clip else (),
            fields={
                'captions': captions,
                'tags': list(dict.fromkeys(tags)),
                'label': scene.replace('_', ' '),
                # Segments that were recorded at one place on one occasion stay together.
                'group': f'{_TAU}/{city}-{place}',
                'recording_id': f'tau2019/{name.removesuffix(".wav")}',
            },
        )


def _scene(row: rows.Row) -> tuple[str, str, str]:
    """'airport-barcelona-0-0-a.wav' says the scene, the city and the place."""
    parts = row['filename'].split('-')
    if len(parts) != 5:
        raise row.error('filename', "expected a name such as 'airport-barcelona-0-0-a.wav'")
    return parts[0], parts[1], parts[2]


DATASET = Dataset(
    name='macs',
    version='1.0.0',
    title='MACS',
    homepage='https://zenodo.org/record/5114771',
    licence='Tampere University: non-commercial, academic',
    provenance='human',
    layout=f"""MACS.yaml  from zenodo.org/record/5114771
{_TAU}/audio/*.wav, or the archives
{_TAU}.audio.1.zip ... 21.zip, from zenodo.org/record/2589280""",
    items=_items,
)
