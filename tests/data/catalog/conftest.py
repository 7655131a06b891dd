"""Real recordings in the formats and archives of official distributions."""

import csv
import dataclasses
import io
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile

from alm_jax.audio import decode
from alm_jax.audio.resample import resample
from alm_jax.data import sources
from alm_jax.data.catalog.building import builder
from alm_jax.data.catalog.files import Files


class Clips:
    """Seventeen real recordings (0.1 to 4 s), written as a miniature needs them.

    ``clips.write(path, 3)`` writes recording 3; numbers beyond the last begin again. All folders of
    a path are made.
    """

    def __init__(self, folder: pathlib.Path):
        self._paths = sorted(folder.glob('*.ogg'))
        self._made = {}

    def samples(self, number: int, rate: int = 0) -> tuple[np.ndarray, int]:
        """(float32 [n] mono, Hz) of a recording, resampled to ``rate`` unless that is 0."""
        x, native = decode.decode(self._paths[number % len(self._paths)])
        return (resample(x, native, rate), rate) if rate else (x, native)

    def content(self, ending: str, number: int, rate: int = 0) -> bytes:
        """A recording as the bytes of a 'wav', 'flac', 'mp3' or 'ogg' file."""
        key = (ending, number, rate)
        if key not in self._made:  # kept, because an Ogg file has a random number in it
            x, rate = self.samples(number, rate)
            buffer = io.BytesIO()
            kinds = {'ogg': 'VORBIS', 'mp3': 'MPEG_LAYER_III'}
            soundfile.write(buffer, x, rate, kinds.get(ending, 'PCM_16'), format=ending.upper())
            self._made[key] = buffer.getvalue()
        return self._made[key]

    def write(self, path: pathlib.Path, number: int, rate: int = 0) -> pathlib.Path:
        """A recording in the format that the name's ending says."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content(path.suffix[1:].lower(), number, rate))
        return path

    def zip(self, path: pathlib.Path, members: dict[str, int], rate: int = 0) -> pathlib.Path:
        """A deflated zip of recordings: member name -> recording."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for name, number in members.items():
                archive.writestr(name, self.content(name.rsplit('.', 1)[1], number, rate))
        return path

    def tar(self, path: pathlib.Path, members: dict[str, int], rate: int = 0) -> pathlib.Path:
        """A tar of recordings; compressed when the name ends with 'gz'."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, 'w:gz' if path.suffix.endswith('gz') else 'w') as archive:
            for name, number in members.items():
                content = self.content(name.rsplit('.', 1)[1], number, rate)
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path


@pytest.fixture(scope='session')
def clips(recordings) -> Clips:
    """See Clips."""
    return Clips(recordings)


@pytest.fixture(scope='session')
def write_csv():
    """write_csv(path, header, rows, encoding, delimiter): rows are sequences of cells."""

    def write(path, header, rows, encoding='utf-8', delimiter=','):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('w', newline='', encoding=encoding) as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([header, *rows] if header else rows)

    return write


@pytest.fixture(scope='session')
def items_of():
    """items_of(dataset, folder, config) -> {id: Item} of a declaration over a miniature."""

    def listed(dataset, folder, config=None):
        files = Files(folder, dataset.layout)
        items = list(dataset.items(files, dataset.configs[0] if config is None else config))
        found = {}
        for item in items:
            dataset.fields(item)  # raises for a name that is no field
            assert item.id not in found or dataset.joined, 'an id occurs twice'
            found.setdefault(item.id, []).append(item)
        return {name: same[0] if len(same) == 1 else joined(same) for name, same in found.items()}

    return listed


@pytest.fixture(scope='session')
def prepared(tmp_path_factory, items_of):
    """prepared(dataset, folder, config, split) -> {id: record}, built and read as users do.

    The miniature is prepared at 16 kHz, without what is missing in it; every record must hold what
    its declaration says.
    """

    def records(dataset, folder, config='', split='train'):
        data_dir = tmp_path_factory.mktemp('data')
        options = builder.Options(allow_missing=True, workers=1, sampling_rate=16_000)
        builder.build(dataset, config, folder, data_dir, options)
        config = config or dataset.configs[0]
        name = f'{dataset.name}/{config}:{split}' if config else f'{dataset.name}:{split}'
        source = sources.open_source(name, data_dir)
        found = {source.id(i): source[i] for i in range(len(source))}
        items = items_of(dataset, folder, config).values()
        declared = {i.id: i for i in items if i.split == split and i.audio}
        assert set(found) == set(declared)
        for name, item in declared.items():
            for field, value in dataset.fields(item).items():
                expected = list(value) if isinstance(value, tuple) else value
                assert found[name][field] == approximately(expected), (name, field)
            assert found[name]['rate'] == 16_000
            clips = found[name]['clip_samples'] or [found[name]['num_samples']]
            assert len(clips) == len(item.audio)
            assert sum(clips) == len(found[name]['audio']) > 0
        return found

    return records


def joined(items):
    """What Dataset.joined says of items that are one record."""
    fields, dialogues = {}, 0
    for item in items:
        turns = [{**t, 'dialogue': dialogues + t['dialogue']} for t in item.fields.get('turns', ())]
        dialogues += len({turn['dialogue'] for turn in turns})
        for name, value in {**item.fields, 'turns': turns}.items():
            known = fields.setdefault(name, type(value)())
            if isinstance(value, list):
                fields[name] = known + [part for part in value if part not in known]
            else:
                fields[name] = known or value
    first = items[0]
    return dataclasses.replace(first, fields=fields)


def approximately(value):
    """Numbers are kept as float32."""
    if isinstance(value, list):
        return [approximately(part) for part in value]
    if isinstance(value, dict):
        return {key: approximately(part) for key, part in value.items()}
    return pytest.approx(value) if isinstance(value, float) else value
