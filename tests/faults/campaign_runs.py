"""One command of the campaign of kills: its processes, what they are doing, and how they end.

What a command does is read from what it leaves on the disk and says, never from inside of it.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

from alm_jax.training import checkpoint
from tests.faults import campaign_config as small

ROOT = pathlib.Path(__file__).parents[2]
MARK = 'ALM_JAX_CAMPAIGN'  # in the environment of a command and of all that it starts
PATIENCE = 900.0  # seconds for a command to end or to get anywhere
PHASES = (
    *('start-up', 'compile', 'first batch', 'step', 'data wait', 'save', 'manifest'),
    *('evaluation', 'hand-off', 'end'),
)


class Command:
    """``python -m alm_jax.train`` in one or several processes that all carry one mark."""

    def __init__(self, workdir: pathlib.Path, arguments: tuple, processes: int, number: int):
        """Starts it.

        Args:
          workdir: of the run; beside it lies the compilation cache that all commands share.
          arguments: of the program, without --workdir.
          processes: how many; each has one CPU device.
          number: of this command of the run, for the names of its outputs.
        """
        self.workdir, self.began = workdir, time.time()
        self.waits_for_data = False  # since the workers were stopped
        self._mark = uuid.uuid4().hex
        workdir.mkdir(parents=True, exist_ok=True)
        self._outputs = [
            workdir.with_name(f'{workdir.name}.{number}.{p}') for p in range(processes)
        ]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(('SLURM_', 'OMPI_'))},
            MARK: self._mark,
            'PYTHONPATH': str(hide_large_packages(workdir.parent / 'hidden')),
            'JAX_PLATFORMS': 'cpu',
            'XLA_FLAGS': '--xla_backend_optimization_level=0',
            'OMP_NUM_THREADS': '1',
            'JAX_COMPILATION_CACHE_DIR': str(workdir.parent / 'compiled'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        command = [sys.executable, '-m', 'alm_jax.train', '--workdir', workdir, *arguments]
        places = _places(processes)
        self.processes = []
        for output, place in zip(self._outputs, places):
            with output.open('w') as file:
                self.processes.append(
                    subprocess.Popen(
                        [*map(str, command), *place],
                        cwd=ROOT,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    # ---------------------------------------------------------------------------- what it does

    def said(self) -> str:
        """What process 0 has printed."""
        return self._outputs[0].read_text(errors='replace')

    def tail(self) -> str:
        """The ends of all outputs."""
        texts = [output.read_text(errors='replace')[-1500:] for output in self._outputs]
        return '\n'.join(f'--- {o}\n{text}' for o, text in zip(self._outputs, texts))

    def restored(self) -> int | None:
        """The step it went on from, 0 for scratch; None before it has said so."""
        found = re.search(r'^state: (.*)$', self.said(), re.MULTILINE)
        return found and int((re.findall(r'/checkpoints/(\d+)$', found[1]) or [0])[0])

    def logged(self) -> int:
        """The last step that this command has logged; 0 before there is one."""
        path, restored = self.workdir / 'metrics.jsonl', self.restored()
        if restored is None or not path.exists() or path.stat().st_mtime < self.began:
            return 0
        step = last_step(self.workdir)
        return step if step > restored else 0

    def saving(self) -> str:
        """'save' while Orbax writes, 'manifest' between that and the manifest, else ''."""
        found = ''
        with contextlib.suppress(FileNotFoundError):  # a folder that is renamed meanwhile
            for folder in (self.workdir / 'checkpoints').iterdir():
                old = folder.stat().st_mtime < self.began  # of a command before
                if not folder.is_dir() or old or (folder / checkpoint.MANIFEST).exists():
                    continue
                found = 'manifest' if folder.name.isdigit() else 'save'
        return found

    def phase(self) -> str:
        """One of PHASES; exact while the command is frozen."""
        said, logged = self.said(), self.logged()
        compiled = said.count('compiled for ')
        if self.restored() is None:
            return 'start-up'
        if not compiled:
            return 'compile'
        if saving := self.saving():
            return saving
        if self.waits_for_data:
            return 'data wait'
        if self._evaluates(logged):
            return 'evaluation'
        if logged == small.BOUNDARY and compiled < 2:
            return 'hand-off'
        if logged == small.STEPS:
            return 'end'
        return 'step' if logged > (compiled > 1) * small.BOUNDARY else 'first batch'

    def _evaluates(self, logged: int) -> bool:
        done = self.workdir / 'evals' / 'sounds' / f'{logged}.json'
        due = 'sounds' in json.loads((self.workdir / 'config.json').read_text())['evals']
        missing = not done.exists() or done.stat().st_mtime < self.began
        return due and logged in small.EVALUATED and missing

    # ---------------------------------------------------------------------------- done to it

    def pids(self) -> list[int]:
        """All processes with the mark, loader workers too, that have not ended."""
        found = []
        for entry in pathlib.Path('/proc').iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and self._mark.encode() in (entry / 'environ').read_bytes():
                    found.append(int(entry.name))
        return found

    def workers(self) -> list[int]:
        """Processes that make batches."""
        return sorted({*self.pids()} - {process.pid for process in self.processes})

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, no process of it gets any further, but to its death."""
        pids = self.pids()
        signal_all(pids, signal.SIGSTOP)
        deadline = time.monotonic() + 1
        while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.0005)
        try:
            yield
        finally:
            signal_all(pids, signal.SIGCONT)

    def ended(self) -> bool:
        """Whether all its processes have; the loader's workers aside."""
        return all(process.poll() is not None for process in self.processes)

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Whether all have ended by then."""
        return until(self.ended, seconds, every=0.05)

    def sweep(self, seconds: float = 10.0) -> int:
        """Kills what is left of an ended command after some seconds: how many that were."""
        until(lambda: not self.pids(), seconds, every=0.05)
        left = self.pids()
        signal_all(left, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        return len(left)


def until(condition: Callable[[], bool], seconds: float = PATIENCE, every: float = 0.01) -> bool:
    """Whether it comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def hide_large_packages(folder: pathlib.Path) -> pathlib.Path:
    """A place for PYTHONPATH: a start without them takes half the time, and is that of a user."""
    for name in ('torch', 'tensorflow', 'transformers', 'librosa', 'sklearn'):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / '__init__.py').write_text(f'raise ImportError("no {name} here")\n')
    return folder


def last_step(workdir: pathlib.Path) -> int:
    """Of the last whole line of metrics.jsonl; 0 without one."""
    path = workdir / 'metrics.jsonl'
    whole = path.read_text().rpartition('\n')[0] if path.exists() else ''
    return json.loads(whole.splitlines()[-1])['step'] if whole else 0


def newest(workdir: pathlib.Path) -> pathlib.Path | None:
    """The checkpoint with a manifest that is of the latest step, whole or not."""
    found = [path.parent for path in (workdir / 'checkpoints').glob(f'*/{checkpoint.MANIFEST}')]
    return max(found, key=lambda folder: int(folder.name), default=None)


def newest_whole(workdir: pathlib.Path) -> int:
    """The step to go on from; 0 is scratch."""
    found = [path.parent for path in (workdir / 'checkpoints').glob(f'*/{checkpoint.MANIFEST}')]
    return max((int(f.name) for f in found if checkpoint.damage(f) is None), default=0)


def signal_all(pids: list[int], how: signal.Signals) -> None:
    """To each that still is."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


def _runs(pid: int) -> bool:
    try:
        state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        return False
    return state not in 'TtZX'


def _places(processes: int) -> list[list[str]]:
    """The flags by which processes find each other; one alone needs none."""
    if processes == 1:
        return [[]]
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    job = [f'--coordinator_address=localhost:{port}', f'--num_processes={processes}']
    return [[*job, f'--process_id={process}'] for process in range(processes)]
