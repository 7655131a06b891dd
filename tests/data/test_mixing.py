"""Noise and rooms on real recordings, measured back and against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.data import mixing

RATE = 44_100
few = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(scope='module')
def heard(recordings):
    """name -> float32 [n], taken as of RATE whatever it was."""
    names = ('default_break_glass.1', 'fire_large', 'doors_door_open', 'default_snow_footstep.2')
    return {name: decode.decode(recordings / f'{name}.ogg')[0] for name in names}


def generator(seed):
    return np.random.Generator(np.random.Philox(key=seed))


def decibels(ratio):
    return 10 * np.log10(ratio)


def loud_power(x):
    """Mean square of the 20 ms frames that are not 40 dB below the loudest: written anew."""
    frame, last = 882, len(x) // 882
    frames = [x[i * frame : (i + 1) * frame if i < last - 1 else None] for i in range(max(1, last))]
    powers = [float(np.mean(part.astype(np.float64) ** 2)) for part in frames]
    loud = [part for part, power in zip(frames, powers) if decibels(power / max(powers)) >= -40]
    return float(np.mean(np.concatenate(loud).astype(np.float64) ** 2))


def response(seconds=0.3, delay=0.01, level=0.2):
    """A decaying room with its direct path after ``delay`` seconds, and noise before it."""
    n, first = int(seconds * RATE), int(delay * RATE)
    t = np.arange(n) / RATE
    room = level * generator(0).standard_normal(n) * np.exp(-t * 6.9 / (seconds / 2))
    h = np.concatenate([np.full(first, 1e-5), [1.0], room])
    return h.astype(np.float32)


@few
@given(
    names=st.permutations([0, 1, 2, 3]),
    snr_db=st.floats(-20, 60),
    level=st.floats(0.001, 1),
    seed=st.integers(0, 2**32),
)
def test_the_ratio_is_exact(heard, names, snr_db, level, seed):
    recordings = list(heard.values())
    x = recordings[names[0]] * np.float32(level)
    noise = mixing.fitted(recordings[names[1]], len(x), generator(seed))
    mixed = mixing.add_noise(x, noise, snr_db, RATE)
    added = mixed.astype(np.float64) - x
    measured = decibels(loud_power(x) / np.mean(added**2))
    # float32 sums of a sound and one 60 dB below it keep that to a thousandth
    assert measured == pytest.approx(snr_db, abs=0.01)


def test_pauses_do_not_count(heard):
    glass = heard['default_break_glass.1']
    alone = mixing.active_power(glass, RATE)
    padded = np.concatenate([np.zeros(RATE * 9, np.float32), glass, np.zeros(RATE, np.float32)])
    assert decibels(mixing.active_power(padded, RATE) / alone) == pytest.approx(0, abs=0.3)
    assert mixing.active_power(glass, RATE) == pytest.approx(loud_power(glass), rel=1e-9)
    for n in (1, 100, 881, 882, 883, 2000):
        assert mixing.active_power(glass[:n], RATE) == pytest.approx(loud_power(glass[:n]))


def test_silence_has_no_ratio(heard):
    fire = heard['fire_large']
    silence = np.zeros(len(fire), np.float32)
    assert mixing.add_noise(fire, silence, 10, RATE) is fire
    assert mixing.add_noise(silence, fire, 10, RATE) is silence


@few
@given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 2**32))
def test_noise_is_repeated_or_cut(n, length, seed):
    noise = np.arange(n, dtype=np.float32)
    made = mixing.fitted(noise, length, generator(seed))
    assert made.shape == (length,)
    assert (np.diff(made) % n == 1 % n).all()
    if n >= length:
        assert made[-1] - made[0] == length - 1  # one part, not turned over
    assert np.array_equal(made, mixing.fitted(noise, length, generator(seed)))


def test_every_place_of_the_noise_is_reached():
    noise = np.arange(10, dtype=np.float32)
    assert {mixing.fitted(noise, 4, generator(seed))[0] for seed in range(100)} == set(range(7))
    assert {mixing.fitted(noise, 40, generator(seed))[0] for seed in range(100)} == set(range(10))


@few
@given(st.floats(0, 4), st.integers(0, 3))
def test_the_peak_guard(heard, level, name):
    x = list(heard.values())[name] * np.float32(level)
    guarded = mixing.peak_guard(x)
    assert np.abs(guarded).max() * 32_768 <= 32_767 + 1e-2
    pcm = decode.to_pcm16(guarded)
    assert np.abs(pcm.astype(int)).max() <= 32_767
    if np.abs(x).max() <= 32_767 / 32_768:
        assert guarded is x
    else:  # scaled as a whole: nothing is bent
        factor = float(guarded @ x / (x @ x))
        assert np.allclose(guarded, factor * x, atol=1e-6)
        assert np.abs(pcm.astype(int)).max() >= 32_766


def test_gain():
    x = np.array([0.1, -0.2], np.float32)
    assert mixing.gain(x, 20.0) == pytest.approx([1.0, -2.0])
    assert mixing.gain(x, -6.0206) == pytest.approx([0.05, -0.1], rel=1e-4)
    assert mixing.gain(x, 3.0).dtype == np.float32


@pytest.mark.parametrize('name', range(4))
@pytest.mark.parametrize('seconds', [0.05, 0.3, 2.0])
def test_a_room_is_a_convolution(heard, name, seconds):
    x, h = list(heard.values())[name][:20_000], response(seconds)
    wet = mixing.reverberate(x, h, RATE, 10**6)
    direct = int(np.abs(h).argmax())
    expected = signal.convolve(x.astype(np.float64), h, method='fft')[direct:]
    expected = expected[: len(wet)]
    expected *= np.sqrt(np.sum(x.astype(np.float64) ** 2) / np.sum(expected**2))
    assert wet.dtype == np.float32
    # the tail that is left out is 60 dB down, and so are the samples before the direct path
    error = np.sum((wet - expected) ** 2) / np.sum(expected**2)
    assert decibels(error) < -50
    energy = np.sum(wet.astype(np.float64) ** 2) / np.sum(x.astype(np.float64) ** 2)
    assert energy == pytest.approx(1, rel=1e-4)


def test_the_direct_path_does_not_move(heard):
    steps = heard['default_snow_footstep.2']
    for delay in (0.0, 0.001, 0.05, 0.2):
        wet = mixing.reverberate(steps, response(0.3, delay, 0.02), RATE, 10**6)
        lags = signal.correlate(wet, steps, method='fft')
        assert int(lags.argmax()) == len(steps) - 1
    only_direct = np.zeros(1000, np.float32)
    only_direct[300] = -0.3
    turned = mixing.reverberate(steps, only_direct, RATE, 10**6)
    assert np.allclose(turned, -steps, atol=1e-6)


def test_the_tail_is_kept_inside_the_window(heard):
    x, h = heard['doors_door_open'][:5000], response(1.0)
    whole = mixing.reverberate(x, h, RATE, 10**6)
    assert 5000 + 0.3 * RATE < len(whole) <= 5000 + len(h)
    for longest in (5000, 9000):
        cut = mixing.reverberate(x, h, RATE, longest)
        assert len(cut) == longest
        scale = float(cut @ whole[:longest] / (whole[:longest] @ whole[:longest]))
        assert np.allclose(cut, scale * whole[:longest], atol=1e-5)


def test_the_end_of_a_decay_is_left_out():
    h = np.zeros(RATE, np.float32)
    h[10], h[5000], h[40_000] = 1.0, 0.01, 1e-4  # 0, -40 and -80 dB
    x = np.ones(1, np.float32)
    assert len(mixing.reverberate(x, h, RATE, 10**6)) == 5000 - 10 + 1


def test_silence_in_a_room(heard):
    silence = np.zeros(100, np.float32)
    assert not mixing.reverberate(silence, response(), RATE, 200).any()
    with pytest.raises(AudioError, match='silent'):
        mixing.reverberate(heard['fire_large'], silence, RATE, 10**6)
