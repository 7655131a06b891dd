"""Tensors of a model folder, one at a time: model.safetensors, or shards with their index."""

import json
import math
import mmap
import os
import pathlib
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from alm_jax.config import ConfigError

WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
SHARD_BYTES = 4 << 30
DTYPES = {  # as safetensors calls them
    **{f'F{bits}': np.dtype(f'f{bits // 8}') for bits in (16, 32, 64)},
    **{f'I{bits}': np.dtype(f'i{bits // 8}') for bits in (8, 16, 32, 64)},
    **{f'U{bits}': np.dtype(f'u{bits // 8}') for bits in (8, 16, 32, 64)},
    'BOOL': np.dtype(bool),
    'BF16': np.dtype(ml_dtypes.bfloat16),
    'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
    'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
}


class TensorFiles(Mapping):
    """Their tensors by name, read-only views of the mapped files: nothing is copied or kept.

    Shapes and dtypes are known from the headers, which the library checks against the file before
    anything is mapped. A file may be replaced meanwhile, but not written into.
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
        self._open: dict[pathlib.Path, safetensors.safe_open] = {}
        self._entries: dict[str, tuple[mmap.mmap, int]] = {}
        for file in files:
            try:
                self._open[file] = safetensors.safe_open(file, 'np')
            except (OSError, safetensors.SafetensorError) as error:
                raise ConfigError(
                    f'{file} cannot be read: {error}{_damage(file)}. Fetch it again.'
                ) from error
            self._file_of |= dict.fromkeys(self._open[file].keys(), file)
            self._entries |= _entries(file)
        if (path / INDEX).is_file():
            promised = _read_json(path / INDEX).get('weight_map', {})
            if lacking := sorted(set(promised) - set(self._file_of)):
                raise ConfigError(
                    f'{path / INDEX} promises {lacking[0]} in {promised[lacking[0]]}, which lacks '
                    f'it ({len(lacking)} tensors in all). Fetch the folder again.'
                )

    def __getitem__(self, name: str) -> np.ndarray:
        mapped, start = self._entries[name]
        shape, dtype = self.shape(name), self.dtype(name)
        if dtype not in DTYPES:
            raise ConfigError(f'{self._file_of[name]}: {name} is {dtype}, which is not read.')
        if not math.prod(shape):
            return np.empty(shape, DTYPES[dtype])
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
        return tuple(self._open[self._file_of[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Of a tensor, as safetensors calls it: 'F32', 'BF16', ..."""
        return self._open[self._file_of[name]].get_slice(name).get_dtype()

    def nbytes(self, name: str) -> int:
        """Of a tensor, in its file."""
        return math.prod(self.shape(name)) * _item_bytes(self.dtype(name))


def _damage(file: pathlib.Path) -> str:
    """': NAME ...' of the first tensor whose entry in the header cannot be, or ''."""
    try:
        size = file.stat().st_size
        with file.open('rb') as content:
            length = int.from_bytes(content.read(8), 'little')
            header = json.loads(content.read(length) if length <= size else b'')
        for name, entry in header.items():
            if name == '__metadata__':
                continue
            start, end = entry['data_offsets']
            needed = math.prod(entry['shape']) * _item_bytes(entry['dtype'])
            if end - start != needed:
                return f': {name} {entry["shape"]} of {entry["dtype"]} is not {end - start} bytes'
            if 8 + length + end > size:
                return f': {name} ends at byte {8 + length + end} of {size}'
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a header of another form, of which the library has said what it can
    return ''


def _item_bytes(dtype: str) -> int:
    return DTYPES[dtype].itemsize if dtype in DTYPES else 1


def _entries(file: pathlib.Path) -> dict[str, tuple[mmap.mmap, int]]:
    """Name -> (the mapped file, where its tensor starts), of a file that has been checked."""
    with file.open('rb') as content:
        mapped = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
    data = 8 + int.from_bytes(mapped[:8], 'little')
    header = json.loads(mapped[8:data])
    header.pop('__metadata__', None)
    return {name: (mapped, data + entry['data_offsets'][0]) for name, entry in header.items()}


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX).get('weight_map')
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConfigError(f"{folder / INDEX} has no 'weight_map'.")
        for tensor, name in weight_map.items():
            if not isinstance(name, str):
                raise ConfigError(
                    f'{folder / INDEX}: {tensor} is in {name!r}, which is no file name.'
                )
        names = sorted(set(weight_map.values()))
        if outside := [n for n in names if pathlib.PurePath(n).name != n]:
            raise ConfigError(f'{folder / INDEX} names {outside[0]!r}, which is not in its folder.')
        if lacking := [name for name in names if not (folder / name).is_file()]:
            raise ConfigError(
                f'{folder} lacks {len(lacking)} of its {len(names)} shards: {lacking[0]}, ...'
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
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ConfigError(f'{name} cannot be read: {error}.') from error
    if not isinstance(value, dict):
        raise ConfigError(f'{name} is not a JSON object.')
    return value


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
