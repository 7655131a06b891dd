"""Work on several processes, its results in order, with no more of it ahead than is needed."""

import collections
import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar('Item')
_AHEAD = 3  # items a process


def in_order(
    work: Callable[[Item], Any], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Any]]:
    """(item, ``work(item)``) of every item, in order.

    Args:
      work: picklable; what it holds is sent to a process once an item, so it should be small.
      items: a pass over them is enough.
      workers: processes; 0 works in this one.
    """
    if workers < 1 or len(items) < 2:
        yield from ((item, work(item)) for item in items)
        return
    context = multiprocessing.get_context('spawn')  # fork is unsafe beside a runtime's threads
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_exit_with_parent
    )
    try:
        waiting: collections.deque[tuple[Item, concurrent.futures.Future]] = collections.deque()
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > _AHEAD * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _exit_with_parent() -> None:
    """A worker would wait for work for ever when its parent is killed."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
