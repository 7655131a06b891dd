"""Tensors of a model folder, one at a time: model.safetensors, or shards with their index."""

import json
import math
import mmap
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from safetensors import numpy as safetensors_numpy

from alm_jax import json_text
from alm_jax.config import ConfigError
from alm_jax.interop import safetensors_header
from alm_jax.interop.safetensors_header import DTYPES

WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
SHARD_BYTES = 4 << 30
_LONGEST = 100  # letters of a file's name


class TensorFiles(Mapping):
    """Their tensors by name, read-only views of the mapped files: nothing is copied or kept.

    Shapes and dtypes are known from the headers, which are checked against the file before anything
    is mapped. A file may be replaced meanwhile, but not written into.
    """

    def __init__(self, path: str | os.PathLike):
        """Opens a folder with model.safetensors or its shards, or one .safetensors file.

        Raises:
          ConfigError: nothing to read, a shard that is missing or damaged, a tensor that the index
            promises and no shard has; names the file.
        """
        path = pathlib.Path(path)
        files = [path] if path.is_file() else _files(path)
        self._file_of: dict[str, pathlib.Path] = {}
        self._entries: dict[str, safetensors_header.Entry] = {}
        self._mapped: dict[pathlib.Path, mmap.mmap] = {}
        for file in files:
            entries = safetensors_header.read(file)
            self._mapped[file] = _mapped(file)
            self._file_of |= dict.fromkeys(entries, file)
            self._entries |= entries
        if (path / INDEX).is_file():
            promised = _read_json(path / INDEX).get('weight_map', {})
            if lacking := sorted(set(promised) - set(self._file_of)):
                raise ConfigError(
                    f'{path / INDEX} promises {lacking[0]:.200} in {promised[lacking[0]]}, which '
                    f'lacks it ({len(lacking)} tensors in all). Fetch the folder again.'
                )

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, start, _ = self._entries[name]
        if dtype not in DTYPES:
            raise ConfigError(
                f'{self._file_of[name]}: {name:.100} is {dtype:.40}, which is not read.'
            )
        if not math.prod(shape):
            return np.empty(shape, DTYPES[dtype])
        mapped = self._mapped[self._file_of[name]]
        return np.frombuffer(mapped, DTYPES[dtype], math.prod(shape), start).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._file_of))

    def __len__(self) -> int:
        return len(self._file_of)

    def file(self, name: str) -> pathlib.Path:
        """The file that holds a tensor."""
        return self._file_of[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, from its header."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """Of a tensor, as safetensors calls it: 'F32', 'BF16', ..."""
        return self._entries[name].dtype

    def nbytes(self, name: str) -> int:
        """Of a tensor, in its file."""
        return self._entries[name].end - self._entries[name].start


def _mapped(file: pathlib.Path) -> mmap.mmap:
    with file.open('rb') as content:
        return mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX).get('weight_map')
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConfigError(f"{folder / INDEX} has no 'weight_map'.")
        for tensor, name in weight_map.items():
            if not isinstance(name, str):
                raise ConfigError(
                    f'{folder / INDEX}: {tensor:.100} is in {name!r:.100}, which is no file name.'
                )
        names = sorted(set(weight_map.values()))
        if outside := [n for n in names if pathlib.PurePath(n).name != n or len(n) > _LONGEST]:
            raise ConfigError(
                f'{folder / INDEX} names {outside[0]!r:.200}, which is not in its folder.'
            )
        if lacking := [name for name in names if not (folder / name).is_file()]:
            raise ConfigError(
                f'{folder} lacks {len(lacking)} of its {len(names)} shards: {lacking[0]:.200}, ...'
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    kinds = ', '.join(sorted({f.name for f in folder.glob('*.*')})[:10]) or 'nothing'
    hint = ''
    if list(folder.glob('*.bin')):
        hint = ' A .bin file is a pickle, which is never read here; save it as safetensors.'
    raise ConfigError(f'{folder} has no {WEIGHTS} (it has {kinds}).{hint}')


def _read_json(path: pathlib.Path) -> dict:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f'{path} cannot be read: {error}.') from error
    return parse(content, str(path))


def parse(content: bytes, name: str) -> dict:
    """A JSON object. Raises ConfigError with the ``name`` of its file."""
    return json_text.parse_object(content, name)


def read_config(folder: str | os.PathLike, name: str = 'config.json') -> dict:
    """A JSON file of a model folder. Raises ConfigError naming it."""
    return _read_json(pathlib.Path(folder) / name)


def write(folder: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes model.safetensors, or shards with an index when it exceeds SHARD_BYTES.

    Tensors are taken one at a time and kept until their shard is written, so that a mapping that
    makes them when asked needs memory for one shard.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[str]] = []
    shard: dict[str, np.ndarray] = {}

    def flush() -> None:
        file = folder / f'{len(shards)}.safetensors'
        safetensors_numpy.save_file(shard, file, {'format': 'pt'})
        shards.append(list(shard))
        shard.clear()

    room, total = SHARD_BYTES, 0
    for name in sorted(tensors):
        array = tensors[name]
        if array.nbytes > room and shard:
            flush()
            room = SHARD_BYTES
        shard[name] = np.asarray(array, order='C')
        room -= array.nbytes
        total += array.nbytes
    flush()
    if len(shards) == 1:
        os.replace(folder / '0.safetensors', folder / WEIGHTS)
        return
    weight_map = {}
    for number, names in enumerate(shards):
        name = f'model-{number + 1:05d}-of-{len(shards):05d}.safetensors'
        os.replace(folder / f'{number}.safetensors', folder / name)
        weight_map |= dict.fromkeys(names, name)
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + '\n')
