"""Ending on a signal, which schedulers send before they take a machine away: save first.

SIGTERM, SIGUSR1 (what Slurm's --signal is mostly given) and SIGINT (Ctrl-C) are one wish, and it is
enough that one process of a job hears it. The others are told through the coordinator, and all find
a step that each can still reach, since each has to save its part of the same state. Before the
first step there is nothing to save, and the process ends as by Ctrl-C. A second signal ends a
process at once, wherever it is: what it was saving has no manifest yet and does not count.

Python runs its handlers between two lines of the main thread, which may be inside a collective, a
compilation or a save for minutes. So a thread reads what the signals leave in a pipe.
"""

import os
import signal
import sys
import threading
import time

import jax

from alm_jax import distributed

EXIT_CODE = 128 + signal.SIGTERM  # of a run that has saved and would go on; as a shell gives it
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Within so many seconds signals are one: a launcher often sends what the scheduler sends as well.
TOGETHER = 0.5
_ASKED, _CALLS = 'alm_jax/asked_to_end', 'alm_jax/calls/'


def exit_code(number: int) -> int:
    """Of a run that a signal has ended: 130 for Ctrl-C, else ``EXIT_CODE``."""
    return 128 + number if number == signal.SIGINT else EXIT_CODE


class Ended(KeyboardInterrupt):
    """A signal came before the first step."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = exit_code(number)


class Signals:
    """Hears ``SIGNALS`` while it is entered, in the main thread; elsewhere Python cannot."""

    def __init__(self):
        self._heard: signal.Signals | None = None
        self._stepping = False
        several = jax.distributed.is_initialized() and jax.process_count() > 1
        self._agreement = _Agreement() if several else None

    @property
    def heard(self) -> signal.Signals | None:
        """What the run ends by, the same on all processes; None while it goes on."""
        return self._agreement.heard if self._agreement else self._heard

    def reached(self) -> bool:
        """Whether the step just begun is the one to save and end at.

        All processes must ask once a step, and get the same answer.
        """
        self._stepping = True
        return self._agreement.reached() if self._agreement else self._heard is not None

    def __enter__(self) -> 'Signals':
        self._handlers = {}
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe, told = os.pipe()
        os.set_blocking(told, False)
        self._wakeup = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._hear) for number in heard}
        self._thread = threading.Thread(target=self._listen, name='signals', daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._agreement:
            self._agreement.close()
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._handlers:
            told = signal.set_wakeup_fd(self._wakeup)
            os.close(told)  # which ends the thread
            self._thread.join()
            os.close(self._pipe)

    def _hear(self, number: int, frame) -> None:
        """In the main thread."""
        if number == signal.SIGINT and distributed.failed_elsewhere():
            raise KeyboardInterrupt
        if not self._stepping:
            raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)

    def _listen(self) -> None:
        first = None
        while told := os.read(self._pipe, 1):
            if told[0] not in SIGNALS or distributed.failed_elsewhere():
                continue
            number, now = signal.Signals(told[0]), time.monotonic()
            if first is None:
                first = now
                self._first(number)
            elif now - first > TOGETHER:
                distributed.end_now(exit_code(number), f'{number.name} came a second time.')

    def _first(self, number: signal.Signals) -> None:
        self._heard = number
        if self._stepping:
            told = f'\n{number.name}: saves after this step and ends. A second one ends it at once.'
            print(told, file=sys.stderr, flush=True)
        if self._agreement:
            self._agreement.ask(number)


class _Agreement:
    """On the call of ``reached`` at which all processes end, once one of them asks for it."""

    def __init__(self):
        self.heard: signal.Signals | None = None
        self._calls, self._last = 0, None
        self._lock = threading.Lock()  # held while the processes agree, so that none goes further
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='asked_to_end', daemon=True)
        self._thread.start()

    def ask(self, number: signal.Signals) -> None:
        distributed.tell(_ASKED, str(int(number)))

    def reached(self) -> bool:
        with self._lock:
            self._calls += 1
        return self._last is not None and self._calls >= self._last

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        asked = self._wait(_ASKED)
        if asked is None:
            return
        with self._lock:
            distributed.tell(f'{_CALLS}{jax.process_index()}', str(self._calls))
            calls = [self._wait(f'{_CALLS}{process}') for process in range(jax.process_count())]
            if None in calls:
                return
            self.heard, self._last = signal.Signals(int(asked)), max(map(int, calls)) + 1

    def _wait(self, key: str) -> str | None:
        """What a process tells; None when this one ends before, or its job has failed."""
        told = None
        while told is None and not self._closed.is_set():
            try:
                told = distributed.told(key, 1.0)
            except jax.errors.JaxRuntimeError:  # the coordinator is gone: see distributed
                return None
        return told
