"""The rows of a batch from the plan: records read, transformed, and replaced where they are bad."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import batch_text, plan
from alm_jax.data.bad_records import BadRecord
from alm_jax.data.batch_text import Tokenizer
from alm_jax.data.captions import TextError
from alm_jax.data.sources import Source
from alm_jax.data.workers import Made

_READS = 3  # of a record that the system cannot read, before the run ends
_WAIT = 0.2  # seconds before the second, five times as long before each further one
_SUBSTITUTES = 50  # bad records after one another in one slot, before the run ends


@dataclasses.dataclass(frozen=True)
class BatchMaker:
    """data_step -> the batch of one host. Holds no state; see ``workers`` for where it runs.

    Attributes:
      sources, mixture: of the plan; ``noises`` and ``impulses`` too, where the mixture draws any.
      transform: (records, key, window_samples=...) -> {name: array} with a 'caption'.
      window_samples: of each window of the plan.
      tokenizer: (captions, lengths) -> {'token_ids', 'token_mask'}.
      text_length: tokens.
      negatives: hard negatives that a row has places for.
      seed, batch_size: of the run.
      rows: those of the global batch that belong to this host.
      on_bad: whether a record that cannot be used is skipped or ends the run ('fail').
    """

    sources: Sequence[Source]
    mixture: plan.Mixture
    transform: Callable[..., dict[str, Any]]
    window_samples: tuple[int, ...]
    tokenizer: Tokenizer
    text_length: int
    seed: int
    batch_size: int
    rows: slice
    on_bad: str = 'fail'
    negatives: int = 0
    noises: Source | None = None
    impulses: Source | None = None

    def __call__(self, data_step: int) -> dict[str, np.ndarray]:
        """The batch: arrays with one row a row of the plan."""
        return self.whole(data_step)[0]

    def whole(self, data_step: int) -> tuple[dict[str, np.ndarray], Made]:
        """All rows of this host as one array a name, and what it took to make them."""
        rows: dict[int, dict[str, Any]] = {n: {} for n in range(self.num_rows)}
        made = self.make(data_step, range(self.num_rows), lambda n, row: rows[n].update(row))
        return stacked(list(rows.values())), made

    @property
    def num_rows(self) -> int:
        """Rows of this host."""
        return len(range(*self.rows.indices(self.batch_size)))

    def make(
        self,
        data_step: int,
        numbers: Sequence[int],
        place: Callable[[int, Mapping[str, Any]], None],
        reading: Callable[[int, int], None] = lambda number, attempt: None,
    ) -> Made:
        """Makes some rows of this host.

        Args:
          data_step: the batch.
          numbers: of the rows, counted from the first of this host.
          place: given (number, arrays) of a row as soon as its audio is made, and again when the
            texts of all rows are tokens.
          reading: told (number, attempt) of each row before its records are read.

        Raises:
          ConfigError: a record that cannot be read, or not be used while on_bad is 'fail'; names
            it. Any other exception is a defect; a note names the record.
        """
        planned = self._planned(data_step, numbers)
        made, texts = Made(), []
        for number, first in zip(numbers, planned):
            row = self._row(first, data_step, number, made, reading)
            place(number, {n: row.pop(n) for n in list(row) if _is_numeric(row[n])})
            texts.append(row)
        batch_text.tokenise(texts, self.tokenizer, self.text_length, self.negatives)
        for number, row in zip(numbers, texts):
            place(number, row)
        return made

    def names(self, data_step: int, number: int, attempt: int = 0) -> str:
        """The records of a row, for messages."""
        (row,) = self._planned(data_step, [number])
        return self._names(plan.substitute(row, attempt, self.mixture) if attempt else row)

    def record_ids(self, data_step: int) -> dict[str, list[str]]:
        """What the plan takes for the batches of all hosts together: ids by dataset, row by row."""
        found: dict[str, list[str]] = {}
        for row in plan.plan(self.seed, data_step, self.mixture, self.batch_size):
            drawn = [(self.sources[dataset], index) for dataset, index in row.records]
            drawn += [(self.noises, row.noise)] * (row.noise is not None)
            drawn += [(self.impulses, row.impulse)] * (row.impulse is not None)
            for source, index in drawn:
                found.setdefault(source.name, []).append(source.id(index))
        return found

    def _planned(self, data_step: int, numbers: Sequence[int]) -> list[plan.Row]:
        slots = range(*self.rows.indices(self.batch_size))
        slots = [slots[number] for number in numbers]
        return plan.plan(self.seed, data_step, self.mixture, self.batch_size, slots)

    def _row(
        self, first: plan.Row, data_step: int, number: int, made: Made, reading: Callable
    ) -> dict[str, Any]:
        row = first
        for attempt in range(1, _SUBSTITUTES + 1):
            reading(number, attempt - 1)
            made.read += len(row.records)
            try:
                return self._transformed(row)
            except (AudioError, TextError) as error:
                if self.on_bad == 'fail' or _is_of_the_system(error):  # the latter was retried
                    raise ConfigError(f'record {self._names(row)}: {error}') from error
                made.bad.append(self._bad(row, data_step, error))
            except (ConfigError, OSError) as error:
                raise ConfigError(f'record {self._names(row)}: {error}') from error
            except Exception as error:
                error.add_note(f'record {self._names(row)}')
                raise
            row = plan.substitute(first, attempt, self.mixture)
        raise ConfigError(
            f'{_SUBSTITUTES} records one after another cannot be used; the last is '
            f'{made.bad[-1].id} of {made.bad[-1].dataset}: {made.bad[-1].reason}'
        )

    def _transformed(self, row: plan.Row) -> dict[str, Any]:
        """The row, its records read again where the system fails to."""
        for attempt in range(_READS):
            try:
                examples = [self.sources[dataset].read(index) for dataset, index in row.records]
                extra = {}
                if row.noise is not None:
                    extra['noise'] = self.noises.read(row.noise)
                if row.impulse is not None:
                    extra['impulse_response'] = self.impulses.read(row.impulse)
                window_samples = self.window_samples[row.window]
                return self.transform(examples, row.key, window_samples=window_samples, **extra)
            except (AudioError, OSError) as error:
                if attempt + 1 == _READS or not _is_of_the_system(error):
                    raise
                time.sleep(_WAIT * 5**attempt)
        raise AssertionError

    def _bad(self, row: plan.Row, data_step: int, error: Exception) -> BadRecord:
        dataset = self.sources[row.records[0][0]]
        ids = ', '.join(self.sources[d].id(i) for d, i in row.records)
        shard = dataset.shard(row.records[0][1])
        return BadRecord(dataset.name, ids, ' '.join(str(error).split()), data_step, shard)

    def _names(self, row: plan.Row) -> str:
        names = [f'{self.sources[d].id(i)!r} of {self.sources[d].name}' for d, i in row.records]
        if row.noise is not None and self.noises is not None:
            names.append(f'noise {self.noises.id(row.noise)!r}')
        if row.impulse is not None and self.impulses is not None:
            names.append(f'impulse response {self.impulses.id(row.impulse)!r}')
        return ', '.join(names)


def _is_of_the_system(error: BaseException | None) -> bool:
    """Whether a failing read is behind it, which says nothing about the content of a record."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)


def stacked(rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows as one array a name."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
