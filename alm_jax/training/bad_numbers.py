"""Steps with bad numbers: updates that the devices skipped, and losses that spike.

An update is skipped by all devices alike where the loss, a gradient or the update itself is not
finite (``optimizer``). Here the host looks at the numbers of every step, ``LAG`` steps later, so
that no device waits for it. They are the same on all processes, and so is what follows from them.
Before a checkpoint it looks at all of them, and the manifest gets what it remembers: a run that
goes on from there decides as it would have.

``<workdir>/bad_numbers.jsonl`` gets a line for each such step: 'step', 'data_step', 'what'
('not_finite' or 'spike'), 'loss', 'grad_norm' and 'update_norm', of which null is what was not
finite, 'median' (of the losses before a spike) and 'records', the ids of the batch by dataset.
Where a record could not be read another took its place: see quarantine.jsonl.
"""

import collections
import dataclasses
import math
import os
import pathlib
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from alm_jax.config import ConfigError
from alm_jax.training import json_lines
from alm_jax.training.state import TrainState

FILE = 'bad_numbers.jsonl'
LAG = 2  # steps
_TOLD = 3  # record ids in a message
_NUMBERS = ('loss', 'grad_norm', 'update_norm', 'skipped')


class BadNumbersError(ConfigError):
    """The numbers are bad for too long; the message names the batches and what to do."""

    exit_code = 3


@dataclasses.dataclass(frozen=True)
class Spike:
    """A loss far above those before it, at the step that took batch ``data_step``."""

    step: int
    data_step: int
    loss: float
    median: float

    def __str__(self) -> str:
        return (
            f'The loss of step {self.step} (batch {self.data_step}) is {self.loss:.4g}, '
            f'{self.loss / self.median:.3g} times the median {self.median:.4g} of those before.'
        )


class BadNumbers:
    """Judges the steps of a run in their order."""

    def __init__(self, options: ConfigDict, workdir: str | os.PathLike, say: Callable[[str], None]):
        """
        Args:
          options: config.bad_numbers.
          workdir: of the run.
          say: tells the user.

        Raises:
          ConfigError: a rollback without anything to follow.
        """
        if options.rollback and not options.spike_factor:
            raise ConfigError(
                'config.bad_numbers.rollback needs config.bad_numbers.spike_factor, such as 3.0.'
            )
        self._options, self._say = options, say
        self._path = pathlib.Path(workdir) / FILE
        self._waiting: collections.deque[tuple[int, dict[str, jax.Array]]] = collections.deque()
        self.restore({}, lambda batch: True)

    def restore(self, manifest: Mapping[str, Any], over: Callable[[int], bool]) -> None:
        """Remembers what it did at a checkpoint; the file loses the batches that come again.

        Args:
          manifest: of the checkpoint; {} is none.
          over: whether the batch of a ``data_step`` comes no more, see ``Rollbacks.over``.
        """
        saved = manifest.get('bad_numbers', {})
        self._waiting.clear()
        self._in_a_row = saved.get('in_a_row', 0)
        self._losses = collections.deque(saved.get('losses', ()), self._options.spike_window)
        if jax.process_index() == 0:
            json_lines.keep(self._path, lambda entry: over(entry['data_step']))

    def entries(self) -> dict[str, Any]:
        """What a checkpoint is to hold, for ``restore``."""
        remembered = {'in_a_row': self._in_a_row, 'losses': list(self._losses)}
        return {'bad_numbers': remembered}

    def begin(
        self,
        state: TrainState,
        record_ids: Callable[[int], dict[str, list[str]]],
        new_stage: bool = False,
    ) -> None:
        """What follows are the steps from ``state`` on.

        Args:
          state: of the run.
          record_ids: data_step -> ids of the batch by dataset.
          new_stage: whether losses are of another kind from here on.
        """
        self._skipped = int(state.opt_state['skipped'])
        self._behind = int(state.data_step) - int(state.step) - 1  # data_step of a step, less it
        self._record_ids = record_ids
        if new_stage:
            self._losses.clear()

    def look(self, step: int, numbers: Mapping[str, jax.Array], *, all_steps: bool) -> Spike | None:
        """Takes the numbers of a step, and looks at those of an earlier one.

        Args:
          step: just dispatched.
          numbers: its metrics.
          all_steps: whether to wait for this step and look at it as well.

        Returns:
          The spike that a rollback is to follow; what came after it is not looked at.

        Raises:
          BadNumbersError: so many updates were skipped one after another, on all processes.
        """
        picked = {name: numbers[name] for name in _NUMBERS}
        for number in picked.values():
            number.copy_to_host_async()
        self._waiting.append((step, picked))
        while len(self._waiting) > (0 if all_steps else LAG):
            step, picked = self._waiting.popleft()
            values = {name: np.asarray(number).item() for name, number in picked.items()}
            spike = self._judge(step, **values)
            if spike and self._options.rollback:
                self._waiting.clear()
                return spike
        return None

    def _judge(self, step: int, skipped: int, loss: float, **norms: float) -> Spike | None:
        taken, self._skipped = skipped == self._skipped, skipped
        found = {'step': step, 'data_step': step + self._behind}
        told = {name: _finite(value) for name, value in {'loss': loss, **norms}.items()}
        if not taken:
            self._in_a_row += 1
            records = self._write({**found, 'what': 'not_finite', **told})
            if self._in_a_row >= self._options.max_in_a_row:
                raise BadNumbersError(self._too_many(**found, records=records))
            return None
        self._in_a_row = 0
        spike = self._spike(**found, loss=loss)
        if spike:
            self._write({**found, 'what': 'spike', **told, 'median': spike.median})
            self._say(str(spike))
        if self._options.spike_factor:
            self._losses.append(loss)
        return spike

    def _spike(self, step: int, data_step: int, loss: float) -> Spike | None:
        if not self._losses or len(self._losses) < self._losses.maxlen:
            return None
        median = statistics.median(self._losses)
        if loss <= self._options.spike_factor * median:
            return None
        return Spike(step, data_step, loss, median)

    def _write(self, entry: dict[str, Any]) -> dict[str, list[str]]:
        records = self._record_ids(entry['data_step'])
        if jax.process_index() == 0:
            json_lines.add(self._path, {**entry, 'records': records})
        return records

    def _too_many(self, step: int, data_step: int, records: dict[str, list[str]]) -> str:
        ids = [f'{id!r} of {dataset}' for dataset, of in records.items() for id in of]
        more = f' and {len(ids) - _TOLD} more' if len(ids) > _TOLD else ''
        return (
            f'{self._in_a_row} updates in a row were skipped, up to step {step}, because a loss, '
            f'gradient or update was not finite; the parameters are still those of step '
            f'{step - self._in_a_row}. The last batch, {data_step}, is of {", ".join(ids[:_TOLD])}'
            f'{more}; {self._path} lists the records of all. Lower config.optimizer.learning_rate '
            'or clip_norm, exclude the records, or raise config.bad_numbers.max_in_a_row.'
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
