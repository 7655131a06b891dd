"""Noise at a given ratio and recorded rooms, on the host: float32 [n] waveforms at one rate."""

import numpy as np

from alm_jax.audio.decode import FULL_SCALE, AudioError

_FRAME = 0.02  # seconds
_ACTIVE = 1e-4  # of the power of the loudest frame (-40 dB); frames below are pauses
_BEFORE_DIRECT = 0.0025  # seconds; what is recorded earlier is noise, or made by the measurement
_DECAYED = 1e-6  # of the energy (-60 dB): where a room's tail is over
_PEAK = 32767 / FULL_SCALE  # the largest int16


def gain(x: np.ndarray, db: float) -> np.ndarray:
    """``x`` louder by ``db``."""
    return x * np.float32(10.0 ** (db / 20.0))


def peak_guard(x: np.ndarray) -> np.ndarray:
    """``x`` scaled down, as a whole, where it would exceed full scale of int16; else itself."""
    peak = float(np.abs(x).max(initial=0.0))
    return x if peak <= _PEAK else x * np.float32(_PEAK / peak)


def active_power(x: np.ndarray, rate: int) -> float:
    """Mean square over the frames of 20 ms that are within 40 dB of the loudest one.

    So that a bark in ten seconds of silence is as loud as it is, and not a hundredth of that. A
    last frame that is not full belongs to the frame before it.
    """
    if not len(x):
        return 0.0
    starts = np.arange(0, max(1, len(x) - len(x) % _frame(rate)), _frame(rate))
    energy = np.add.reduceat(np.square(x, dtype=np.float64), starts)
    sizes = np.diff([*starts, len(x)])
    active = energy / sizes >= _ACTIVE * (energy / sizes).max()
    return float(energy[active].sum() / sizes[active].sum())


def _frame(rate: int) -> int:
    return max(1, round(_FRAME * rate))


def fitted(noise: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """``noise`` [n] as [length]: a part at a random place, or repeated from a random place on."""
    if len(noise) >= length:
        start = int(rng.integers(0, len(noise) - length + 1))
        return noise[start : start + length]
    return np.resize(np.roll(noise, int(rng.integers(len(noise)))), length)


def add_noise(x: np.ndarray, noise: np.ndarray, snr_db: float, rate: int) -> np.ndarray:
    """``x`` [n] with ``noise`` [n] under it.

    The ratio of ``active_power`` of ``x`` to the mean square of the noise is ``snr_db`` exactly.
    Where either is silent there is no such ratio, and ``x`` comes back. The sum may exceed full
    scale: see ``peak_guard``.
    """
    signal = active_power(x, rate)
    power = float(np.mean(np.square(noise, dtype=np.float64)))
    if not signal or not power:
        return x
    return x + noise * np.float32(np.sqrt(signal / power * 10.0 ** (-snr_db / 10.0)))


def reverberate(x: np.ndarray, response: np.ndarray, rate: int, longest: int) -> np.ndarray:
    """``x`` as it sounds in the room of an impulse response, with the energy of ``x``.

    The direct path, the largest sample of the response, is put at time 0, so that nothing moves;
    the room's tail is kept until it has decayed by 60 dB or the result is ``longest`` samples.

    Args:
      x: [n].
      response: [m], at the same rate.
      rate: Hz.
      longest: samples, at least n.

    Returns:
      float32 [n to longest]; it may exceed full scale: see ``peak_guard``.

    Raises:
      AudioError: a silent response.
    """
    from scipy import signal  # a third of a second that only runs with reverberation need pay

    response, direct = _trimmed(response, rate)
    wet = signal.oaconvolve(x, response)[direct:]
    wet = wet[: min(longest, len(wet))].astype(np.float32)
    before, after = (float(np.sum(np.square(y, dtype=np.float64))) for y in (x, wet))
    return wet * np.float32(np.sqrt(before / after)) if after else wet


def _trimmed(response: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """The response from just before its direct path to the end of its decay, and where that is."""
    direct = int(np.abs(response).argmax())
    if not response[direct]:
        raise AudioError('the impulse response is silent.')
    begin = max(0, direct - round(_BEFORE_DIRECT * rate))
    # Energy that is still to come, after Schroeder (1965).
    left = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    end = max(direct + 1, int(np.count_nonzero(left > _DECAYED * left[direct])))
    return response[begin:end], direct - begin
