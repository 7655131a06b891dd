"""Ending on SIGTERM, which schedulers send before they take a machine away: save first.

One process hears it itself. Of several, jax's coordinator tells the others when one has heard it,
and finds the step that all can reach, since each has to save its part of the same state.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM  # of a run that has saved and would go on; as a shell gives it


@contextlib.contextmanager
def heard() -> Iterator[Callable[[int], bool]]:
    """Inside, SIGTERM is heard at the end of a step; a second one ends a single process at once.

    Yields:
      reached: step -> whether this is the step to save and end at. All processes must ask once a
        step and get the same answer.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():  # Python hears no signal here
        yield lambda step: False
        return
    told = threading.Event()

    def hear(*_) -> None:
        told.set()
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield lambda step: told.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
