"""What each process of a run is doing, as a small file in its workdir: ``phase.json``.

Process 0 writes ``phase.json``, process n ``phase.<n>.json``, from a thread and at most once in
``SECONDS``. A process that is stopped, or whose interpreter is held up, no longer writes, and one
that is killed leaves the phase in which it was: ``alm_jax.status`` tells these apart. Nothing here
imports jax.
"""

import contextlib
import json
import os
import pathlib
import socket
import time
from typing import Any

SECONDS = 5.0
ENDED = 'ended'  # the phase of a process that left by itself, by an error too


def file_of(process: int) -> str:
    """The name of the file of process ``process``."""
    return f'phase.{process}.json' if process else 'phase.json'


def write(
    workdir: str | os.PathLike, phase: str, since: float, step: int, process: int, processes: int
) -> None:
    """Replaces the file of this process. A full or lost disk is not the run's end: it is passed.

    Args:
      workdir: of the run; without it nothing is written.
      phase: what is being done.
      since: when it began, in seconds of time.time().
      step: the last one taken.
      process, processes: which this is, of how many.
    """
    content = {
        'phase': phase,
        'since': since,
        'step': step,
        'host': socket.gethostname(),
        'pid': os.getpid(),
        'process': process,
        'processes': processes,
        'written': time.time(),
    }
    path = pathlib.Path(workdir) / file_of(process)
    partial = path.with_suffix('.partial')
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps(content) + '\n')
        partial.replace(path)


def read_all(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """What the processes of the last command wrote, by process; those that wrote nothing lack.

    Files of processes that this command does not have are left out.
    """
    first = _read(workdir, 0)
    if first is None:
        return []
    others = (_read(workdir, process) for process in range(1, first['processes']))
    return [first, *(other for other in others if other is not None)]


def _read(workdir: str | os.PathLike, process: int) -> dict[str, Any] | None:
    try:
        return json.loads((pathlib.Path(workdir) / file_of(process)).read_text())
    except (OSError, ValueError):
        return None
