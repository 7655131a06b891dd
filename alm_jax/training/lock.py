"""One run a workdir: <workdir>/LOCK, held by the process that runs.

The operating system frees it when its process ends, however it ends: a file left by a killed one
blocks nobody. Two runs on machines that share a disk see each other where the disk has locks (NFS
has).
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from alm_jax.config import ConfigError

LOCK = 'LOCK'
_PATIENCE = 0.5  # seconds: ``holder`` has the lock for a moment, and a holder writes a moment later


@contextlib.contextmanager
def held(workdir: str | os.PathLike) -> Iterator[None]:
    """Inside, no other process can hold this workdir. Makes the folder if needed.

    Raises:
      ConfigError: another process holds it, naming that.
    """
    path = pathlib.Path(workdir).absolute() / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _take(path)
    try:
        who = {'host': socket.gethostname(), 'pid': os.getpid(), 'began': _now()}
        with contextlib.suppress(OSError):  # a full disk: the lock counts, not what it says
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(who).encode() + b'\n', 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still ours
        os.close(file)


def holder(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """Who holds a workdir now: 'host', 'pid' and 'began', as far as known; None is nobody."""
    try:
        file = os.open(pathlib.Path(workdir) / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is held, or the disk has no locks
        return _read(file)
    finally:
        os.close(file)
    return None


def _take(path: pathlib.Path) -> int:
    """The open and locked file at ``path``."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(file).st_ino == path.stat().st_ino:
                    return file  # else the run before has removed the one that was opened
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigError(_refusal(path.parent, _read(file))) from None
            time.sleep(_PATIENCE / 10)
        except OSError as error:
            text = f'{path} cannot be locked ({error.strerror}): see that no other run uses it.'
            print(text, file=sys.stderr, flush=True)
            return file
        os.close(file)


def _refusal(workdir: pathlib.Path, who: dict[str, Any]) -> str:
    return (
        f'workdir {workdir} is in use by process {who.get("pid", "unknown")} on '
        f'{who.get("host", "unknown")}, since {who.get("began", "unknown")}. Wait until it ends, '
        'end it, or choose another --workdir.'
    )


def _read(file: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:  # its holder has not written yet
        return {}
    return found if isinstance(found, dict) else {}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
