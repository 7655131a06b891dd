"""How loud a recording is, how high its peak, and how much of it is silent."""

import numpy as np
import pyloudnorm

from alm_jax.audio.decode import from_pcm16
from alm_jax.audio.resample import resample

LOWEST_LUFS = -70.0  # the absolute gate of BS.1770: what is below is not measured
LOWEST_DB = -96.0  # below one step of 16 bits
_BLOCK = 0.4  # seconds, of BS.1770
_LOWEST_RATE = 16_000  # Hz; the weighting filters bend where their corners near half of the rate
_FRAME = 0.02  # seconds
_SILENT_DB = -60.0


def measure(pcm: np.ndarray, rate: int) -> dict[str, float]:
    """The measured fields of a record.

    Args:
      pcm: int16 mono [n], n >= 1.
      rate: Hz.

    Returns:
      loudness: integrated, LUFS, by ITU-R BS.1770-4 (gated blocks of 0.4 s; 0.01 LU). A clip
        shorter than a block is one block of its own length, so that it is not diluted. Digital
        silence, and whatever lies below the absolute gate, is -70.
      peak: 20 log10 of the highest sample over full scale, dB; no oversampling; -96 for silence.
      silence: share of the frames of 20 ms (the last may be shorter) whose root mean square is
        below -60 dB of full scale.
    """
    peak = int(np.abs(pcm.astype(np.int32)).max())
    frame = max(1, round(_FRAME * rate))
    starts = np.arange(0, len(pcm), frame)
    energy = np.add.reduceat(np.square(pcm, dtype=np.int64), starts)
    mean_square = energy / np.diff(np.append(starts, len(pcm))) / 32768.0**2
    return {
        'loudness': _loudness(pcm, rate),
        'peak': max(LOWEST_DB, round(20 * np.log10(peak / 32768), 2)) if peak else LOWEST_DB,
        'silence': float(np.mean(mean_square < 10 ** (_SILENT_DB / 10))),
    }


def _loudness(pcm: np.ndarray, rate: int) -> float:
    if rate < _LOWEST_RATE:
        pcm, rate = resample(pcm, rate, 2 * _LOWEST_RATE), 2 * _LOWEST_RATE
    x = from_pcm16(pcm).astype(np.float64)
    if len(x) <= _BLOCK * rate:
        # Half a sample less, so that the block is never longer than the clip by rounding.
        meter = pyloudnorm.Meter(rate, block_size=max(0.5, len(x) - 0.5) / rate)
    else:
        meter = pyloudnorm.Meter(rate)
    if not np.any(x):
        return LOWEST_LUFS
    loudness = meter.integrated_loudness(x)
    return max(LOWEST_LUFS, round(float(loudness), 2))
