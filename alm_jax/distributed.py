"""Several processes, one job: how they find each other, agree, and end together.

``session()`` surrounds what a binary does. Alone on a machine nothing is started. Otherwise process
0 holds a coordinator that the others connect to, whose address comes from the flags, else from
Slurm, Open MPI or a TPU's metadata, which jax reads. When one process fails, or is interrupted, the
others are told which and why and end as well, rather than to wait for it in a collective.
"""

import atexit
import contextlib
import hashlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

import jax
import numpy as np
from absl import flags
from jax._src.distributed import global_state  # the coordinator's store has no public name
from jax.experimental import multihost_utils

from alm_jax.config import ConfigError

GRACE = 20.0  # seconds to finish a checkpoint in, once a process has failed
HEARTBEAT = 60  # seconds after which a process that says nothing is taken for dead
_POLL = 1.0
_LAST = 4 * _POLL  # so much later go who failed, and process 0, than those whom that holds up
_ENDED, _DONE = 'alm_jax/ended/', 'alm_jax/done/'
_calls = itertools.count()  # of from_first
_failed_elsewhere, _ending_now = threading.Event(), threading.Event()
_FLAGS = ('coordinator_address', 'num_processes', 'process_id')


def define_flags() -> None:
    """Declares --coordinator_address, --num_processes, --process_id and how long to wait."""
    flags.DEFINE_string(
        'coordinator_address', '', 'HOST:PORT of process 0; with the two flags that follow.'
    )
    flags.DEFINE_integer('num_processes', None, 'Processes of this job.')
    flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.')
    flags.DEFINE_integer('join_seconds', 300, 'How long to wait for the others at the start.')


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Joins the other processes, if there are any, and leaves with them.

    Whatever is raised inside is told to the others, who are interrupted as by Ctrl-C and are given
    ``GRACE`` seconds.
    """
    initialize()
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        yield
        return
    ending = _Ending()
    try:
        yield
    except BaseException as error:
        ending.leave(error)
        raise
    ending.stop()


def initialize() -> None:
    """Makes jax one of several processes, or does nothing where this is the only one.

    Call it after flags are parsed and before any device is touched. ``session`` does.

    Raises:
      ConfigError: flags that do not fit together, or a coordinator that cannot be reached; ends the
        process with the same message and code when others do not come in --join_seconds.
    """
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    # Of SIGTERM it would know only that it came: see training.preemption.
    jax.config.update('jax_enable_preemption_service', False)
    given = {name: flags.FLAGS[name].value for name in _FLAGS}
    seconds = flags.FLAGS.join_seconds
    address = _checked(given)
    if address and given['num_processes'] == 1:
        return
    arguments = {**given, 'cluster_detection_method': 'deactivate'} if address else None
    arguments = arguments or detected(os.environ)
    if arguments is None:
        return
    with _deadline(seconds, _who_is_missing(address)):
        if address and given['process_id']:
            _wait_for(*address, seconds)
        try:
            jax.distributed.initialize(
                **arguments,
                initialization_timeout=seconds + 60,  # jax would abort the process: ours is first
                heartbeat_timeout_seconds=HEARTBEAT,
            )
        except jax.errors.JaxRuntimeError as error:
            raise ConfigError(
                f'process {given["process_id"] or 0} cannot hold the coordinator at '
                f'{given["coordinator_address"] or "its port"} ({error}). Another program has the '
                'port: choose another, with --coordinator_address or $JAX_COORDINATOR_PORT.'
            ) from error


def detected(environment: Mapping[str, str]) -> dict | None:
    """Arguments of ``jax.distributed.initialize`` for where this runs; None for a process alone.

    A shell of salloc and the script of sbatch are one process, whatever the job's tasks: only
    srun's steps count.

    Args:
      environment: ``os.environ``.

    Raises:
      ConfigError: several processes of an Open MPI that does not tell jax its address.
    """
    if int(environment.get('SLURM_STEP_NUM_TASKS', 1)) > 1:
        devices = _slurm_devices(environment)
        return {'cluster_detection_method': 'slurm', 'local_device_ids': devices}
    if int(environment.get('OMPI_COMM_WORLD_SIZE', 1)) > 1:
        if 'OMPI_MCA_orte_hnp_uri' not in environment:
            raise ConfigError(
                'this Open MPI does not tell where process 0 is. Give --coordinator_address '
                'HOST:PORT --num_processes=$OMPI_COMM_WORLD_SIZE '
                '--process_id=$OMPI_COMM_WORLD_RANK.'
            )
        return {'cluster_detection_method': 'ompi'}
    if environment.get('TPU_ML_PLATFORM'):  # set by jax where it finds TPUs
        hosts = environment.get('TPU_PROCESS_ADDRESSES', environment.get('TPU_WORKER_HOSTNAMES'))
        slices = int(environment.get('MEGASCALE_NUM_SLICES', 1))
        if hosts is None or ',' in hosts or slices > 1:
            return {}
    return None


def from_first(make: Callable[[], str]) -> str:
    """What ``make`` gives on process 0, on every process. All must call it, in the same order."""
    if jax.process_count() == 1:
        return make()
    key, client = f'alm_jax/from_first/{next(_calls)}', global_state.client
    if jax.process_index() == 0:
        client.key_value_set(key, make())
    while True:  # for in one long wait Ctrl-C would not be heard
        if (found := told(key, _POLL)) is not None:
            return found


def tell(key: str, value: str) -> None:
    """Leaves ``value`` with the coordinator; where ``key`` has one already, that stays."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        global_state.client.key_value_set(key, value)


def told(key: str, seconds: float) -> str | None:
    """What a process has left under ``key``; None when none does within ``seconds``."""
    try:
        return global_state.client.blocking_key_value_get(key, int(1000 * seconds))
    except jax.errors.JaxRuntimeError as error:
        if 'DEADLINE_EXCEEDED' not in str(error):
            raise
    return None


def failed_elsewhere() -> bool:
    """Whether another process has ended, for which this one is interrupted."""
    return _failed_elsewhere.is_set()


def end_now(code: int, why: str) -> NoReturn:
    """Ends this process at once, from any thread, and the others as soon as they hear of it."""
    _ending_now.set()
    print(f'\n{why}', file=sys.stderr, flush=True)
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        announcing = threading.Thread(target=_announce, args=(code, why, 0.0), daemon=True)
        announcing.start()
        announcing.join(_POLL)
        if jax.process_index() == 0:  # where they hear it
            time.sleep(2 * _POLL)
    _exit_now(code)


def gather_bytes(mine: bytes) -> list[bytes]:
    """What every process gives, by process, on every process. All must call it.

    Lengths may differ; it goes over the devices' network.
    """
    if jax.process_count() == 1:
        return [mine]
    sizes = multihost_utils.process_allgather(np.array([len(mine)], np.int32)).reshape(-1)
    if not sizes.any():
        return [b''] * len(sizes)
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(mine)] = np.frombuffer(mine, np.uint8)
    everything = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:size].tobytes() for row, size in zip(everything, sizes)]


def is_first() -> bool:
    """Whether this is process 0; touches no device, so that it may come before ``initialize``."""
    return global_state.process_id == 0


def total(count: int) -> int:
    """The sum over all processes. All must call it."""
    if jax.process_count() == 1:
        return count
    return int(multihost_utils.process_allgather(np.array(count, np.int32)).sum())


def check_equal(what: str, value: str) -> None:
    """Raises ConfigError, on all processes, where theirs differ; all must call it."""
    digest = hashlib.sha256(value.encode()).hexdigest()
    mine = f'{digest} {socket.gethostname()}'.encode()
    found = [each.decode().split(' ', 1) for each in gather_bytes(mine)]
    for process, (other, host) in enumerate(found):
        if other != found[0][0]:
            raise ConfigError(
                f'process {process} on {host} has another {what} than process 0 on {found[0][1]}. '
                'Start all with the same command, code and data, and the same access to the '
                'network.'
            )


def _checked(given: Mapping) -> tuple[str, int] | None:
    """(host, port) of the flags, None when none is given. Raises ConfigError."""
    missing = [f'--{name}' for name in _FLAGS if given[name] in ('', None)]
    if len(missing) == len(_FLAGS):
        return None
    if missing:
        raise ConfigError(
            f'{" and ".join(missing)} must be given too: --coordinator_address HOST:PORT '
            '--num_processes N --process_id I, or none of the three.'
        )
    count, index = given['num_processes'], given['process_id']
    if count < 1 or not 0 <= index < count:
        raise ConfigError(
            f'--process_id is {index} of --num_processes {count}; ids go from 0 to {count - 1}.'
        )
    host, _, port = given['coordinator_address'].rpartition(':')
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(
            f'--coordinator_address is {given["coordinator_address"]!r}; it is HOST:PORT of '
            'process 0, such as localhost:12355.'
        )
    return host.strip('[]'), int(port)


def _slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
    """The GPUs of this task: all that it sees if it is alone on its node, or sees only one.

    None leaves it to jax, which gives the n-th task of a node the n-th GPU.
    """
    visible = [gpu for gpu in environment.get('CUDA_VISIBLE_DEVICES', '').split(',') if gpu]
    tasks, nodes = (environment.get(f'SLURM_STEP_NUM_{name}') for name in ('TASKS', 'NODES'))
    return list(range(len(visible))) if visible and (tasks == nodes or len(visible) == 1) else None


def _wait_for(host: str, port: int, seconds: float) -> None:
    """Returns when ``host:port`` answers: jax would abort the process if it does not."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline - _POLL:
                raise ConfigError(
                    f'the coordinator {host}:{port} cannot be reached in {seconds} s ({error}). '
                    'Is process 0 running, is the address that of its host, and does the network '
                    'let the port through? --join_seconds waits longer.'
                ) from error
        time.sleep(_POLL)


def _who_is_missing(address: tuple[str, int] | None) -> str:
    where = f'at {address[0]}:{address[1]}' if address else 'that the cluster names'
    return (
        f'process on {socket.gethostname()}: not all processes have come to the coordinator '
        f'{where}. See the output of the others: one has failed, was not started, or was given '
        'another --num_processes or --process_id.'
    )


@contextlib.contextmanager
def _deadline(seconds: float, message: str) -> Iterator[None]:
    """Ends the process with ``message`` when what is inside takes longer; it cannot be stopped."""

    def end() -> None:
        print(f'error: after {seconds} s: {message}', file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds + 1, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Ending:
    """Tells the others that this process ends, and ends it when one of them does."""

    def __init__(self):
        self._stopped = threading.Event()
        self._interrupted = False
        self._other: int | None = None  # exit code of the first of the others that failed
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        self._thread = threading.Thread(target=self._watch, name='other_processes', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when all are done: who still works must be able to tell that it failed."""
        global_state.client.key_value_set(f'{_DONE}{jax.process_index()}', '')
        if jax.process_index() == 0:
            while len(global_state.client.key_value_dir_get(_DONE)) < jax.process_count():
                time.sleep(_POLL / 4)
        from_first(str)
        self._stopped.set()
        self._thread.join()

    def leave(self, error: BaseException) -> None:
        """Announces the end; the interpreter's exit then ends the process, whatever holds it up."""
        self._stopped.set()
        if self._other is None and (ended := _ended()):  # why a collective failed, before we looked
            self._other = int(ended[0].split(' ')[0])
        code = _exit_code(error) if self._other is None else self._other
        why = f'{type(error).__name__}: {error}'.splitlines()[0].rstrip(': ')
        _announce(code, why, GRACE)
        threading.Thread(target=_exit_after_grace, args=(code, GRACE, _LAST), daemon=True).start()
        atexit.register(self._exit, code)

    def _interrupt(self, *_) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def _watch(self) -> None:
        while not self._stopped.wait(_POLL):
            if (ended := _ended()) and not _ending_now.is_set():
                code, grace, why = ended[0].split(' ', 2)
                self._other = int(code)
                _failed_elsewhere.set()
                text = f'{why}\nprocess {jax.process_index()} ends too.'
                print(text, file=sys.stderr, flush=True)
                if not self._interrupted:  # else it may be writing its last checkpoint
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                more = _LAST * (jax.process_index() == 0)
                _exit_after_grace(self._other, float(grace), more)

    def _exit(self, code: int) -> None:
        """Instead of jax's own exit, which waits for processes that may never come."""
        first = jax.process_index() == 0  # where the store lives, so that it goes last
        deadline = time.monotonic() + (GRACE + _LAST if first else _LAST)
        while len(_ended()) < jax.process_count() and time.monotonic() < deadline:
            time.sleep(_POLL / 4)
        time.sleep(_POLL * first)
        _exit_now(code)


def _announce(code: int, why: str, grace: float) -> None:
    """Tells the others that this process ends, and how many seconds they have."""
    where = f'process {jax.process_index()} on {socket.gethostname()}'
    tell(f'{_ENDED}{jax.process_index()}', f'{code} {grace:g} {where}: {why}')


def _ended() -> list[str]:
    """What processes that failed have announced, 'code grace why'; none when the store is gone."""
    try:
        return [why for _, why in global_state.client.key_value_dir_get(_ENDED)]
    except jax.errors.JaxRuntimeError:
        return []


def _exit_after_grace(code: int, grace: float, more: float) -> None:
    time.sleep(grace + more)
    _exit_now(code)


def _exit_now(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    usual = 130 if isinstance(error, KeyboardInterrupt) else 1
    return getattr(error, 'exit_code', usual)
