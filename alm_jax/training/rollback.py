"""The batches that a run has gone back before and leaves out: ``<workdir>/rollbacks.jsonl``.

A rollback restores ``step`` and sets ``data_step`` behind the batch at which the loss spiked. Its
line ('step', of the checkpoint; 'from_data_step' up to and without 'to_data_step'; 'reason') is
written before anything is restored, and stays. So a run that is killed at any time, or goes on from
a still older checkpoint, leaves the same batches out at the same place.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Callable

import jax

from alm_jax import distributed
from alm_jax.training import json_lines
from alm_jax.training.bad_numbers import BadNumbersError
from alm_jax.training.state import TrainState

FILE = 'rollbacks.jsonl'


class Rollbacks:
    """The ranges of batches that are left out, in the order of the rollbacks."""

    def __init__(
        self, workdir: str | os.PathLike, found: pathlib.Path | None = None, at_most: int = 5
    ):
        """All processes must make one: what the first reads counts for all.

        Args:
          workdir: of the run.
          found: the checkpoint that it goes on from; the rollbacks of another run are taken over.
          at_most: config.bad_numbers.max_rollbacks.
        """
        self._path, self._at_most = pathlib.Path(workdir) / FILE, at_most
        if jax.process_index() == 0:
            other = found.parent.parent / FILE if found else self._path
            if other.is_file() and not self._path.exists():
                shutil.copy(other, self._path)
            json_lines.keep(self._path)
        entries = distributed.from_first(lambda: json.dumps(json_lines.read(self._path)))
        self._entries = json.loads(entries)

    def behind(self, data_step: int) -> int:
        """The first batch from ``data_step`` on that is not left out."""
        for entry in self._entries:
            if entry['from_data_step'] <= data_step < entry['to_data_step']:
                data_step = entry['to_data_step']
        return data_step

    def over(self, data_step: int) -> Callable[[int], bool]:
        """Of a run whose next batch is ``data_step``: whether a batch comes no more."""
        return lambda batch: batch < data_step or self.behind(batch) != batch

    def skip(self, state: TrainState) -> TrainState:
        """``state`` with the ``data_step`` of the batch that comes next."""
        data_step = int(state.data_step)
        jump = self.behind(data_step) - data_step
        return state.replace(data_step=state.data_step + jump) if jump else state

    def next_skip(self, state: TrainState, stop: int) -> int:
        """The step, ``stop`` at most, after which batches are left out again."""
        data_step = int(state.data_step)
        gaps = [entry['from_data_step'] - data_step for entry in self._entries]
        return min([stop, *(int(state.step) + gap for gap in gaps if gap > 0)])

    def add(self, step: int, from_data_step: int, to_data_step: int, reason: str) -> None:
        """Leaves out batches, from the first that was not left out before.

        Args:
          step: of the checkpoint that the run goes back to.
          from_data_step: the batch after it.
          to_data_step: the first to come.
          reason: one line.

        Raises:
          BadNumbersError: there have been ``at_most`` rollbacks.
        """
        if len(self._entries) >= self._at_most:
            raise BadNumbersError(
                f'{reason} The run has gone back {len(self._entries)} time(s) already, as often as '
                'config.bad_numbers.max_rollbacks allows. Lower config.optimizer.learning_rate, or '
                f'raise spike_factor or max_rollbacks. {self._path} lists the rollbacks.'
            )
        entry = {
            'step': step,
            'from_data_step': self.behind(from_data_step),
            'to_data_step': to_data_step,
            'reason': reason,
        }
        self._entries.append(entry)
        if jax.process_index() == 0:
            json_lines.add(self._path, entry)
