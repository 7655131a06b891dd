"""Files of one JSON object a line, to which a run adds: a kill tears at most the last one."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of a file, which need not exist."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def add(path: pathlib.Path, entry: Mapping[str, Any]) -> None:
    """One more line, on the disk when this returns; ``keep`` has seen to it that none is torn."""
    with path.open('a') as file:
        file.write(json.dumps(entry) + '\n')
        file.flush()
        os.fsync(file.fileno())


def keep(path: pathlib.Path, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
    """Drops the lines that are not ``wanted``, and one that was torn."""
    if not path.exists():
        return
    partial = path.with_suffix('.partial')
    partial.write_text(''.join(json.dumps(e) + '\n' for e in read(path) if wanted(e)))
    partial.replace(path)
