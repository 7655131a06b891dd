"""Finds copies of one recording among clips: changed in gain, rate, codec, or cut shorter.

Each clip becomes a picture of band levels (dB below the clip's loudest cell, 32 bands by 16 ms).
Two clips are near-duplicates when the pictures, laid over each other at the right lag, correlate in
time within the bands: the slow shape of a spectrum, which two prompts of one speaker share, is
removed before comparing, so that only the same take agrees. The lag is found by comparing short
patches around the loudest moments of every clip with those of every other. numpy only.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import soxr

RATE = 16000  # Hz, of the picture
_WINDOW, _HOP = 1024, 256  # samples: 64 ms, 16 ms
_BANDS = 32
_LOW, _HIGH = 80.0, 7000.0  # Hz; below what a 16 kHz copy or an mp3 keeps
_FLOOR_DB = 50.0  # levels further below the loudest cell count as silence
_PATCH = 24  # frames, 384 ms
_PEAKS = 4  # patches a clip
_PATCH_COSINE = 0.6  # of a candidate
_MATCH = 0.7  # correlation of the aligned pictures; chosen on planted copies, see the tests
_OVERLAP = 0.6  # of the shorter clip, at least
_LAGS = (-2, -1, 0, 1, 2)  # frames around the lag of the matching patches
_BLOCK = 2048


def picture(pcm: np.ndarray, rate: int) -> np.ndarray:
    """Band levels of a clip.

    Args:
      pcm: int16 mono [n].
      rate: Hz.

    Returns:
      uint8 [frames, 32]: 0 is 50 dB or more below the loudest cell, 250 is the loudest cell.
    """
    x = soxr.resample(pcm.astype(np.float32), rate, RATE, quality='LQ') if rate != RATE else pcm
    x = np.pad(np.asarray(x, np.float32), (_WINDOW // 2, _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(x, _WINDOW)[::_HOP]
    power = np.empty((len(frames), _BANDS))
    for start in range(0, len(frames), _BLOCK):
        spectrum = np.fft.rfft(frames[start : start + _BLOCK] * np.hanning(_WINDOW))
        bins = np.square(np.abs(spectrum))[:, : _EDGES[-1]]
        power[start : start + _BLOCK] = np.add.reduceat(bins, _EDGES[:-1], axis=1)
    level = 10 * np.log10(np.maximum(power, 1e-9) / max(power.max(), 1e-9))
    return np.round(np.maximum(level + _FLOOR_DB, 0) * (250 / _FLOOR_DB)).astype(np.uint8)


def _edges() -> np.ndarray:
    """FFT bins where the bands begin, geometric but at least one bin wide."""
    hertz = np.geomspace(_LOW, _HIGH, _BANDS + 1)
    bins = np.round(hertz * _WINDOW / RATE).astype(int)
    for i in range(1, len(bins)):
        bins[i] = max(bins[i], bins[i - 1] + 1)
    return bins


_EDGES = _edges()


@dataclasses.dataclass(frozen=True)
class Match:
    """Clips ``first`` < ``second`` (indices) hold the same recording."""

    first: int
    second: int
    correlation: float


def near_duplicates(pictures: Sequence[np.ndarray]) -> list[Match]:
    """Every pair of clips that hold the same recording, sorted.

    Args:
      pictures: uint8 [frames_i, 32] each.
    """
    patches, owner, moment = _all_patches(pictures)
    best: dict[tuple[int, int], float] = {}
    tried: set[tuple[int, int, int]] = set()
    for rows, columns in _similar(patches):
        i, j = owner[rows], owner[columns]
        lag = moment[rows] - moment[columns]
        for a, b, shift in zip(i.tolist(), j.tolist(), lag.tolist()):
            if a == b or (a, b, shift) in tried:
                continue
            tried.add((a, b, shift))
            value = max(aligned_correlation(pictures[a], pictures[b], shift + d) for d in _LAGS)
            if value >= _MATCH:
                best[a, b] = max(value, best.get((a, b), -1.0))
    return [Match(a, b, value) for (a, b), value in sorted(best.items())]


def aligned_correlation(a: np.ndarray, b: np.ndarray, lag: int) -> float:
    """Correlation over the overlap of ``a[t + lag]`` and ``b[t]``, each band's mean removed.

    -1 when less than ``_OVERLAP`` of the shorter clip overlaps, or nothing moves in time.
    """
    start, stop = max(0, -lag), min(len(b), len(a) - lag)
    if stop - start < max(3, _OVERLAP * min(len(a), len(b))):
        return -1.0
    x, y = a[start + lag : stop + lag].astype(np.float32), b[start:stop].astype(np.float32)
    x, y = x - x.mean(0), y - y.mean(0)
    norm = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / norm) if norm > 0 else -1.0


def _all_patches(pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(unit-norm patches f32 [p, d], clip index [p], frame of the patch [p])."""
    patches, owner, moment = [], [], []
    for index, levels in enumerate(pictures):
        padded = np.pad(levels, ((_PATCH // 2, _PATCH), (0, 0))).astype(np.float32)
        for frame in _peaks(levels.astype(np.float32).sum(1)):
            patch = padded[frame : frame + _PATCH]
            patch = (patch - patch.mean(0)).ravel()
            patches.append(patch / max(np.linalg.norm(patch), 1e-6))
            owner.append(index)
            moment.append(frame)
    return np.asarray(patches, np.float32), np.asarray(owner), np.asarray(moment)


def _peaks(level: np.ndarray) -> list[int]:
    """Frames of the loudest moments, at least half a patch apart."""
    chosen, level = [], level.copy()
    for _ in range(_PEAKS):
        frame = int(np.argmax(level))
        if level[frame] <= 0:
            break
        chosen.append(frame)
        level[max(0, frame - _PATCH // 2) : frame + _PATCH // 2 + 1] = 0
    return chosen


def _similar(patches: np.ndarray):
    """Blocks of (rows, columns), rows < columns, of patches whose cosine is high enough."""
    for start in range(0, len(patches), _BLOCK):
        cosine = patches[start : start + _BLOCK] @ patches[start:].T
        rows, columns = np.nonzero(cosine >= _PATCH_COSINE)
        keep = rows < columns
        yield rows[keep] + start, columns[keep] + start
