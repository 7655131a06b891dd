"""Parity on real recordings: transformers' extractors, the numpy twin, the jnp twin.

The tolerances are: power spectra within 1e-4 of the frame's maximum; dB within 1e-3 where the mel
power exceeds 1e-7 of the clip's maximum; elsewhere mel amplitudes within the f32 noise floor, which
is 2 ** -22 (two f32 ulp) of the clip's maximum.
"""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import scipy.fft
import scipy.signal
import soxr
import transformers

from alm_jax.audio.log_mel import log_mel, spectrogram
from alm_jax.audio.log_mel_device import log_mel_device, spectrogram_device
from alm_jax.audio.presets import PRESETS

SECONDS = 4
NOISE_FLOOR = 2.0**-22
on_device = functools.partial(jax.jit, static_argnums=1)(log_mel_device)
spectrogram_on_device = functools.partial(jax.jit, static_argnums=1)(spectrogram_device)


def windows(clips, front_end):
    """(float32 [clips, n] zero-padded to SECONDS at the front end's rate, [clips] lengths)."""
    size = SECONDS * front_end.sampling_rate
    rows = []
    for _, x, rate in clips:
        y = soxr.resample(x, rate, front_end.sampling_rate)[:size]
        rows.append(np.clip(np.rint(y * 32768), -32768, 32767) / 32768)  # as PCM reaches a device
    padded = np.stack([np.pad(row, (0, size - len(row))) for row in rows])
    return padded.astype(np.float32), np.array([len(row) for row in rows])


def decibels(value, front_end):
    """Features back to 10 log10 of mel power, float64."""
    value = value.astype(np.float64) * front_end.scale + front_end.mean
    if front_end.log == 'ln':
        return value * 10.0 * (2 / front_end.power) / np.log(10.0)
    return value if front_end.log == 'db' else 10.0 * value


def assert_parity(got_btm, want_btm, front_end):
    assert got_btm.shape == want_btm.shape
    for got, want in zip(got_btm, want_btm):
        got, want = decibels(got, front_end), decibels(want, front_end)
        power, got_power = 10 ** (want / 10), 10 ** (got / 10)
        loud = power > 1e-7 * power.max()
        np.testing.assert_allclose(got[loud], want[loud], rtol=0, atol=1e-3)
        floor = NOISE_FLOOR * np.sqrt(power.max())
        quiet, got_quiet = np.sqrt(power[~loud]), np.sqrt(got_power[~loud])
        np.testing.assert_allclose(got_quiet, quiet, rtol=0, atol=floor)


def clap(x_bn, lengths, front_end):
    extractor = transformers.ClapFeatureExtractor(
        truncation='rand_trunc', padding='pad', frequency_min=50, max_length_s=SECONDS
    )
    features = extractor(list(x_bn), sampling_rate=48000)['input_features']
    return np.stack(features)[:, 0]


def whisper(x_bn, lengths, front_end):
    extractor = transformers.WhisperFeatureExtractor(front_end.n_mels, chunk_length=SECONDS)
    # Its numpy path: f64, so that the reference adds no noise. The torch path is compared below.
    return extractor._np_extract_fbank_features(list(x_bn), 'cpu').transpose(0, 2, 1)


def yamnet(x_bn, lengths, front_end):
    """research/audioset/yamnet/features.py, written with scipy and loops."""
    window = scipy.signal.get_window('hann', 400)
    frames = (x_bn.shape[1] - 400) // 160 + 1
    starts = 160 * np.arange(frames)
    cut = x_bn.astype(np.float64)[:, starts[:, None] + np.arange(400)] * window
    magnitude = np.abs(scipy.fft.rfft(cut, n=512))
    return np.log(magnitude @ tensorflow_mel_matrix() + 0.001)


def tensorflow_mel_matrix():
    """tf.signal.linear_to_mel_weight_matrix(64, 257, 16000, 125, 7500), float64 [257, 64]."""

    def mel(hz):
        return 1127.0 * np.log1p(hz / 700.0)

    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    weights = np.zeros((257, 64))
    for k in range(1, 257):  # the DC bin stays zero
        for band in range(64):
            low, centre, high = edges[band : band + 3]
            x = mel(k * 8000.0 / 256)
            weights[k, band] = max(0, min((x - low) / (centre - low), (high - x) / (high - centre)))
    return weights


REFERENCES = {'clap': clap, 'whisper_80': whisper, 'whisper_128': whisper, 'yamnet': yamnet}


@pytest.mark.parametrize('preset', REFERENCES)
def test_log_mel_is_the_reference_extractor(clips, preset):
    front_end = PRESETS[preset]
    x_bn, lengths = windows(clips, front_end)
    want = REFERENCES[preset](x_bn, lengths, front_end)
    got = log_mel(x_bn, front_end)
    assert_parity(got, want, front_end)
    assert_parity(np.asarray(on_device(x_bn, front_end)), want, front_end)
    # The host twin is f64 inside: it agrees to f32 rounding of the features.
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


# Its 128 bands leave some filters between two FFT bins; ours are the same.
@pytest.mark.filterwarnings('ignore:At least one mel filter has all zero values')
def test_fbank_is_the_ast_extractor(clips):
    front_end = PRESETS['fbank']
    x_bn, lengths = windows(clips, front_end)
    extractor = transformers.ASTFeatureExtractor()
    device = np.asarray(on_device(x_bn, front_end))
    for x, n, row in zip(x_bn, lengths, device):
        frames = front_end.num_frames(n)
        assert frames == 1 + (n - 400) // 160
        want = np.asarray(extractor(x[:n], sampling_rate=16000)['input_values'])[:, :frames]
        assert_parity(log_mel(x[None, :n], front_end), want, front_end)
        assert_parity(row[None, :frames], want, front_end)


def test_whisper_is_the_torch_extractor(clips):
    front_end = PRESETS['whisper_80']
    x_bn, _ = windows(clips, front_end)
    extractor = transformers.WhisperFeatureExtractor(chunk_length=SECONDS)
    want = extractor(list(x_bn), sampling_rate=16000)['input_features'].transpose(0, 2, 1)
    assert_parity(log_mel(x_bn, front_end), want, front_end)


@pytest.mark.parametrize('preset', PRESETS)
def test_device_power_spectrum_is_the_hosts(clips, preset):
    front_end = PRESETS[preset]
    x_bn, _ = windows(clips, front_end)
    got = np.asarray(spectrogram_on_device(x_bn, front_end))
    want = np.stack([spectrogram(x, front_end) for x in x_bn])
    frame_maximum = want.max(axis=-1, keepdims=True)
    assert np.all(np.abs(got - want) <= 1e-4 * frame_maximum)


@pytest.mark.parametrize('length', [1, 399, 1025, 8001])
@pytest.mark.parametrize('preset', ['clap', 'whisper_80', 'fbank', 'yamnet'])
def test_device_is_the_host_at_any_length_and_level(preset, length):
    front_end = PRESETS[preset]
    levels = np.array([[1.0], [1e-2], [1e-4], [0.0]])
    x = (levels * np.random.default_rng(length).uniform(-1, 1, (4, length))).astype(np.float32)
    got = np.asarray(on_device(x, front_end))
    assert got.shape == (4, front_end.num_frames(length), front_end.n_mels)
    assert_parity(got, log_mel(x, front_end), front_end)


@pytest.mark.parametrize('preset', ['fbank', 'yamnet'])
@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
@hypothesis.given(length=st.integers(1, 4000), padding=st.integers(1, 4000))
def test_padding_leaves_the_frames_of_a_clip_as_they_are(preset, length, padding):
    front_end = PRESETS[preset]
    x = np.random.default_rng(length).uniform(-1, 1, (1, length))
    padded = np.pad(x, ((0, 0), (0, padding)))
    frames = front_end.num_frames(length)
    np.testing.assert_array_equal(
        log_mel(padded, front_end)[:, :frames], log_mel(x, front_end)[:, :frames]
    )


@pytest.mark.parametrize('preset', ['clap', 'whisper_80'])
def test_padding_a_centred_clip_changes_only_the_frames_that_reach_over_its_end(preset):
    front_end = PRESETS[preset]
    length = 20 * front_end.hop_length
    x = np.random.default_rng(0).uniform(-1, 1, (1, length))
    alone = log_mel(x, front_end)
    padded = log_mel(np.pad(x, ((0, 0), (0, length))), front_end)
    inside = (length - front_end.n_fft // 2) // front_end.hop_length + 1
    np.testing.assert_array_equal(padded[:, :inside], alone[:, :inside])
    # Reflection at the clip's end against zeros after it.
    last = front_end.num_frames(length) - 1
    assert np.abs(padded[:, last] - alone[:, last]).max() > 1e-3


def test_whisper_limits_the_range_of_each_clip_by_itself():
    front_end = PRESETS['whisper_80']
    loud = np.random.default_rng(0).uniform(-1, 1, 8000).astype(np.float32)
    loud[4000:] = 0
    batch = np.stack([loud, 0.1 * loud])
    for got in (log_mel(batch, front_end), np.asarray(on_device(batch, front_end))):
        peaks = got.max(axis=(1, 2))
        np.testing.assert_allclose(got.min(axis=(1, 2)), peaks - 8 / 4, atol=1e-6)
        np.testing.assert_allclose(peaks[0] - peaks[1], 2 / 4, atol=1e-5)


@pytest.mark.parametrize('length', [300, 8000])
def test_bands_of_another_front_end_stand_behind_with_zeros_where_it_has_no_frame(length):
    x = np.random.default_rng(0).uniform(-1, 1, (2, length)).astype(np.float32)
    front_end = PRESETS['salmonn']
    whisper, beats = (log_mel(x, PRESETS[name]) for name in ('whisper_80', 'beats'))
    for got in (log_mel(x, front_end), np.asarray(on_device(x, front_end))):
        assert (
            got.shape == (2, front_end.num_frames(length), front_end.bands) == (2, *got.shape[1:])
        )
        np.testing.assert_allclose(got[..., :80], whisper, atol=1e-3)
        np.testing.assert_allclose(got[:, : beats.shape[1], 80:], beats, atol=1e-2)
        assert not got[:, beats.shape[1] :, 80:].any()
