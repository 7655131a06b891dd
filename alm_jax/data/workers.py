"""Processes that make batches, each some rows of every batch, into memory they share.

They are new interpreters (never forks of a process that runs jax) that import nothing of the
program that starts them: not its main module, not jax. They hear no signal that asks a run to save
and end, though schedulers send it to all processes of a job, and end when the pipe to their parent
does, whatever ended it. What makes the rows is made again there from a
recipe (``alm_jax.data.recipes``), and messages are JSON: nothing is pickled.
"""

import collections
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, Protocol

import numpy as np

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import recipes
from alm_jax.data.bad_records import BadRecord
from alm_jax.data.shared_memory import Buffer, Field, RowWriter

_HELD = 4  # batches that the consumer may hold; of further ones it gets copies
_PATIENCE = 5.0  # seconds for a worker to end by itself, or to be known as dead
_NOTHING = -1
_MENDABLE = (AudioError, ConfigError)  # by the user; any other error is a defect
# A worker has one thread, and (with glibc) keeps the memory of large arrays instead of giving it
# back to the system after every clip, to get it again page by page.
ENVIRONMENT = {
    'MALLOC_MMAP_THRESHOLD_': str(32 << 20),
    'MALLOC_TRIM_THRESHOLD_': str(256 << 20),
    'MALLOC_TOP_PAD_': str(64 << 20),
    'OMP_NUM_THREADS': '1',
    'OPENBLAS_NUM_THREADS': '1',
    'MKL_NUM_THREADS': '1',
    'TOKENIZERS_PARALLELISM': 'false',
    'JAX_PLATFORMS': 'cpu',  # should anything use jax there, it leaves the accelerator alone
}


@dataclasses.dataclass
class Made:
    """What it took to make rows.

    Attributes:
      read: records that were read.
      bad: those that could not be used.
    """

    read: int = 0
    bad: list[BadRecord] = dataclasses.field(default_factory=list)


class Maker(Protocol):
    """What workers run: each has its own, by its recipe."""

    num_rows: int

    def make(self, data_step: int, numbers: Sequence[int], place: Any, reading: Any) -> Made: ...

    def names(self, data_step: int, number: int, attempt: int) -> str: ...


class WorkerDied(ConfigError):
    """A worker ended on its own; the message names it, how it ended, and what it was reading."""


@dataclasses.dataclass
class _Pending:
    """A batch in the making."""

    slot: int
    waiting: set[int]  # workers whose rows are missing
    fields: list[Field] = dataclasses.field(default_factory=list)
    read: int = 0
    bad: list[BadRecord] = dataclasses.field(default_factory=list)
    failure: tuple[int, dict[str, Any]] | None = None  # of the first row that failed


class Workers(Iterator):
    """Iterates over (batch, records read, bad records) of consecutive steps, without end.

    A batch is made in a slot of shared memory and handed out without a copy; its slot is used again
    once its arrays are gone. A consumer that keeps many batches gets copies. ``close`` may be
    called from another thread than ``next``.
    """

    def __init__(self, maker: Maker, count: int, *, ahead: int, first_step: int = 0):
        """
        Args:
          maker: makes the rows.
          count: processes; no more than rows are started.
          ahead: batches made before they are asked for, at least 1.
          first_step: the first data_step.
        """
        self._maker = maker
        self._step = self._asked = first_step
        self._pending: dict[int, _Pending] = {}
        self._buffers = [Buffer() for _ in range(max(1, ahead) + _HELD)]
        self._free = collections.deque(range(len(self._buffers)))
        self._released: collections.deque[int] = collections.deque()  # by the garbage collector
        self._held = 0
        self._lock, self._closing = threading.Lock(), False
        count = max(1, min(count, maker.num_rows))
        self._status = Buffer()  # int64 [count, 3]: step, row and attempt of what is being read
        self._status.reserve(count * 24)
        self._reading = np.frombuffer(self._status.mapped(), np.int64)[: 3 * count].reshape(-1, 3)
        self._reading[:] = _NOTHING
        self._processes: list[subprocess.Popen] = []
        self._pipes: list[connection.Connection] = []
        self._stop = weakref.finalize(
            self,
            _stop,
            os.getpid(),
            self._processes,
            self._pipes,
            [*self._buffers, self._status],
        )
        recipe = recipes.write((maker, count))
        try:
            for number in range(count):
                self._start(number, recipe)
        finally:
            recipe.buffer.close()

    def __next__(self) -> tuple[dict[str, np.ndarray], int, list[BadRecord]]:
        with self._lock:
            if self._closing:
                self._stop()
                raise StopIteration
            try:
                return self._next()
            except BaseException:
                self._closing = True
                self._stop()
                raise

    def close(self) -> None:
        """Ends the processes. Batches handed out stay valid."""
        self._closing = True
        with self._lock:  # a thread that waits for a batch gives up within a moment
            self._stop()

    def _next(self) -> tuple[dict[str, np.ndarray], int, list[BadRecord]]:
        self._hand_out()
        pending = self._pending[self._step]
        while pending.waiting:
            if self._closing:
                raise StopIteration
            for pipe in connection.wait(self._pipes, timeout=0.1):
                self._receive(self._pipes.index(pipe))
        del self._pending[self._step]
        self._step += 1
        if pending.failure:
            raise _exception(pending.failure[1])
        return self._taken(pending), pending.read, pending.bad

    def _hand_out(self) -> None:
        """Has every free slot filled with the batch that comes next."""
        while self._released:
            self._free.append(self._released.popleft())
            self._held -= 1
        while self._free:
            slot = self._free.popleft()
            self._pending[self._asked] = _Pending(slot, set(range(len(self._pipes))))
            for number, pipe in enumerate(self._pipes):
                try:
                    _send(pipe, self._asked, slot)
                except OSError:
                    raise self._died(number) from None
            self._asked += 1

    def _receive(self, number: int) -> None:
        """One message of a worker: (step, fields, read, bad, failure)."""
        try:
            step, fields, read, bad, failure = _received(self._pipes[number])
        except (EOFError, OSError):
            raise self._died(number) from None
        fields = [Field(name, offset, tuple(shape), kind) for name, offset, shape, kind in fields]
        pending = self._pending[step]
        pending.waiting.discard(number)
        pending.read += read
        pending.bad += [BadRecord(**one) for one in bad]
        if failure and (pending.failure is None or failure[0] < pending.failure[0]):
            pending.failure = failure
        if fields and pending.fields and fields != pending.fields:
            raise RuntimeError(f'batch {step}: rows of {fields} and of {pending.fields}')
        pending.fields = pending.fields or fields

    def _taken(self, pending: _Pending) -> dict[str, np.ndarray]:
        owner, arrays = self._buffers[pending.slot].arrays(pending.fields)
        if self._held >= _HELD:
            arrays = {name: array.copy() for name, array in arrays.items()}
            self._free.append(pending.slot)
        else:
            self._held += 1
            weakref.finalize(owner, self._released.append, pending.slot).atexit = False
        return arrays

    def _start(self, number: int, recipe: recipes.Recipe) -> None:
        ours, theirs = connection.Pipe()
        fds = [theirs.fileno(), recipe.buffer.fd, self._status.fd, *(b.fd for b in self._buffers)]
        program = (
            f'import sys; sys.path[:] = {sys.path!r}; '
            f'import {", ".join([*recipe.modules, __name__])}; '
            f'{__name__}.main({number}, {fds}, {recipe.size}, [{", ".join(recipe.callables)}])'
        )
        try:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, '-c', program],
                    pass_fds=fds,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **ENVIRONMENT},
                    process_group=0,  # the terminal sends Ctrl-C to the parent's group alone
                )
            )
        finally:
            theirs.close()
        self._pipes.append(ours)

    def _died(self, number: int) -> WorkerDied:
        process = self._processes[number]
        try:
            code = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            code = None
        step, row, attempt = self._reading[number].tolist()
        doing = 'while it read no record'
        if step != _NOTHING:
            names = self._maker.names(step, row, attempt)
            doing = f'while it read record {names} (batch {step}, row {row})'
        return WorkerDied(
            f'loader worker {number} of {len(self._processes)} (process {process.pid}) '
            f'{_how_it_ended(code)} {doing}.'
        )


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return 'closed its pipe'
    if code >= 0:
        return f'ended with exit code {code}'
    name = signal.Signals(-code).name
    hint = '; if memory ran out, lower config.data.workers or config.data.prefetch'
    return f'was ended by {name}' + (f' ({hint[2:]})' if name == 'SIGKILL' else '')


def _stop(owner: int, processes: list, pipes: list, buffers: list[Buffer]) -> None:
    """Ends processes that have nothing to save."""
    if os.getpid() != owner:
        return  # a fork of the parent
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
    for buffer in buffers:
        buffer.close()


def _send(pipe: connection.Connection, *message: Any) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _received(pipe: connection.Connection) -> list:
    return json.loads(pipe.recv_bytes())


def _exception(told: dict[str, Any]) -> Exception:
    """What ``_told`` is about."""
    kinds = {kind.__name__: kind for kind in (*_MENDABLE, RuntimeError)}
    error = kinds[told['kind']](told['text'])
    for note in told['notes']:
        error.add_note(note)
    return error


# ---------------------------------------------------------------------------- in the worker


def main(number: int, fds: Sequence[int], size: int, callables: Sequence[Callable]) -> None:
    """The life of worker ``number``: started by ``Workers``, ended by the end of its pipe."""
    for heard in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(heard, signal.SIG_IGN)
    pipe = connection.Connection(fds[0])
    maker, count = recipes.read(Buffer(fds[1]), size, callables)
    os.close(fds[1])
    status = np.frombuffer(Buffer(fds[2]).mapped(), np.int64)[3 * number : 3 * number + 3]
    buffers = [Buffer(fd) for fd in fds[3:]]
    try:
        while True:
            step, slot = _received(pipe)
            _send(pipe, step, *_made(maker, step, number, count, buffers[slot], status))
    except (EOFError, OSError):  # the parent has closed the loader, or is no more
        pass


def _made(
    maker: Maker, step: int, number: int, count: int, buffer: Buffer, status: np.ndarray
) -> tuple[list[Field], int, list[dict[str, Any]], tuple[int, dict[str, Any]] | None]:
    """Every count-th row of all batches in a row, so that all workers have as much to do."""
    total = maker.num_rows
    numbers = range((number - step * total) % count, total, count)
    if not numbers:
        return [], 0, [], None

    def reading(row: int, attempt: int) -> None:
        status[:] = step, row, attempt

    try:
        writer = RowWriter(buffer, total)
        made = maker.make(step, numbers, writer.write, reading)
        return writer.fields, made.read, list(map(dataclasses.asdict, made.bad)), None
    except Exception as error:
        return [], 0, [], (int(status[1]), _told(error))
    finally:
        status[:] = _NOTHING


def _told(error: Exception) -> dict[str, Any]:
    """What a user can mend, as it is; of a defect, its traceback as a note."""
    for kind in _MENDABLE:
        if isinstance(error, kind):
            return {'kind': kind.__name__, 'text': str(error), 'notes': []}
    text = f'{type(error).__name__} in a loader worker: {error}'
    notes = [*getattr(error, '__notes__', ()), ''.join(traceback.format_exception(error))]
    return {'kind': 'RuntimeError', 'text': text, 'notes': notes}
