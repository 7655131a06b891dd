"""Work on several processes, its results in order, with no more of it ahead than is needed."""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar('Item')
_AHEAD = 3  # items a process
_the_work: Callable | None = None  # of a process that ``in_order`` started


def in_order(
    work: Callable[[Item], Any], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Any]]:
    """(item, ``work(item)``) of every item, in order.

    Args:
      work: picklable; sent to each process once.
      items: of the work; sent as they come.
      workers: processes; 0 works in this one.
    """
    items = iter(items)
    first = list(itertools.islice(items, 2))
    items = itertools.chain(first, items)
    if workers < 1 or len(first) < 2:
        yield from ((item, work(item)) for item in items)
        return
    context = multiprocessing.get_context('spawn')  # fork is unsafe beside a runtime's threads
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(work,)
    )
    try:
        waiting: collections.deque[tuple[Item, concurrent.futures.Future]] = collections.deque()
        for item in items:
            waiting.append((item, pool.submit(_work, item)))
            if len(waiting) > _AHEAD * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start(work: Callable) -> None:
    """Keeps the work of this process."""
    global _the_work
    _the_work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which gets it too, ends them
    _exit_with_parent()


def _work(item: Any) -> Any:
    return _the_work(item)


def _exit_with_parent() -> None:
    """A worker would wait for work for ever when its parent is killed."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
