"""A permutation of any size that is evaluated at one place, and never held in memory."""

import functools

from alm_jax.data import shares

_ROUNDS = 8


def shuffled(place: int, size: int, entropy: tuple[int, ...]) -> int:
    """Where ``place`` comes in a permutation of range(size), drawn for ``entropy``.

    A Feistel cipher over the smallest even number of bits, walked until it falls below ``size``
    (under four times on average): O(1). Black and Rogaway, "Ciphers with arbitrary finite domains"
    (2002), sections 3 and 5. grain's index_shuffle (0.2.18), which does this too, repeats an index
    for sizes 4**k + 1 and takes milliseconds below 2**10.
    """
    bits = ((size - 1).bit_length() + 1) // 2
    while True:
        left, right = place >> bits, place & ((1 << bits) - 1)
        for key in _round_keys(entropy):
            mixed = (right + key) * 0x9E3779B97F4A7C15 & (1 << 64) - 1  # Fibonacci hashing, twice
            mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 & (1 << 64) - 1
            left, right = right, left ^ (mixed >> 64 - bits)
        place = left << bits | right
        if place < size:
            return place


@functools.lru_cache(maxsize=1024)
def _round_keys(entropy: tuple[int, ...]) -> list[int]:
    return shares.entropy_of(*entropy).generate_state(_ROUNDS, 'uint64').tolist()
