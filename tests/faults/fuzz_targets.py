"""What reads the mutated files: the readers of the program, as the program calls them."""

import json
import pathlib
import random
from collections.abc import Callable

import numpy as np

from alm_jax import config as config_lib
from alm_jax.audio import decode
from alm_jax.data import sources
from alm_jax.data.catalog import archives
from alm_jax.data.inputs import fields, headers
from alm_jax.interop.gguf import GgufFile
from alm_jax.interop.gguf_folder import files as files_of_gguf
from alm_jax.interop.tensor_files import INDEX, TensorFiles
from alm_jax.training import stages

_RECORDS = 8  # of a dataset that are read


def read(kind: str, rng: random.Random, path: pathlib.Path, beside: dict[str, bytes]) -> None:
    """Reads the file ``path`` in one of the ways of its kind.

    Args:
      kind: see ``fuzz_corpus.KINDS``.
      rng: chooses the way.
      path: in a folder of its own, in which the readers may write.
      beside: whole files that belong there too.

    Raises:
      ConfigError: what is allowed. AssertionError: a result that is none.
    """
    for name, content in beside.items():
        place = path.parent / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    _READERS[kind](rng, path)


def _audio(rng: random.Random, path: pathlib.Path) -> None:
    source = rng.choice((path, path.read_bytes()))
    match rng.choice(('whole', 'part', 'header', 'counted', 'listed')):
        case 'whole':
            samples, rate = decode.decode(source)
            _check_samples(samples, rate)
        case 'part':
            start, frames = rng.choice((0, 1, 3000, 2**40)), rng.choice((1, 2000, 2**20))
            samples, rate = decode.decode_part(source, 'part', start, frames)
            _check_samples(samples, rate)
            assert len(samples) <= frames
        case 'header':
            _check_length(*decode.header(source))
        case 'counted':
            _check_length(*decode.counted(source))
        case _:
            _check_length(*headers.read(path))


def _check_samples(samples: np.ndarray, rate: int) -> None:
    assert (samples.dtype, samples.ndim) == (np.float32, 1)
    assert np.abs(samples).max() <= 1  # not of NaN, nor of none
    _check_length(len(samples), rate)


def _check_length(samples: int, rate: int) -> None:
    assert samples >= 0
    assert decode.RATES[0] <= rate <= decode.RATES[1]


def _manifests(rng: random.Random, path: pathlib.Path) -> None:
    if path.suffix == '.parquet':
        entry = {'parquet': str(path), 'caption': rng.choice(('', 'text'))}
    else:
        captions = rng.choice(('', 'caption', fields.NO_CAPTION))
        entry = {'folder': str(path.parent), 'captions': path.name, 'caption': captions}
    _check_dataset(rng, entry, path.parent)


def _tars(rng: random.Random, path: pathlib.Path) -> None:
    if rng.random() < 0.7:
        return _check_dataset(rng, {'tars': str(path)}, path.parent)
    names = set()
    for name, span in archives.members(path, path):
        names.add(name)
        content = archives.read(path, span, name)
        assert len(content) <= path.stat().st_size
    return None


def _check_dataset(rng: random.Random, entry: dict, folder: pathlib.Path) -> None:
    """Opened twice, as the second time is from what the first has kept."""
    for _ in range(rng.choice((1, 2))):
        source = sources.open_source(entry, folder / 'data')
        assert len(source) > 0
        assert len(source.columns['id']) == len(source)
    errors = []
    for number in range(min(len(source), _RECORDS)):
        try:
            record = source[number]
        except config_lib.ConfigError as error:  # of one record: others are still read
            errors.append(error)
            continue
        _check_length(len(record['audio']), record['rate'])
        assert record['audio'].dtype == np.int16
        json.dumps([record['captions'], record['label']])
    if errors:
        raise errors[0]


def _safetensors(rng: random.Random, path: pathlib.Path) -> None:
    folder = path.parent
    if path.suffix == '.json':
        path.rename(folder / INDEX)
    tensors = TensorFiles(folder if path.suffix == '.json' else path)
    size = sum(file.stat().st_size for file in folder.glob('*.safetensors'))
    assert sum(map(tensors.nbytes, tensors)) <= size
    for name in tensors:
        array = tensors[name].copy()
        assert (array.shape, array.nbytes) == (tensors.shape(name), tensors.nbytes(name))


def _gguf(rng: random.Random, path: pathlib.Path) -> None:
    gguf = GgufFile(path)
    for name in gguf:
        assert gguf[name].dtype == np.float32
    files_of_gguf(gguf)


def _configs(rng: random.Random, path: pathlib.Path) -> None:
    content = path.read_bytes()
    if path.suffix == '.txt':
        text = content.decode('utf-8', 'surrogateescape')
        config_lib.parse_arg(text, smoke=False, batch_size=64, learning_rate=1e-3, name='')
        return
    if path.name == 'stages.json':
        whole = config_lib.to_json(config_lib.base()).encode()
        content = whole.replace(b'"stages": []', b'"stages": ' + content)
    config = config_lib.from_json(content)
    assert [stage.config for stage in stages.of(config)]
    text = config_lib.to_json(config)
    assert config_lib.to_json(config_lib.from_json(text)) == text


_READERS: dict[str, Callable[[random.Random, pathlib.Path], None]] = {
    'audio': _audio,
    'manifests': _manifests,
    'tars': _tars,
    'safetensors': _safetensors,
    'gguf': _gguf,
    'configs': _configs,
}
