"""Which of several parts comes at each position of an endless stream, by their shares.

A block of BLOCK positions holds each part its share of times, rounded down or up, in an order drawn
for the block. Which parts are rounded up turns from block to block so that no rounding adds up: the
count of a part among the first n positions differs from n * share by a few at most, for any n, and
has a closed form, so that any position is reached at once.
"""

import functools

import numpy as np

BLOCK = 1024  # positions
_ONE = 1 << 32  # fixed point: a count of one
_TURN = 0x9E3779B1  # golden ratio: spreads the rounding up evenly; odd, so that all phases occur


class Shares:
    """The shares of parts.

    Args:
      weights: at least 0 each, one of them above 0; a part of weight 0 never comes.
    """

    def __init__(self, weights: tuple[float, ...]):
        cumulative = np.cumsum(np.array(weights, float))
        bounds = np.rint(cumulative / cumulative[-1] * BLOCK * _ONE).astype(int)
        exact = np.diff(bounds, prepend=0)  # counts in a block, fixed point
        self._whole = exact // _ONE
        self._bounds = [0, *np.cumsum(exact % _ONE).tolist()]  # of the fractions, end to end

    def quotas(self, block: int) -> np.ndarray:
        """int64 [parts]: how often each part comes in a block; their sum is BLOCK."""
        # Points at phase + every whole number: a part is rounded up when one falls in its fraction.
        phase = block * _TURN % _ONE
        points = [(bound + phase) // _ONE for bound in self._bounds]
        return self._whole + np.diff(points)

    def before(self, block: int) -> np.ndarray:
        """int64 [parts]: how often each part comes in the first ``block`` blocks: sum of quotas."""
        # floor((bound + phase) / 1) differs from floor(bound + block * turn) by the same for all.
        points = [_floor_sum(block, _ONE, _TURN, bound) for bound in self._bounds]
        return self._whole * block + np.diff(points)


def locate(
    shares: Shares, positions: np.ndarray, entropy: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each position its part, and how many earlier positions have that part. Both int64 [n].

    Args:
      shares: of the parts.
      positions: int64 [n], from 0 on.
      entropy: draws the orders within blocks.
    """
    blocks, places = np.divmod(positions, BLOCK)
    parts, ordinals = np.empty(len(positions), int), np.empty(len(positions), int)
    for block in np.unique(blocks).tolist():
        order, earlier = _block(shares, block, entropy)
        here = blocks == block
        parts[here] = order[places[here]]
        ordinals[here] = shares.before(block)[parts[here]] + earlier[places[here]]
    return parts, ordinals


def count(shares: Shares, stop: int, entropy: tuple[int, ...]) -> np.ndarray:
    """int64 [parts]: how often each part comes among the first ``stop`` positions."""
    block, place = divmod(stop, BLOCK)
    order, _ = _block(shares, block, entropy)
    before = shares.before(block)
    return before + np.bincount(order[:place], minlength=len(before))


@functools.lru_cache(maxsize=64)
def _block(shares: Shares, block: int, entropy: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(part of each place, how often it comes earlier in the block), both int64 [BLOCK]."""
    quotas = shares.quotas(block)
    order = generator(*entropy, block).permutation(np.repeat(np.arange(len(quotas)), quotas))
    earlier = np.empty(BLOCK, int)
    by_part = np.argsort(order, kind='stable')
    starts = np.cumsum(quotas) - quotas
    earlier[by_part] = np.arange(BLOCK) - np.repeat(starts, quotas)
    return order, earlier


def _floor_sum(n: int, modulus: int, factor: int, offset: int) -> int:
    """sum of floor((factor * i + offset) / modulus) over i in range(n), in O(log modulus).

    Euclid's algorithm on the lattice points under a line; see Graham, Knuth, Patashnik, "Concrete
    Mathematics", section 3.5.
    """
    total = 0
    while n:
        total += n * (n - 1) // 2 * (factor // modulus) + n * (offset // modulus)
        factor, offset = factor % modulus, offset % modulus
        n, offset = divmod(factor * n + offset, modulus)  # turn the picture on its side
        factor, modulus = modulus, factor
    return total


def entropy_of(*counters: int) -> np.random.SeedSequence:
    """Independent per counters. A last 1, for SeedSequence takes (a, b) and (a, b, 0) as equal."""
    return np.random.SeedSequence((*counters, 1))


def generator(*counters: int) -> np.random.Generator:
    """A generator that depends on nothing but ``counters``."""
    return np.random.Generator(np.random.Philox(entropy_of(*counters)))
