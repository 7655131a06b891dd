"""Which records make batch n: a pure function of (seed, data_step), on any number of hosts.

No iterator has a state, so any step is reachable at once and a resume, on any number of hosts,
gives the batches that an uninterrupted run would have had.

A batch has one window length. The step decides which, by the share of units that need it; row
``slot`` of the n-th batch of that window then has position n * batch_size + slot, the position
decides the dataset, and how often that dataset came before decides the unit: the epochs of a
dataset are permutations of its units, one after another. All three are closed forms (shares.py), so
nothing is counted along the way. What is left of an epoch when a batch is full goes on in the next.
"""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.data.permutation import shuffled
from alm_jax.data.pools import Pool
from alm_jax.data.shares import BLOCK, Shares, count, entropy_of, generator, locate

__all__ = ['BLOCK', 'Mixture', 'Row', 'host_rows', 'plan', 'substitute', 'window_of']

# Purposes of randomness.
_ROW_KEY, _WINDOWS, _DATASETS, _EPOCH, _COMPANIONS, _NOISE, _SUBSTITUTE = range(7)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Datasets with their shares of the rows.

    Attributes:
      pools: the units of each dataset, all with the same windows.
      weights: relative shares of the rows (not of the records); they need not sum to one.
      schedule: (data_step, weights) pairs in order: other weights from that step on.
      scene_share: share of the rows that draw on several records of one dataset.
      scene_clips: most records in such a row.
      noises, noise_share: records of noise there are, and the share of the rows that get one.
      impulses, impulse_share: the same for impulse responses.
    """

    pools: tuple[Pool, ...]
    weights: tuple[float, ...]
    schedule: tuple[tuple[int, tuple[float, ...]], ...] = ()
    scene_share: float = 0.0
    scene_clips: int = 2
    noises: int = 0
    noise_share: float = 0.0
    impulses: int = 0
    impulse_share: float = 0.0

    def __post_init__(self):
        sizes = [len(pool) for pool in self.pools]
        if not sizes or min(sizes) < 1 or len({len(pool.sizes) for pool in self.pools}) != 1:
            raise ConfigError(f'a mixture needs datasets with records, not {sizes}.')
        steps = [step for step, _ in self.schedule]
        if steps != sorted(set(steps)) or (steps and steps[0] < 1):
            raise ConfigError(f'config.data.schedule must have rising steps above 0, not {steps}.')
        if min(self.weights) <= 0 and not self.schedule:
            raise ConfigError(f'data.train weights must be above 0, not {self.weights}.')
        for weights in (self.weights, *(weights for _, weights in self.schedule)):
            if len(weights) != len(sizes) or min(weights) < 0 or sum(weights) <= 0:
                raise ConfigError(
                    f'{weights} are not the weights of {len(sizes)} datasets: one each, none below '
                    '0, not all 0.'
                )
        if not 0 <= self.scene_share <= 1 or self.scene_clips < 2:
            raise ConfigError(
                f'data.scenes.share is {self.scene_share} (0 to 1) and data.scenes.max_clips is '
                f'{self.scene_clips} (at least 2).'
            )

    def scheduled_weights(self) -> list[tuple[int, tuple[float, ...]]]:
        """(first data_step, weights) of each piece of the schedule."""
        return [(0, self.weights), *self.schedule]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a batch.

    Attributes:
      records: (dataset, index) of each record; several make a scene or a pack. In a scene, the
        first is the row's own: counting only it, every record of a dataset comes once an epoch.
      key: 64 bits for all random choices of the row.
      window: number of its window length; the same for all rows of a batch.
      noise, impulse: number of the noise record and of the impulse response to apply, if any.
    """

    records: tuple[tuple[int, int], ...]
    key: int
    window: int = 0
    noise: int | None = None
    impulse: int | None = None


def plan(
    seed: int,
    data_step: int,
    mixture: Mixture,
    batch_size: int,
    slots: Iterable[int] | None = None,
) -> list[Row]:
    """The rows of the global batch ``data_step``, in O(batch_size + BLOCK) at any step.

    Args:
      seed, data_step, mixture: what the rows depend on.
      batch_size: rows of the global batch.
      slots: numbers of the rows to return; all by default.
    """
    window, datasets, ordinals = _draw(seed, data_step, mixture, batch_size)
    keys = entropy_of(seed, _ROW_KEY, data_step).generate_state(batch_size, np.uint64)
    slots = range(batch_size) if slots is None else slots
    return [
        _row(seed, mixture, window, int(datasets[s]), int(ordinals[s]), int(keys[s])) for s in slots
    ]


def window_of(seed: int, data_step: int, mixture: Mixture, batch_size: int) -> int:
    """The window of batch ``data_step``: what all its rows share."""
    return _draw(seed, data_step, mixture, batch_size)[0]


def substitute(row: Row, attempt: int, mixture: Mixture) -> Row:
    """What takes the place of a row that cannot be used: attempt 1, 2, ... of a keyed sequence.

    Another unit of the same dataset and window, so that the batch stays what the mixture asks for.
    It depends on the row alone: every number of hosts gets the same. Noise and impulse response
    are drawn anew, as they may be what cannot be used.
    """
    dataset = row.records[0][0]
    rng = generator(row.key, _SUBSTITUTE, attempt)
    pool = mixture.pools[dataset]
    records = pool.records(row.window, int(rng.integers(pool.sizes[row.window])))
    own = tuple((dataset, index) for index in records)
    return dataclasses.replace(
        row,
        records=own,
        key=int(rng.integers(1 << 63)),
        noise=None if row.noise is None else int(rng.integers(mixture.noises)),
        impulse=None if row.impulse is None else int(rng.integers(mixture.impulses)),
    )


def host_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of one host. Contiguous, so that the global array has them in the plan's order."""
    if batch_size % process_count:
        raise ConfigError(
            f'config.batch_size is {batch_size}; it must be a multiple of {process_count} hosts.'
        )
    rows = batch_size // process_count
    return slice(process_index * rows, (process_index + 1) * rows)


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A stretch of steps with constant weights.

    Attributes:
      number: of the piece.
      start: its first data_step.
      windows: shares of the batches.
      datasets: for each window, shares of the rows; None where no batch has that window.
      earlier: int64 [windows, datasets]: rows of each in all earlier pieces.
    """

    number: int
    start: int
    windows: Shares
    datasets: tuple[Shares | None, ...]
    earlier: np.ndarray


@functools.lru_cache(maxsize=8)
def _pieces(seed: int, mixture: Mixture, batch_size: int) -> list[_Piece]:
    units_wd = np.array([pool.sizes for pool in mixture.pools]).T
    fractions_wd = units_wd / units_wd.sum(0)
    schedule = mixture.scheduled_weights()
    ends = [step for step, _ in schedule[1:]]
    earlier_wd = np.zeros(units_wd.shape, int)
    pieces = []
    for number, (start, weights) in enumerate(schedule):
        weights_wd = fractions_wd * weights
        windows = Shares(tuple(weights_wd.sum(1)))
        datasets = tuple(Shares(tuple(w)) if w.sum() > 0 else None for w in weights_wd)
        pieces.append(_Piece(number, start, windows, datasets, earlier_wd))
        if number < len(ends):
            batches = count(windows, ends[number] - start, (seed, _WINDOWS, number))
            rows = [
                count(datasets[w], n * batch_size, (seed, _DATASETS, number, w))
                if n
                else np.zeros(len(weights), int)
                for w, n in enumerate(batches.tolist())
            ]
            earlier_wd = earlier_wd + np.array(rows)
    return pieces


def _draw(
    seed: int, data_step: int, mixture: Mixture, batch_size: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """(window of the batch, dataset of each row, how often it came before in that window)."""
    pieces = _pieces(seed, mixture, batch_size)
    piece = [piece for piece in pieces if piece.start <= data_step][-1]
    since = np.array([data_step - piece.start])
    windows, batches = locate(piece.windows, since, (seed, _WINDOWS, piece.number))
    window = int(windows[0])
    positions = int(batches[0]) * batch_size + np.arange(batch_size)
    datasets, ordinals = locate(
        piece.datasets[window], positions, (seed, _DATASETS, piece.number, window)
    )
    return window, datasets, ordinals + piece.earlier[window][datasets]


def _row(seed: int, mixture: Mixture, window: int, dataset: int, ordinal: int, key: int) -> Row:
    pool = mixture.pools[dataset]
    epoch, place = divmod(ordinal, pool.sizes[window])
    unit = shuffled(place, pool.sizes[window], (seed, _EPOCH, dataset, window, epoch))
    units = [unit, *_companions(unit, pool.sizes[window], mixture, key)]
    records = tuple((dataset, index) for u in units for index in pool.records(window, u))
    noise = impulse = None
    if mixture.noise_share or mixture.impulse_share:
        rng = generator(key, _NOISE)
        noise = _drawn(rng, mixture.noises, mixture.noise_share)
        impulse = _drawn(rng, mixture.impulses, mixture.impulse_share)
    return Row(records, key, window, noise, impulse)


def _companions(own: int, size: int, mixture: Mixture, key: int) -> list[int]:
    """Further units of a scene: distinct, and none is the row's own."""
    if size < 2 or not mixture.scene_share:
        return []
    rng = generator(key, _COMPANIONS)
    if rng.random() >= mixture.scene_share:
        return []
    how_many = min(int(rng.integers(1, mixture.scene_clips)), size - 1)
    others = rng.choice(size - 1, how_many, replace=False, shuffle=False)
    return [int(other) + int(other >= own) for other in others]


def _drawn(rng: np.random.Generator, size: int, share: float) -> int | None:
    """One of ``size`` with probability ``share``; the generator moves on alike either way."""
    wanted, number = rng.random() < share, int(rng.integers(max(1, size)))
    return number if wanted and size else None
