"""Interpolation along one axis as a matrix: exact for a fixed length, and one product to apply."""

import functools

import numpy as np


@functools.lru_cache(maxsize=16)
def bicubic_matrix(length: int, to_length: int) -> np.ndarray:
    """float32 [to_length, length]: bicubic (Keys 1981, a = -0.75), end points kept.

    torch's interpolate(mode='bicubic', align_corners=True); beyond the ends the edge repeats.
    """
    a = -0.75
    at = np.arange(to_length) * ((length - 1) / (to_length - 1))
    low = np.floor(at).astype(int)
    matrix = np.zeros((to_length, length))
    for offset in (-1, 0, 1, 2):
        distance = np.abs(at - (low + offset))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weight = np.where(distance <= 1, near, far)
        np.add.at(matrix, (np.arange(to_length), np.clip(low + offset, 0, length - 1)), weight)
    return matrix.astype(np.float32)


@functools.lru_cache(maxsize=16)
def linear_matrix(length: int, to_length: int) -> np.ndarray:
    """float32 [to_length, length]: linear, half-pixel centres.

    torch's interpolate(mode='linear', align_corners=False); beyond the ends the edge repeats.
    """
    at = np.clip((np.arange(to_length) + 0.5) * (length / to_length) - 0.5, 0, length - 1)
    low = np.floor(at).astype(int)
    matrix = np.zeros((to_length, length))
    np.add.at(matrix, (np.arange(to_length), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(to_length), np.minimum(low + 1, length - 1)), at - low)
    return matrix.astype(np.float32)
