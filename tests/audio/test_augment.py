"""What each augmentation promises, measured; rows differ, keys repeat, padding stays silent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.audio import augment

KEY = jax.random.key(7)
LENGTH = 4000


@pytest.fixture(scope='module')
def batch(clips):
    """16 real clips, zero-padded to 4,000 samples: ([b, n], [b])."""
    lengths = np.array([LENGTH, 3000, 1000, 401] * 4, np.int32)
    x = np.zeros((16, LENGTH), np.float32)
    for row, ((_, clip, _), length) in enumerate(zip(clips, lengths)):
        cut = clip[:length]
        lengths[row] = len(cut)
        x[row, : len(cut)] = cut
    return jnp.asarray(x), jnp.asarray(lengths)


WAVEFORM = {
    'gain': lambda key, x, n, on: augment.gain(key, x, 6.0 if on else 0.0),
    'time_shift': lambda key, x, n, on: augment.time_shift(key, x, n, 500 if on else 0),
    'add_noise': lambda key, x, n, on: augment.add_noise(key, x, n, (0.0, 20.0) if on else ()),
}


@pytest.mark.parametrize('name', WAVEFORM)
def test_waveform_augmentation(batch, name):
    x, num_samples = batch
    function = jax.jit(WAVEFORM[name], static_argnums=3)
    got = function(KEY, x, num_samples, True)
    assert got.shape == x.shape
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(function(KEY, x, num_samples, True), got)
    assert np.any(function(jax.random.key(8), x, num_samples, True) != got)
    for row, length in enumerate(num_samples):
        assert not np.any(got[row, length:])
    assert WAVEFORM[name](KEY, x, num_samples, False) is x


def test_gain_is_one_factor_a_row_within_its_range(batch):
    x, _ = batch
    got = np.asarray(augment.gain(KEY, x, 6.0))
    energy = np.sum(np.square(np.stack([x, got], dtype=np.float64)), axis=2)
    db = 10 * np.log10(energy[1] / energy[0])
    np.testing.assert_allclose(got, x * 10 ** (db[:, None] / 20), rtol=1e-5)
    assert np.all(np.abs(db) <= 6)
    assert len(np.unique(db.round(3))) == 16
    assert db.min() < -1 < 1 < db.max()


def test_time_shift_moves_each_clip_and_fills_with_zeros(batch):
    x, num_samples = batch
    got = np.asarray(augment.time_shift(KEY, x, num_samples, 500))
    shifts = []
    for row, length in enumerate(np.asarray(num_samples)):
        clip = np.asarray(x[row, :length])
        most = min(500, length // 2)
        shifted = [np.roll(clip, s) for s in range(-most, most + 1)]
        for s, y in zip(range(-most, most + 1), shifted):
            y[:s] = 0 if s > 0 else y[:s]
            y[length + s :] = 0 if s < 0 else y[length + s :]
        found = [s - most for s, y in enumerate(shifted) if np.array_equal(y, got[row, :length])]
        assert found
        shifts.append(found[0])
    assert min(shifts) < 0 < max(shifts)
    assert len(set(shifts)) > 8


def test_noise_has_the_ratio_asked_for(batch):
    x, num_samples = batch
    got = augment.add_noise(KEY, x, num_samples, (10.0, 10.0))
    noise = np.asarray(got, np.float64) - np.asarray(x)
    energy = np.sum(np.asarray(x, np.float64) ** 2, axis=1)
    db = 10 * np.log10(energy / np.sum(noise**2, axis=1))
    np.testing.assert_allclose(db, 10.0, atol=0.1)
    # White: the two halves of the spectrum have equal energy.
    power = np.abs(np.fft.rfft(noise[np.asarray(num_samples) == LENGTH], axis=1)) ** 2
    assert power[:, :1000].sum() / power[:, 1000:].sum() == pytest.approx(1, abs=0.1)


def test_noise_ratios_are_drawn_for_each_row_and_silence_stays_silent(batch):
    x, num_samples = batch
    x = x.at[3].set(0.0)
    noise = augment.add_noise(KEY, x, num_samples, (0.0, 20.0)) - x
    assert not np.any(noise[3])
    heard = np.arange(16) != 3
    ratio = np.sum(np.square(x[heard]), axis=1) / np.sum(np.square(noise[heard]), axis=1)
    db = 10 * np.log10(ratio)
    assert -0.1 < db.min() < 8
    assert 12 < db.max() < 20.1


def test_spec_augment_masks_spans_of_the_widths_asked_for():
    rows, frames, bins = 400, 100, 32
    mel = jax.random.normal(jax.random.key(1), (rows, frames, bins)) + 5.0
    num_frames = jnp.where(jnp.arange(rows) % 2, frames, 60)
    options = {'time_masks': 1, 'time_mask_frames': 15, 'freq_masks': 1, 'freq_mask_bins': 6}
    got = np.asarray(jax.jit(lambda m: augment.spec_augment(KEY, m, num_frames, **options))(mel))
    masked = got != np.asarray(mel)
    widths = {60: [], frames: []}
    band_widths = []
    for row, length in enumerate(np.asarray(num_frames)):
        assert not masked[row, length:].any()
        inside = masked[row, :length]
        in_time, in_band = inside.all(axis=1), inside.all(axis=0)
        np.testing.assert_array_equal(inside, in_time[:, None] | in_band[None, :])
        assert np.count_nonzero(np.diff(np.pad(in_time, 1).astype(int)) == 1) <= 1  # one span
        widths[int(length)].append(in_time.sum())
        band_widths.append(in_band.sum())
        if inside.any():
            mean = np.asarray(mel[row, :length]).mean()
            np.testing.assert_allclose(got[row, :length][inside], mean, rtol=1e-5)
    # Uniform on 0..widest: a fifth of 60 frames is 12, the option is 15.
    assert set(widths[60]) == set(range(13))
    assert set(widths[frames]) == set(range(16))
    assert set(band_widths) == set(range(7))
    assert np.mean(widths[frames]) == pytest.approx(7.5, abs=1.0)
    assert np.mean(band_widths) == pytest.approx(3.0, abs=0.4)


def test_spec_augment_is_off_by_default():
    mel = jnp.ones((2, 10, 4))
    assert augment.spec_augment(KEY, mel, jnp.array([10, 4])) is mel


def test_spec_augment_of_an_empty_or_very_short_clip_is_finite():
    mel = jnp.ones((2, 10, 4))
    masked = jax.jit(lambda m: augment.spec_augment(KEY, m, jnp.array([0, 1]), time_masks=2))
    np.testing.assert_array_equal(masked(mel), mel)
