"""Which records make batch n: a pure function of (seed, data_step), on any number of hosts.

No iterator has a state, so any step is reachable at once and a resume, on any number of hosts,
gives the batches that an uninterrupted run would have had.
"""

import dataclasses
import functools

import numpy as np

from alm_jax.config import ConfigError

# Rows over which the shares of the datasets are exact (to one row), and drawn in a new order.
BLOCK = 1024
_ROUNDS = 8  # of the cipher that shuffles an epoch
_ROW_KEY, _BLOCK_ORDER, _EPOCH_ORDER, _COMPANIONS = range(4)  # purposes of randomness


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Datasets with their shares of the rows.

    Attributes:
      sizes: records of each dataset.
      weights: relative shares of the rows (not of the records); they need not sum to one.
      scene_share: share of the rows that draw on several records of one dataset.
      scene_clips: most records in such a row.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    scene_share: float = 0.0
    scene_clips: int = 2

    def __post_init__(self):
        if not self.sizes or len(self.sizes) != len(self.weights) or min(self.sizes) < 1:
            raise ConfigError(f'a mixture needs datasets with records and one weight each: {self}.')
        if min(self.weights) <= 0 or len(self.sizes) > BLOCK:
            raise ConfigError(f'data.train weights must be above 0, not {self.weights}.')
        if not 0 <= self.scene_share <= 1 or self.scene_clips < 2:
            raise ConfigError(
                f'data.scenes.share is {self.scene_share} (0 to 1) and data.scenes.max_clips is '
                f'{self.scene_clips} (at least 2).'
            )


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a batch.

    Attributes:
      records: (dataset, index) of each record; several make a scene. The first is the row's own:
        counting only it, every record of a dataset comes once an epoch. The others are extra.
      key: 64 bits for all random choices of the row.
    """

    records: tuple[tuple[int, int], ...]
    key: int


def plan(seed: int, data_step: int, mixture: Mixture, batch_size: int) -> list[Row]:
    """The rows of the global batch ``data_step``, in O(batch_size + BLOCK) at any step.

    Row ``slot`` has position data_step * batch_size + slot. Blocks of BLOCK positions hold each
    dataset its quota of times, in an order drawn for the block; so the number of earlier rows of a
    dataset has a closed form, and that number is mapped through a permutation of the epoch.
    """
    positions = np.arange(data_step * batch_size, (data_step + 1) * batch_size)
    datasets, ordinals = _datasets_and_ordinals(seed, positions, mixture)
    keys = _entropy(seed, _ROW_KEY, data_step).generate_state(batch_size, np.uint64)
    rows = []
    for dataset, ordinal, key in zip(datasets.tolist(), ordinals.tolist(), keys.tolist()):
        epoch, place = divmod(ordinal, mixture.sizes[dataset])
        own = shuffled(place, mixture.sizes[dataset], (seed, dataset, epoch))
        companions = _companions(own, mixture.sizes[dataset], mixture, key)
        rows.append(Row(tuple((dataset, index) for index in (own, *companions)), key))
    return rows


def host_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """The rows of one host. Contiguous, so that the global array has them in the plan's order."""
    if batch_size % process_count:
        raise ConfigError(
            f'config.batch_size is {batch_size}; it must be a multiple of {process_count} hosts.'
        )
    rows = batch_size // process_count
    return slice(process_index * rows, (process_index + 1) * rows)


def quotas(weights: tuple[float, ...]) -> np.ndarray:
    """Rows of each dataset in a block: largest remainders, and at least one."""
    exact = np.array(weights, float) / sum(weights) * BLOCK
    rows = np.maximum(1, np.floor(exact)).astype(int)
    while rows.sum() != BLOCK:
        step = 1 if rows.sum() < BLOCK else -1
        need = np.where((rows > 1) | (step > 0), step * (exact - rows), -np.inf)
        rows[np.argmax(need)] += step
    return rows


def _datasets_and_ordinals(
    seed: int, positions: np.ndarray, mixture: Mixture
) -> tuple[np.ndarray, np.ndarray]:
    """Of each position its dataset, and how many earlier positions have that dataset. Both [n]."""
    rows = quotas(mixture.weights)
    blocks, places = np.divmod(positions, BLOCK)
    datasets = np.empty(len(positions), int)
    ordinals = np.empty(len(positions), int)
    for block in np.unique(blocks):
        order = _generator(seed, _BLOCK_ORDER, int(block)).permutation(
            np.repeat(np.arange(len(rows)), rows)
        )
        earlier = np.empty(BLOCK, int)
        for dataset in range(len(rows)):
            is_here = order == dataset
            earlier[is_here] = np.arange(rows[dataset])
        here = blocks == block
        datasets[here] = order[places[here]]
        ordinals[here] = block * rows[datasets[here]] + earlier[places[here]]
    return datasets, ordinals


def shuffled(place: int, size: int, epoch: tuple[int, int, int]) -> int:
    """Where ``place`` comes in a permutation of range(size), drawn for (seed, dataset, epoch).

    A Feistel cipher over the smallest even number of bits, walked until it falls below ``size``
    (under four times on average): O(1), nothing held in memory. Black and Rogaway, "Ciphers with
    arbitrary finite domains" (2002), sections 3 and 5. grain's index_shuffle (0.2.18), which does
    this too, repeats an index for sizes 4**k + 1 and takes milliseconds below 2**10.
    """
    bits = ((size - 1).bit_length() + 1) // 2
    while True:
        left, right = place >> bits, place & ((1 << bits) - 1)
        for key in _round_keys(epoch):
            mixed = (right + key) * 0x9E3779B97F4A7C15 & (1 << 64) - 1  # Fibonacci hashing, twice
            mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 & (1 << 64) - 1
            left, right = right, left ^ (mixed >> 64 - bits)
        place = left << bits | right
        if place < size:
            return place


@functools.lru_cache(maxsize=256)
def _round_keys(epoch: tuple[int, int, int]) -> list[int]:
    seed, *counters = epoch
    return _entropy(seed, _EPOCH_ORDER, *counters).generate_state(_ROUNDS, np.uint64).tolist()


def _companions(own: int, size: int, mixture: Mixture, key: int) -> list[int]:
    """Further records of a scene: distinct, and none is the row's own."""
    rng = _generator(key, _COMPANIONS)
    if size < 2 or rng.random() >= mixture.scene_share:
        return []
    how_many = min(int(rng.integers(1, mixture.scene_clips)), size - 1)
    others = rng.choice(size - 1, how_many, replace=False, shuffle=False)
    return [int(other) + int(other >= own) for other in others]


def _entropy(seed: int, purpose: int, *counters: int) -> np.random.SeedSequence:
    """Independent per purpose. A last 1, for SeedSequence takes (a, b) and (a, b, 0) as equal."""
    return np.random.SeedSequence((seed, purpose, *counters, 1))


def _generator(seed: int, purpose: int, *counters: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(_entropy(seed, purpose, *counters)))
