"""Checkpoints of every kind that is read here, as named tensors: what there is, before any model.

source = sources.open_source('whisper-tiny')    # or a .gguf, a CTranslate2 folder, a run, ...
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np

from alm_jax.config import ConfigError
from alm_jax.interop import (
    converted,
    ctranslate2_folder,
    families,
    gguf_folder,
    names,
    tensor_files,
)
from alm_jax.interop.ctranslate2 import read_variables as read_ctranslate2
from alm_jax.interop.families import yamnet
from alm_jax.interop.family import Config, Family
from alm_jax.interop.gguf import GgufFile
from alm_jax.interop.savedmodel import VALUE, read_saved_model
from alm_jax.training import checkpoint
from alm_jax.training.param_names import flatten_canonical

RUN = 'run of alm_jax'
CONFIG = 'config.json'


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor as its file has it.

    Attributes:
      name, shape, dtype, nbytes: in the file; the dtype is the format's word for it.
      names: what the name table of its family calls it; of a fused tensor, its parts.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint.

    Attributes:
      path: where it is.
      kind: 'Hugging Face folder', 'GGUF file' and so on.
      config: of config.json, as the family reads it; {} when there is none.
      stored: the tensors, in the order of their names.
      read: -> (tensors by the family's names, files that stand beside them).
    """

    path: pathlib.Path
    kind: str
    config: Config
    stored: list[Stored]
    read: Callable[[], tuple[Mapping[str, np.ndarray], Mapping[str, bytes]]]

    @functools.cached_property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """By the family's names, or by canonical names of a run; made when asked for."""
        return self.read()[0]

    @functools.cached_property
    def family(self) -> Family | None:
        """None when config.json names none that is known here."""
        return families.all_families().get(str(self.config.get('model_type', '')))


@dataclasses.dataclass(frozen=True)
class Account:
    """Which tensor is which parameter.

    Attributes:
      ours: the family's name -> canonical names.
      left: names in the files that have no place in the model.
      missing: canonical names that no tensor fills.
      misfits: 'NAME (as OURS) is (3, 2); the model has (2, 3)', where the file has the family's own
        layout.
      shapes: canonical name -> its shape and dtype, of the model that the config describes.
      entries: of the name table.
    """

    ours: dict[str, tuple[str, ...]]
    left: list[str]
    missing: list[str]
    misfits: list[str]
    shapes: dict[str, jax.ShapeDtypeStruct]
    entries: list[names.Entry]


def account(source: Source) -> Account | None:
    """Of a source whose family is known; None for others and for runs."""
    if source.family is None:
        return None
    family = source.family
    _, tree = family.shapes(source.config)
    shapes = flatten_canonical(tree)
    theirs = [name for stored in source.stored for name in stored.names]
    entries, left, missing = names.pair(
        family.table(source.config), theirs, shapes, unused=family.unused
    )
    ours = {name: entry.ours for entry in entries for name in entry.theirs}
    misfits = list(_misfits(source, entries, shapes))
    return Account(ours, left, missing, misfits, shapes, entries)


def _misfits(source, entries, shapes) -> Iterator[str]:
    stored = {s.name: s.shape for s in source.stored if s.names == (s.name,)}
    for entry in entries:
        if not stored.keys() >= set(entry.theirs):
            continue
        # One value under every index: shapes without memory.
        arrays = [np.broadcast_to(np.float32(0), stored[name]) for name in entry.theirs]
        try:
            read = [array.shape for array in entry.rule.read(arrays)]
        except (ValueError, IndexError):  # not even of the right number of axes
            read = [stored[name] for name in entry.theirs]
        for name, shape in zip(entry.ours, read):
            if shape != shapes[name].shape:
                theirs = ' + '.join(entry.theirs)
                yield f'{theirs} (as {name}) is {shape}; the model has {shapes[name].shape}'


class Canonical(Mapping):
    """The tensors of an accounted source under our names, made when asked for."""

    def __init__(self, source: Source, entries: list[names.Entry]):
        self._tensors = source.tensors
        self._entry = {name: entry for entry in entries for name in entry.ours}
        self._last: tuple[names.Entry, dict[str, np.ndarray]] | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entry[name]
        if self._last is None or self._last[0] is not entry:
            arrays = entry.rule.read([self._tensors[theirs] for theirs in entry.theirs])
            self._last = entry, dict(zip(entry.ours, arrays))
        return self._last[1][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entry)

    def __len__(self) -> int:
        return len(self._entry)


def open_source(path: str | os.PathLike) -> Source:
    """Looks at a checkpoint; tensors are read later.

    Raises:
      ConfigError: nothing that is known here, or a damaged file, which it names.
    """
    path = pathlib.Path(path).expanduser().absolute()
    if path.is_file():
        if path.suffix == '.gguf':
            return _gguf(path)
        if path.suffix == '.safetensors':
            return _safetensors(path, 'safetensors file', {})
        raise ConfigError(f'{path} is no checkpoint that is read here: .gguf or .safetensors.')
    if not path.is_dir():
        raise ConfigError(f'{path} does not exist.')
    config = tensor_files.read_config(path) if (path / CONFIG).is_file() else {}
    if 'model_type' in config:
        return _safetensors(path, 'Hugging Face folder', config)
    if (path / 'saved_model.pb').is_file() or (path / 'variables').is_dir():
        return _saved_model(path)
    if (path / checkpoint.MANIFEST).is_file() or (path / 'checkpoints').is_dir():
        return _run(path)
    if (path / 'model.bin').is_file():
        return _ctranslate2(path)
    return _safetensors(path, 'folder of safetensors', config)


def _safetensors(path: pathlib.Path, kind: str, config: Config) -> Source:
    files = tensor_files.TensorFiles(path)
    stored = [Stored(n, files.shape(n), files.dtype(n), files.nbytes(n), (n,)) for n in files]

    def read():
        return files, companions(path) if path.is_dir() else {}

    return Source(path, kind, config, stored, read)


def companions(folder: pathlib.Path) -> dict[str, bytes]:
    """The small files of a model folder: all but weights and their index."""
    weights = ('.safetensors', '.bin', '.pt', '.pth', '.msgpack', '.h5', '.onnx', '.gguf')
    return {
        file.name: file.read_bytes()
        for file in sorted(folder.iterdir())
        if file.is_file() and file.suffix not in weights and not file.name.endswith('.index.json')
    }


def _gguf(path: pathlib.Path) -> Source:
    gguf = GgufFile(path)
    tensors, files = gguf_folder.Tensors(gguf), gguf_folder.files(gguf)
    names_of = {tensors.stored_as(name): (name,) for name in tensors}
    stored = [
        Stored(n, gguf.shape(n), gguf.type(n), gguf.nbytes(n), names_of.get(n, ())) for n in gguf
    ]
    config = tensor_files.parse(files[CONFIG], f'{path} ({CONFIG})')
    return Source(path, 'GGUF file', config, stored, lambda: (tensors, files))


def _ctranslate2(path: pathlib.Path) -> Source:
    model = path / 'model.bin'
    variables = read_ctranslate2(ctranslate2_folder.mapped(model), str(model))
    tensors, files = ctranslate2_folder.read(path)
    stored = []
    for name, value in sorted(variables.items()):
        known = [n for n in ctranslate2_folder.transformers_names(name) if n in tensors]
        stored.append(_described(name, value, tuple(known)))
    config = tensor_files.parse(files[CONFIG], f'{model} ({CONFIG})')
    return Source(path, 'CTranslate2 folder', config, stored, lambda: (tensors, files))


def _saved_model(path: pathlib.Path) -> Source:
    variables = {n.removesuffix(VALUE): v for n, v in read_saved_model(path).items()}
    config = {'model_type': 'yamnet'} if yamnet.is_yamnet(variables) else {}
    tensors = {n: v for n, v in variables.items() if not config or yamnet.WEIGHTS.match(n)}
    stored = [_described(n, v, (n,) if n in tensors else ()) for n, v in sorted(variables.items())]

    def read():
        return tensors, {CONFIG: converted.json_bytes(config)}

    return Source(path, 'TensorFlow SavedModel', config, stored, read)


def _described(name: str, value: np.ndarray, known: tuple[str, ...]) -> Stored:
    return Stored(name, value.shape, str(value.dtype), value.nbytes, known)


def _run(path: pathlib.Path) -> Source:
    folder = checkpoint.resolve(path)
    tree = checkpoint.read_manifest(folder)['tree']
    stored = []
    for name, (dtype, shape) in sorted(tree.items()):
        size = int(np.prod(shape, dtype=np.int64)) * _item_size(dtype)
        item, _, rest = name.partition('/')
        ours = () if item == 'training' else (rest,)
        stored.append(Stored(name, tuple(shape), dtype, size, ours))

    def read():
        params, extra = checkpoint.load_params(folder)
        return flatten_canonical({**params, **extra}), {}

    return Source(folder, RUN, _run_config(folder), stored, read)


def _run_config(folder: pathlib.Path) -> dict[str, Any]:
    workdir = folder.parent.parent
    return tensor_files.read_config(workdir) if (workdir / CONFIG).is_file() else {}


def _item_size(dtype: str) -> int:
    return np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
