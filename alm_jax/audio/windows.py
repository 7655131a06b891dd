"""Clips of any length to windows of one length: a keyed crop to train, a fixed cut to evaluate."""

import numpy as np

from alm_jax.audio import keyed
from alm_jax.audio.decode import AudioError

EVALUATION_POLICY = 'consecutive windows, last dropped below half, mean'


def crop(x: np.ndarray, length: int, key: int | np.ndarray) -> tuple[np.ndarray, int]:
    """One training window, at a uniformly random place.

    Args:
      x: [n], any dtype.
      length: samples of the window.
      key: an int below 2**128 or two integers; equal keys give equal crops (Philox).

    Returns:
      ([length] of x's dtype, number of samples before the zeros at its end).
    """
    start = crop_start(len(x), length, key)
    return _padded(x[start : start + length], length)


def crop_start(num_samples: int, length: int, key: int | np.ndarray) -> int:
    """The first sample of the window that ``crop`` takes from a clip of ``num_samples``."""
    if num_samples <= length:
        return 0
    return int(keyed.generator(key).integers(0, num_samples - length + 1))


def windows(x: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows by which a clip is evaluated: no randomness, every sample at most once.

    Consecutive windows that do not overlap, from the first sample on. The last one, when shorter
    than half a window, is dropped unless it is the only one; else it is zero-padded at its end.
    Embeddings of the windows are averaged and normalised again (``EVALUATION_POLICY``).

    Args:
      x: [n], any dtype.
      length: samples of a window.

    Returns:
      ([w, length] of x's dtype, int32 [w] samples before the zeros), w >= 1.

    Raises:
      AudioError: ``x`` has no samples.
    """
    if not len(x):
        raise AudioError('A clip without samples cannot be evaluated.')
    whole, rest = divmod(len(x), length)
    count = whole + (whole == 0 or 2 * rest >= length)
    cut = [_padded(x[i * length : (i + 1) * length], length) for i in range(count)]
    return np.stack([window for window, _ in cut]), np.array([n for _, n in cut], np.int32)


def sliding(samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """(start, end) of windows that slide by ``hop``, all in samples; the last one ends the clip.

    A clip shorter than ``window`` is one window.
    """
    last = max(samples - window, 0)
    starts = list(range(0, last + 1, hop))
    if starts[-1] != last:
        starts.append(last)
    return [(start, min(start + window, samples)) for start in starts]


def _padded(x: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    return np.pad(x, (0, length - len(x))), len(x)
