"""Crops and evaluation windows, by hand and as properties."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from alm_jax.audio.decode import AudioError
from alm_jax.audio.windows import crop, windows

SMALL = hypothesis.settings(max_examples=50, deadline=None, derandomize=True)


@SMALL
@hypothesis.given(size=st.integers(1, 60), length=st.integers(1, 20), key=st.integers(0, 2**64))
def test_a_crop_is_a_piece_of_the_clip_in_its_place(size, length, key):
    x = np.arange(1, size + 1, dtype=np.int16)
    window, num_samples = crop(x, length, key)
    assert window.shape == (length,)
    assert window.dtype == np.int16
    assert num_samples == min(size, length)
    start = window[0] - 1
    np.testing.assert_array_equal(window[:num_samples], x[start : start + num_samples])
    assert not window[num_samples:].any()
    np.testing.assert_array_equal(crop(x, length, key)[0], window)


def test_every_start_of_a_crop_is_as_likely():
    x = np.arange(14)
    starts = np.bincount([crop(x, 10, key)[0][0] for key in range(5000)])
    assert len(starts) == 5
    assert np.abs(starts / 5000 - 0.2).max() < 0.03  # 5 sigma


def test_a_crop_takes_a_pair_as_key():
    x = np.arange(1000)
    first, _ = crop(x, 10, np.array([1, 2], np.uint32))
    other, _ = crop(x, 10, np.array([2, 1], np.uint32))
    assert first[0] != other[0]


@pytest.mark.parametrize(
    ('size', 'counts'),
    [
        (1, [1]),
        (9, [9]),
        (10, [10]),
        (14, [10]),
        (15, [10, 5]),
        (20, [10, 10]),
        (24, [10, 10]),
        (29, [10, 10, 9]),
    ],
)
def test_evaluation_windows(size, counts):
    x = np.arange(1, size + 1, dtype=np.float32)
    got, num_samples = windows(x, 10)
    assert got.dtype == np.float32
    assert got.shape == (len(counts), 10)
    assert num_samples.tolist() == counts
    np.testing.assert_array_equal(got[got != 0], x[: sum(counts)])
    for window, count in zip(got, counts):
        assert not window[count:].any()


def test_a_clip_without_samples_is_an_error():
    with pytest.raises(AudioError, match='without samples'):
        windows(np.zeros(0, np.int16), 10)
