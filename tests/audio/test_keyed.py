"""Generators from a key are numpy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm_jax.audio import keyed


@given(st.integers(0, 2**128 - 1))
def test_a_key_gives_the_numbers_of_philox(key):
    expected = np.random.Generator(np.random.Philox(key=key))
    made = keyed.generator(key)
    np.testing.assert_array_equal(made.integers(2**63, size=9), expected.integers(2**63, size=9))
    assert made.standard_normal() == expected.standard_normal()
    words = np.array([key & (2**64 - 1), key >> 64], np.uint64)
    assert (
        keyed.generator(words).random() == np.random.Generator(np.random.Philox(key=key)).random()
    )


def test_a_key_of_more_than_128_bits_is_refused():
    with pytest.raises(OverflowError):
        keyed.generator(1 << 128)
