"""Real recordings in the formats and archives of official distributions."""

import csv
import io
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile

from alm_jax.audio import decode
from alm_jax.audio.resample import resample
from alm_jax.data.catalog.files import Files


class Clips:
    """Seventeen real recordings (0.1 to 4 s), written as a miniature needs them.

    ``clips.write(path, 3)`` writes recording 3; numbers beyond the last begin again. All folders of
    a path are made.
    """

    def __init__(self, folder: pathlib.Path):
        self._paths = sorted(folder.glob('*.ogg'))

    def samples(self, number: int, rate: int = 0) -> tuple[np.ndarray, int]:
        """(float32 [n] mono, Hz) of a recording, resampled to ``rate`` unless that is 0."""
        x, native = decode.decode(self._paths[number % len(self._paths)])
        return (resample(x, native, rate), rate) if rate else (x, native)

    def content(self, ending: str, number: int, rate: int = 0) -> bytes:
        """A recording as the bytes of a 'wav', 'flac', 'mp3' or 'ogg' file."""
        x, rate = self.samples(number, rate)
        buffer = io.BytesIO()
        kinds = {'ogg': 'VORBIS', 'mp3': 'MPEG_LAYER_III'}
        soundfile.write(buffer, x, rate, kinds.get(ending, 'PCM_16'), format=ending.upper())
        return buffer.getvalue()

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
        found = {item.id: item for item in items}
        assert len(found) == len(items), 'an id occurs twice'
        for item in items:
            dataset.fields(item)  # raises for a name that is no field
        return found

    return listed
