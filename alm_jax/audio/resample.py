"""Change of sampling rate on the host, by soxr."""

import numpy as np
import soxr

from alm_jax.audio.decode import AudioError, from_pcm16, to_pcm16


def resample(x: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """``x`` at another rate (soxr 'HQ': pass band to 0.91 of the lower Nyquist, -120 dB beyond it).

    Args:
      x: float32 or int16 [n].
      from_rate, to_rate: Hz.

    Returns:
      The dtype of ``x``, [max(1, round(n * to_rate / from_rate))] for n >= 1; int16 is rounded and
      clipped, without dither, so that equal input gives equal bytes. ``x`` itself for equal rates.

    Raises:
      AudioError: a rate that is not positive.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise AudioError(f'Sampling rates must be positive; got {from_rate} Hz and {to_rate} Hz.')
    if from_rate == to_rate:
        return x
    if x.dtype == np.int16:
        return to_pcm16(resample(from_pcm16(x), from_rate, to_rate))
    y = soxr.resample(np.asarray(x, np.float32), from_rate, to_rate, quality='HQ')
    return y if len(y) or not len(x) else x[:1]
