"""NSynth: 305,979 notes of 1,006 instruments, four seconds each, at 16 kHz.

Family, source and qualities are tags. The caption is put together from them and the pitch, and its
provenance says so: nobody wrote it.
"""

from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_SPLITS = {'train': 'train', 'valid': 'validation', 'test': 'test'}
_NOTES = ('C', 'C sharp', 'D', 'D sharp', 'E', 'F', 'F sharp', 'G', 'G sharp', 'A', 'A sharp', 'B')


def _items(files: Files, config: str) -> Iterator[Item]:
    for part, split in _SPLITS.items():
        for name, row in files.json_rows(f'nsynth-{part}/examples.json'):
            clip = files.audio(f'{name}.wav', f'nsynth-{part}/audio')
            family = row.text('instrument_family_str').replace('_', ' ')  # synth_lead
            source = row.text('instrument_source_str')
            qualities = [quality.replace('_', ' ') for quality in row.texts('qualities_str')]
            yield Item(
                split=split,
                id=name,
                audio=(clip,) if clip else (),
                fields={
                    'captions': [_caption(row, f'{source} {family}', qualities)],
                    'tags': [family, source, *qualities],
                    'label': family,
                    'recording_id': f'nsynth/{name}',
                    'group': f'nsynth/{row.text("instrument_str")}',
                },
            )


def _caption(row: Row, instrument: str, qualities: list[str]) -> str:
    """'An acoustic keyboard plays the note C sharp 4: bright, percussive.'"""
    octave, step = divmod(int(row.number('pitch')), 12)
    article = 'An' if instrument[0] in 'ae' else 'A'
    heard = f': {", ".join(qualities)}' if qualities else ''
    return f'{article} {instrument} plays the note {_NOTES[step]} {octave - 1}{heard}.'


DATASET = Dataset(
    name='nsynth',
    version='1.0.0',
    title='NSynth',
    homepage='https://magenta.tensorflow.org/datasets/nsynth',
    licence='CC-BY-4.0',
    provenance='generated: template',
    layout="""nsynth-{train,valid,test}.jsonwav.tar.gz, or unpacked:
  nsynth-{train,valid,test}/examples.json and audio/*.wav""",
    items=_items,
    kind='instrument',
)
