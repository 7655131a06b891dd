"""Arrays of planning results: in memory while small, else files that are mapped when used."""

import os
import pathlib
import uuid

import numpy as np

from alm_jax.config import ConfigError


class Mapped:
    """A one-dimensional array in an .npy file; other processes map it too."""

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._array = load(self.path)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, at):
        return self._array[at]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self._array, dtype)

    def __reduce__(self) -> tuple:
        return Mapped, (self.path,)


def load(path: pathlib.Path) -> np.ndarray:
    """The array of an .npy file, mapped. Raises ConfigError: damaged, or of Python's objects."""
    try:
        return np.lib.format.open_memmap(path, mode='r')  # never a pickle, nor a zip
    except (ValueError, EOFError) as error:
        reason = ' '.join(str(error).split())[:100]
        raise ConfigError(f'{path} is damaged ({reason}); delete it, it is made again.') from error


def save(path: str | os.PathLike, array: np.ndarray | Mapped) -> Mapped:
    """Writes ``array`` as .npy, atomically: several hosts may write the same file at once."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    try:
        with open(temporary, 'wb') as file:
            np.save(file, np.asarray(array), allow_pickle=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return Mapped(path)
