"""Where the wall time of a run goes, over all commands that it took.

Goodput is the share of the wall time in which the run got further: the seconds of training steps
that its state still holds, without what they waited for data, over all seconds since its first
command began. Not productive are the start (data, initial or restored state), compilation, waiting
for data, checkpoints, evaluations, profiles, and steps that were lost because a command ended
between two checkpoints. Time in which no command ran is not counted, nor are the seconds that
Python takes to import jax. The idea is Google Cloud's, 2023:
https://cloud.google.com/blog/products/ai-machine-learning/goodput-metric-as-measure-of-ml-productivity
"""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator

import jax

FILE = 'goodput.json'
STEPS, DATA_WAIT, LOST, START, OTHER = 'steps', 'data_wait', 'lost', 'start_up', 'other'
COMPILE = 'compile'


class Goodput:
    """Books the seconds of a run under phases, and keeps them in ``<workdir>/goodput.json``.

    The file has 'goodput' (0 to 1), 'wall_seconds', 'seconds' of each phase, which sum to these,
    'step', 'steps' (how many 'seconds.steps' is of) and 'commands'. Only the first process writes.
    Steps are booked when metrics are logged: of a command that is killed, at most what came after
    the last line of metrics is unknown.
    """

    def __init__(self, workdir: str | os.PathLike):
        """The clock of this command starts here."""
        self._began = time.perf_counter()
        self._path = pathlib.Path(workdir) / FILE
        kept = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._seconds = kept.get('seconds', {})
        self._before = sum(self._seconds.values())
        self._step, self._steps = kept.get('step', 0), kept.get('steps', 0)
        self._commands = kept.get('commands', 0) + 1
        self._compiled = self._seconds.get(COMPILE, 0.0)  # up to the last start

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Books the time inside under ``name``, also when it ends by an exception."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.book(name, time.perf_counter() - start)
            self.write()

    def started(self, step: int) -> dict[str, float]:
        """Ends the start of this command, or of a stage, which goes on from ``step``.

        Steps after it that earlier commands had booked are lost, at the mean time of a step.

        Returns:
          'start_up_seconds' and 'compile_seconds' of this start.
        """
        lost = min(max(self._step - step, 0), self._steps)
        if lost:
            seconds = self._seconds[STEPS] * lost / self._steps
            self._seconds[STEPS] -= seconds
            self._seconds[LOST] = self._seconds.get(LOST, 0.0) + seconds
            self._steps -= lost
        self._step = step
        start = self._unbooked()
        compiled = self._seconds.get(COMPILE, 0.0)
        compiling, self._compiled = compiled - self._compiled, compiled
        self.book(START, start)
        self.write()
        return {'start_up_seconds': start, 'compile_seconds': compiling}

    def book(self, name: str, seconds: float, steps: int = 0) -> None:
        """Adds ``seconds`` to a phase, in which the run got ``steps`` further."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._step += steps
        self._steps += steps

    @property
    def share(self) -> float:
        """Goodput up to now, 0 to 1."""
        return self._seconds.get(STEPS, 0.0) / max(self._wall(), 1e-9)

    def write(self) -> None:
        """Replaces the file by one that holds all up to now."""
        if jax.process_index():
            return
        other = self._seconds.get(OTHER, 0.0) + self._unbooked()
        seconds = {**self._seconds, OTHER: other}
        wall = sum(seconds.values())
        content = {
            'goodput': self._seconds.get(STEPS, 0.0) / wall,
            'wall_seconds': wall,
            'seconds': dict(sorted(seconds.items())),
            'step': self._step,
            'steps': self._steps,
            'commands': self._commands,
        }
        partial = self._path.with_suffix('.partial')
        partial.write_text(json.dumps(content, indent=1) + '\n')
        partial.replace(self._path)

    def _wall(self) -> float:
        return self._before + time.perf_counter() - self._began

    def _unbooked(self) -> float:
        return max(self._wall() - sum(self._seconds.values()), 0.0)
