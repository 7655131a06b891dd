"""A row's key, divided by purpose: what is drawn for one purpose does not depend on the others.

So the same key crops the same place with and without noise, and chooses the same caption.
"""

import enum

import numpy as np

from alm_jax.audio import keyed

_BITS = 64


class Purpose(enum.IntEnum):
    """What a random choice of a row is for. The numbers are part of what a key means."""

    TEXT = 0
    SCENE = 1  # whether its clips are mixed or joined
    PLACE = 2  # of the crop
    CLIPS = 3  # which of a record's clips
    SOUND = 4  # gain and noise
    ROOM = 5
    NEGATIVES = 6
    GAPS = 7  # where the clips of a scene lie


def part(key: int, purpose: Purpose) -> int:
    """A Philox key of 128 bits from a row's key of 64."""
    return purpose << _BITS | key & (1 << _BITS) - 1


def generator(key: int, purpose: Purpose) -> np.random.Generator:
    """The generator of one purpose."""
    return keyed.generator(part(int(key), purpose))


def nth(key: int, number: int) -> int:
    """The key of the n-th of several records that share a row as equals; the 0-th is the row's."""
    return (key + number * 0x9E3779B97F4A7C15) & (1 << _BITS) - 1
