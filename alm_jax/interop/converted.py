"""Folders that hold other people's weights in another form: made once, complete or not there."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from alm_jax.interop import tensor_files

SOURCE = 'source.json'  # what a folder was made of
Content = tuple[Mapping[str, np.ndarray], Mapping[str, bytes]]


def folder(path: pathlib.Path, source: Mapping[str, Any], make: Callable[[], Content]) -> None:
    """Sees to it that ``path`` holds what was made of ``source``, and its description.

    Another process sees the whole folder or none, and the first one wins. A folder that was made
    of something else is replaced.

    Args:
      path: the folder.
      source: JSON types; what decides the content, a number of the form included.
      make: -> (tensors for model.safetensors, further files by name).
    """
    if _is_current(path, source):
        return
    tensors, files = make()
    with scratch(path.parent) as room:
        made = room / 'made'
        tensor_files.write(made, tensors)
        for name, content in {**files, SOURCE: json_bytes(source)}.items():
            (made / name).write_bytes(content)
        if path.exists():
            os.replace(path, room / 'old')
        try:
            os.replace(made, path)
        except OSError:
            if not _is_current(path, source):  # else another process was first
                raise


@contextlib.contextmanager
def scratch(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder on the file system of ``parent``, removed at the end, so that moves are atomic."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix='.partial-') as room:
        yield pathlib.Path(room)


def json_bytes(value: Any) -> bytes:
    """A JSON file's content."""
    return (json.dumps(value, indent=2) + '\n').encode()


def _is_current(path: pathlib.Path, source: Mapping[str, Any]) -> bool:
    try:
        return json.loads((path / SOURCE).read_bytes()) == source
    except (OSError, ValueError):
        return False
