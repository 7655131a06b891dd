"""Says where a run hangs: which process, in what phase, for how long, and on which line.

When no step has completed for ``config.watchdog_seconds`` every process prints one line and the
stack of its main thread, and again after twice the time, four times, and so on. Of several, the one
to look at is the one in another phase than 'step', or the one that is silent: the others wait for
it in their step. Nothing is ended: a slow disk or a long evaluation may recover, and whoever pays
for the machines has a time limit on the job. A process that ended is another matter, see
``alm_jax.distributed``. The phase is also in the workdir, for ``alm_jax.status``.
"""

import contextlib
import dataclasses
import faulthandler
import os
import socket
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator

import jax

from alm_jax.config import ConfigError
from alm_jax.training import phase_file

_LOOKS = 8  # in the given seconds


@dataclasses.dataclass
class _Marks:
    """What the loop has told; times are of time.monotonic."""

    phase: str
    entered: float
    progressed: float
    steps: int = 0
    begun_at: int = 0  # the step that ``steps`` counts from
    writing: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class Watchdog:
    """Watches from a thread until it is closed or gone; the loop marks its phases and steps."""

    def __init__(self, seconds: float, workdir: str | os.PathLike | None = None):
        """
        Args:
          seconds: config.watchdog_seconds; 0 prints nothing.
          workdir: where ``phase_file`` is kept up to date; None is nowhere.

        Raises:
          ConfigError: they are negative.
        """
        if seconds < 0:
            raise ConfigError(f'config.watchdog_seconds is {seconds}; it is 0 (off) or more.')
        now = time.monotonic()
        self._marks = _Marks('start', now, now)
        stop = threading.Event()
        # The threads do not keep it alive.
        self.close = weakref.finalize(self, _end, workdir, self._marks, stop)
        if seconds:
            arguments = seconds, self._marks, stop
            threading.Thread(target=_watch, args=arguments, name='watchdog', daemon=True).start()
        if workdir is not None:
            arguments = workdir, self._marks, stop
            threading.Thread(target=_tell, args=arguments, name='phase_file', daemon=True).start()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is inside is of this phase; afterwards it is again the one before."""
        before = self._marks.phase
        self.enter(name)
        yield
        self.enter(before)

    def enter(self, name: str) -> None:
        """From here on it is this phase."""
        self._marks.phase, self._marks.entered = name, time.monotonic()

    def at(self, step: int) -> None:
        """The run stands at ``step``: at its begin, and where it went back."""
        self._marks.begun_at = step - self._marks.steps

    def stepped(self) -> None:
        """A step has completed; what follows is of phase 'step' where no other is marked."""
        self._marks.steps += 1
        self._marks.progressed = time.monotonic()
        self.enter('step')


def _watch(seconds: float, marks: _Marks, stop: threading.Event) -> None:
    who = f'process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}'
    due, seen = seconds, marks.progressed
    while not stop.wait(seconds / _LOOKS):
        # Should this thread not get to run any more, because another holds Python's lock, stacks
        # are printed without it.
        faulthandler.dump_traceback_later(2 * seconds, file=sys.__stderr__)
        now = time.monotonic()
        if marks.progressed != seen:
            due, seen = seconds, marks.progressed
        if now - marks.progressed < due:
            continue
        due *= 2
        print(
            f'\nwatchdog: {who}: no step has completed for {now - marks.progressed:.0f} s, after '
            f'{marks.steps} of this run; for {now - marks.entered:.0f} s in the phase '
            f'{marks.phase!r}. It goes on. Its main thread is at:\n{_main_stack()}',
            file=sys.stderr,
            flush=True,
        )
    faulthandler.cancel_dump_traceback_later()


def _tell(workdir: str | os.PathLike, marks: _Marks, stop: threading.Event) -> None:
    while not stop.is_set():
        with marks.writing:
            if not stop.is_set():
                _write(workdir, marks, marks.phase)
        stop.wait(phase_file.SECONDS)


def _end(workdir: str | os.PathLike | None, marks: _Marks, stop: threading.Event) -> None:
    stop.set()
    if workdir is not None:
        with marks.writing:  # no phase is written after this one
            marks.entered = time.monotonic()
            _write(workdir, marks, phase_file.ENDED)


def _write(workdir: str | os.PathLike, marks: _Marks, phase: str) -> None:
    since = time.time() - (time.monotonic() - marks.entered)
    step = marks.begun_at + marks.steps
    phase_file.write(workdir, phase, since, step, jax.process_index(), jax.process_count())


def _main_stack() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident)
    return ''.join(traceback.format_stack(frame)) if frame else '(ended)'
