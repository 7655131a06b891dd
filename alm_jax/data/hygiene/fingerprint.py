"""Finds copies of one recording among clips: changed in gain, rate, codec, or cut shorter.

Each clip becomes a picture of band levels (dB below the clip's loudest cell, 32 bands by 16 ms).
Two clips are near-duplicates when the changes of these levels in time, laid over each other at the
right lag, correlate: the spectrum that two prompts of one speaker share, and the envelope that two
struck notes share, are not in the changes, so only the same take agrees. The lag is found by
comparing short patches around the moments of most change. numpy only.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import soxr

RATE = 16000  # Hz, of the picture
_WINDOW, _HOP = 1024, 256  # samples: 64 ms, 16 ms
_BANDS = 32
_LOW, _HIGH = 80.0, 7000.0  # Hz; below what a 16 kHz copy or an mp3 keeps
_FLOOR_DB = 50.0  # levels further below the loudest cell count as silence
STEP = 2  # frames either side of a difference in time
_PATCH = 24  # frames, 384 ms
_PEAKS = 5  # patches a clip
_PATCH_COSINE = 0.45  # of a candidate
# Correlation that makes a match, by frames of overlap: two unlike clicks of 0.2 s reach 0.8, two
# prompts of one speaker over a second 0.65. Chosen on planted copies; the tests state both errors.
_MATCH_SHORT, _MATCH_LONG, _LONG = 0.95, 0.7, 60
_OVERLAP = 0.6  # of the shorter clip, at least
_SHORTEST_OVERLAP = 5  # frames
LAGS = (-2, -1, 0, 1, 2)  # frames around the lag of the matching patches
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
    """``queries[query]`` and ``references[reference]`` hold the same recording."""

    query: int
    reference: int
    correlation: float


def near_duplicates(queries: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> list[Match]:
    """Every pair that holds the same recording, or where one is cut from the other; sorted.

    Args:
      queries: pictures, uint8 [frames_i, 32] each.
      references: likewise.
    """
    if not queries or not references:
        return []
    changes_q, changes_r = [*map(changes, queries)], [*map(changes, references)]
    patches_q, patches_r = _Patches(changes_q), _Patches(changes_r)
    best: dict[tuple[int, int], float] = {}
    for rows, columns in _similar(patches_q.unit, patches_r.unit):
        lags = patches_q.frame[rows] - patches_r.frame[columns]
        pairs = np.stack([patches_q.owner[rows], patches_r.owner[columns], lags], axis=1)
        for i, j, lag in np.unique(pairs, axis=0).tolist():
            for jitter in LAGS:
                value, overlap = aligned_correlation(changes_q[i], changes_r[j], lag + jitter)
                if value >= threshold(overlap):
                    best[i, j] = max(value, best.get((i, j), -1.0))
    return [Match(i, j, value) for (i, j), value in sorted(best.items())]


def changes(levels: np.ndarray) -> np.ndarray:
    """How the levels move: float32 [frames - 2 * STEP, 32], each frame's mean over bands removed.

    The difference in time removes the voice, the room and the gain; the mean over bands removes the
    envelope that all bands share, such as the decay of any struck note. The frames that the ends of
    a cut disturb are not in it.
    """
    levels = levels[STEP:-STEP].astype(np.float32)
    moved = levels[2 * STEP :] - levels[: -2 * STEP]
    return moved - moved.mean(axis=1, keepdims=True)


def aligned_correlation(a: np.ndarray, b: np.ndarray, lag: int) -> tuple[float, int]:
    """(cosine of ``a[t + lag]`` and ``b[t]`` (``changes``) over their overlap, its frames).

    The cosine is -1 when less than ``_OVERLAP`` of the shorter clip overlaps, or nothing moves.
    """
    start, stop = max(0, -lag), min(len(b), len(a) - lag)
    if stop - start < max(_SHORTEST_OVERLAP, _OVERLAP * min(len(a), len(b))):
        return -1.0, 0
    x, y = a[start + lag : stop + lag].ravel(), b[start:stop].ravel()
    norm = np.sqrt(np.dot(x, x) * np.dot(y, y))
    return (float(np.dot(x, y) / norm) if norm > 0 else -1.0), stop - start


def threshold(overlap: int) -> float:
    """The correlation from which ``overlap`` frames count as the same recording."""
    return _MATCH_LONG + (_MATCH_SHORT - _MATCH_LONG) * max(0.0, 1 - overlap / _LONG)


class _Patches:
    """Short stretches of ``changes`` around the moments of most change.

    Attributes:
      unit: float32 [patches, d], unit norm.
      owner: index of the clip, [patches].
      frame: of the patch in its clip, [patches].
    """

    def __init__(self, clips: Sequence[np.ndarray]):
        unit, owner, moments = [np.zeros((0, _PATCH // 2 * _BANDS), np.float32)], [], []
        for index, clip in enumerate(clips):
            frames = peaks(np.abs(clip).sum(axis=1), _PEAKS, _PATCH // 2)
            padded = np.pad(clip, ((_PATCH // 2, _PATCH), (0, 0)))
            patches = np.stack([padded[f : f + _PATCH] for f in frames]) if frames else None
            if patches is not None:
                # Two frames are averaged: half the work, and a jitter of a frame matters less.
                flat = patches.reshape(len(frames), _PATCH // 2, 2, _BANDS).mean(2)
                flat = flat.reshape(len(frames), -1)
                unit.append(flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6))
                owner += [index] * len(frames)
                moments += frames
        self.unit = np.concatenate(unit)
        self.owner, self.frame = np.asarray(owner, np.int64), np.asarray(moments, np.int64)


def peaks(change: np.ndarray, most: int, apart: int) -> list[int]:
    """Up to ``most`` frames of most ``change`` [frames], more than ``apart`` frames apart."""
    chosen, change = [], change.copy()
    while len(chosen) < most and change.size and change.max() > 0:
        frame = int(np.argmax(change))
        chosen.append(frame)
        change[max(0, frame - apart) : frame + apart + 1] = 0
    return chosen


def _similar(queries: np.ndarray, references: np.ndarray) -> Iterator[tuple]:
    """Blocks of (rows, columns) of patches whose cosine is high enough."""
    for start in range(0, len(queries), _BLOCK):
        cosine = queries[start : start + _BLOCK] @ references.T
        rows, columns = np.nonzero(cosine >= _PATCH_COSINE)
        yield rows + start, columns
