"""Real recordings through every container, and files a user may hand over by mistake."""

import io

import numpy as np
import pytest
import soundfile

from alm_jax.audio.decode import AudioError, decode, from_pcm16, to_pcm16
from alm_jax.config import ConfigError

# container, codec, lowest signal-to-noise ratio (dB) against the original.
FORMATS = [
    ('WAV', 'PCM_16', np.inf),
    ('WAV', 'FLOAT', np.inf),
    ('FLAC', 'PCM_16', np.inf),
    ('OGG', 'VORBIS', 6.0),
    ('OGG', 'OPUS', 6.0),
    ('MP3', 'MPEG_LAYER_III', 6.0),
]


def encode(x, container='WAV', codec='PCM_16', rate=48000):
    file = io.BytesIO()
    soundfile.write(file, x, rate, format=container, subtype=codec)
    return file.getvalue()


@pytest.fixture(scope='module')
def recording(clips):
    """3 s of real sound."""
    x = np.concatenate([x for _, x, rate in clips if rate == 44100])[: 3 * 48000]
    return np.clip(x, -0.99, 0.99)


@pytest.mark.parametrize(('container', 'codec', 'least_db'), FORMATS)
def test_decode_reads_every_format(recording, container, codec, least_db, tmp_path):
    content = encode(recording, container, codec)
    path = tmp_path / f'recording.{container.lower()}'
    path.write_bytes(content)
    x, rate = decode(path)
    assert rate == 48000
    assert x.dtype == np.float32
    assert x.shape == recording.shape
    np.testing.assert_array_equal(decode(content)[0], x)
    noise = np.sum((x.astype(float) - recording) ** 2)
    if least_db == np.inf:
        assert noise == 0
    else:
        assert 10 * np.log10(np.sum(recording.astype(float) ** 2) / noise) > least_db


def test_channels_are_averaged(recording):
    left, right = recording, recording[::-1]
    x, _ = decode(encode(np.stack([left, right], axis=1), codec='FLOAT'))
    np.testing.assert_allclose(x, (left + right) / 2, atol=1e-7)


def test_samples_beyond_full_scale_are_clipped(recording):
    x, _ = decode(encode(4 * recording, codec='FLOAT'))
    np.testing.assert_array_equal(x, np.clip(4 * recording, -1, 1))


@pytest.mark.parametrize(('container', 'codec', 'least_db'), FORMATS)
@pytest.mark.parametrize('share', [0.1, 0.5, 0.95])
def test_a_truncated_file_is_an_error(recording, container, codec, least_db, share):
    content = encode(recording, container, codec)
    with pytest.raises(AudioError, match=r'cut\.bin'):
        decode(content[: int(share * len(content))], name='cut.bin')


def test_an_ogg_stream_without_an_end_flag_is_whole(recording):
    content = bytearray(encode(recording, 'OGG', 'VORBIS'))
    content[content.rfind(b'OggS') + 5] &= ~4
    # The checksum no longer holds; like many players, libsndfile skips such a page.
    x, _ = decode(bytes(content))
    assert len(x) > 0.9 * len(recording)


def test_a_streamed_wav_of_unknown_size_is_whole(recording):
    content = bytearray(encode(recording))
    size = content.index(b'data') + 4
    content[size : size + 4] = b'\xff\xff\xff\xff'
    np.testing.assert_array_equal(decode(bytes(content))[0], recording)


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'empty'),
        (b'Not audio at all, only text.\n' * 20, 'cannot be decoded as audio'),
        (encode(np.zeros(0)), 'no samples'),
        (encode(np.array([0.0, np.nan, np.inf]), codec='FLOAT'), '2 NaN or infinite samples'),
        (encode(np.array([0.0, 20000.0]), codec='FLOAT'), 'samples up to 20000'),
        (encode(np.zeros(9), rate=7), 'sampling rate of 7 Hz'),
        (encode(np.zeros(9), rate=9_999_999), 'sampling rate of 9999999 Hz'),
    ],
    # Not the bytes: libsndfile writes the time into a float WAV, and every test process its own.
    ids=['empty', 'text', 'no_samples', 'nan', 'loud', 'slow', 'fast'],
)
def test_a_file_that_is_no_use_is_an_error_that_names_it(content, reason, tmp_path):
    path = tmp_path / 'dog.wav'
    path.write_bytes(content)
    with pytest.raises(AudioError, match=reason) as error:
        decode(path)
    assert str(path) in str(error.value)
    assert isinstance(error.value, ConfigError)


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    with pytest.raises(AudioError, match='No such file'):
        decode(tmp_path / 'none.wav')
    with pytest.raises(AudioError, match='Is a directory'):
        decode(tmp_path)


def test_pcm_round_trip_is_exact_and_clips():
    pcm = np.arange(-32768, 32768).astype(np.int16)
    x = from_pcm16(pcm.astype('<i2').tobytes())
    assert x.dtype == np.float32
    np.testing.assert_array_equal(to_pcm16(x), pcm)
    np.testing.assert_array_equal(from_pcm16(pcm), x)
    got = to_pcm16(np.array([1.0, -1.0, 7.0, -7.0, 0.6 / 32768]))
    np.testing.assert_array_equal(got, [32767, -32768, 32767, -32768, 1])
