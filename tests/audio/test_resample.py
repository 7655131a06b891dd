"""Tones, levels and dtypes through a change of rate."""

import numpy as np
import pytest
import scipy.signal

from alm_jax.audio.decode import AudioError, from_pcm16, to_pcm16
from alm_jax.audio.resample import resample


def tone(hz, rate, seconds=1.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype('float32')


@pytest.mark.parametrize(
    ('from_rate', 'to_rate'), [(44100, 16000), (8000, 48000), (22050, 16000), (16000, 44100)]
)
def test_a_tone_keeps_its_pitch_phase_and_level(from_rate, to_rate):
    got = resample(tone(1000, from_rate), from_rate, to_rate)
    assert got.dtype == np.float32
    assert len(got) == to_rate
    inner = slice(to_rate // 10, -to_rate // 10)
    np.testing.assert_allclose(got[inner], tone(1000, to_rate)[inner], atol=2e-5)


def test_a_tone_above_the_new_nyquist_is_gone():
    got = resample(tone(9000, 44100), 44100, 16000)
    assert np.abs(got[1600:-1600]).max() < 0.5 * 10 ** (-100 / 20)


def test_recordings_are_as_the_fourier_transform_resamples_them(clips):
    """Against scipy's exact band-limited resampling, of sound that both pass: below 6 kHz."""
    for _, x, rate in clips:
        if rate != 44100 or len(x) < 4410:
            continue
        x = x[: len(x) // 441 * 441] * scipy.signal.get_window('hann', len(x) // 441 * 441)
        spectrum = np.fft.rfft(x)
        spectrum[np.fft.rfftfreq(len(x), 1 / rate) > 6000] = 0
        x = np.fft.irfft(spectrum, len(x))
        want = scipy.signal.resample(x, len(x) // 441 * 160)
        got = resample(x.astype(np.float32), rate, 16000)
        inner = slice(100, -100)  # the transform wraps around
        np.testing.assert_allclose(got[inner], want[inner], atol=1e-4 * np.abs(x).max())


def test_int16_stays_int16_rounded_and_clipped(clips):
    _, x, rate = max(clips, key=lambda clip: np.abs(clip[1]).max())
    pcm = to_pcm16(x)
    got = resample(pcm, rate, 16000)
    assert got.dtype == np.int16
    want = resample(from_pcm16(pcm), rate, 16000)
    np.testing.assert_allclose(from_pcm16(got), np.clip(want, -1, 1), atol=0.5001 / 32768 + 1e-9)
    np.testing.assert_array_equal(got, resample(pcm, rate, 16000))
    square = to_pcm16(np.sign(tone(440, 44100)))  # overshoots after filtering
    assert resample(square, 44100, 16000).max() == 32767


def test_equal_rates_return_the_input():
    x = tone(440, 16000)
    assert resample(x, 16000, 16000) is x


@pytest.mark.parametrize('num_samples', [1, 2, 3])
def test_the_shortest_clips_keep_a_sample(num_samples):
    assert len(resample(np.ones(num_samples, np.float32), 48000, 8000)) == 1


@pytest.mark.parametrize('rates', [(0, 16000), (16000, -1)])
def test_a_rate_that_is_not_positive_is_an_error(rates):
    with pytest.raises(AudioError, match='must be positive'):
        resample(np.ones(9, np.float32), *rates)
