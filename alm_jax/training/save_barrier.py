"""Where the processes of a save wait for each other, in the background, until one has failed.

Orbax's own barrier waits twenty minutes for a process whose disk is full.
"""

import socket
import time

import jax

from alm_jax.distributed import global_state

_KEY = 'alm_jax/save/'
_POLL = 0.1  # seconds


class SaveBarrier:
    """The barriers of one save after another; ``wait`` is what Orbax takes as barrier_sync_fn."""

    def __init__(self):
        self._save = self._call = 0

    def begin(self) -> None:
        """The next save begins, and the one before is over; on all processes."""
        if self._save and jax.process_count() > 1 and jax.process_index() == 0:
            global_state.client.key_value_delete(f'{_KEY}{self._save}/')
        self._save, self._call = self._save + 1, 0

    def wait(self, *, key: str, timeout_ms: int) -> None:
        """Returns when all processes of this save have called it as often.

        Args:
          key: Orbax's name for it, for messages.
          timeout_ms: milliseconds after which to give up.

        Raises:
          OSError: one of them has failed, or they are not all there in time.
        """
        if jax.process_count() == 1:
            return
        self._call += 1
        here = f'{_KEY}{self._save}/'
        _set(f'{here}{self._call}/{jax.process_index()}', '')
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            found = dict(global_state.client.key_value_dir_get(here))
            if failed := [why for name, why in found.items() if '/failed/' in name]:
                raise OSError(failed[0])
            if sum(f'{here}{self._call}/' in name for name in found) == jax.process_count():
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f'not all processes have come to {key}')
            time.sleep(_POLL)

    def fail(self, why: str) -> None:
        """Tells the others that they wait in vain."""
        if jax.process_count() > 1:
            here = f'process {jax.process_index()} on {socket.gethostname()}'
            _set(f'{_KEY}{self._save}/failed/{jax.process_index()}', f'{here}: {why}')


def _set(key: str, value: str) -> None:
    global_state.client.key_value_set(key, value, allow_overwrite=True)
