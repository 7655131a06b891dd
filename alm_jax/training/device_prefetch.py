"""Batches on their way to the devices while a step runs."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

_POLL = 0.1  # seconds between looks at whether the end has come


class DevicePrefetch(Iterator):
    """Iterates over ``put(batch)`` of batches, with ``ahead`` of them made before they are due.

    A thread waits for the loader and starts the transfer. The loop then finds its batch on the
    device, also after it has waited for metrics, when nothing else is queued there. Batches come in
    order; what the loader raises is raised here when its batch is due.
    """

    def __init__(self, batches: Iterator[Any], put: Callable[[Any], Any], ahead: int = 1):
        """
        Args:
          batches: of the loader; closed by ``close``.
          put: a batch of numpy arrays to arrays on the devices, without waiting for the transfer
            (``sharding.put_batch``).
          ahead: batches on the devices besides those that steps use.
        """
        self._batches, self._put = batches, put
        self._ready: queue.Queue = queue.Queue(ahead)
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name='device_prefetch', daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        while not self._closing.is_set():
            try:
                batch, failure = self._ready.get(timeout=_POLL)
            except queue.Empty:
                continue
            if failure is not None:
                self.close()
                raise failure
            return batch
        raise StopIteration

    def close(self) -> None:
        """Ends the thread and closes the loader."""
        self._closing.set()
        self._batches.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        while not self._ready.empty():  # gives the memory of batches back
            self._ready.get_nowait()

    def _run(self) -> None:
        try:
            for batch in self._batches:
                with jax.profiler.TraceAnnotation('host_to_device'):
                    placed = self._put(batch)
                if not self._offer((placed, None)):
                    return
                del batch, placed  # shared memory is free once it is on the device
            self._offer((None, StopIteration()))
        except BaseException as failure:  # told to the thread that asks for the batch
            self._offer((None, failure))

    def _offer(self, item: tuple[Any, BaseException | None]) -> bool:
        while not self._closing.is_set():
            try:
                self._ready.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False
