"""Parts of real recordings against the slice of the whole, over containers, places and damage."""

import io

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.audio.decode import AudioError, UnreadableFile, decode, decode_part, header, read_bytes

RATE = 44100
EXACT = [
    ('WAV', 'PCM_16'),
    ('WAV', 'PCM_U8'),
    ('WAV', 'PCM_24'),
    ('WAV', 'FLOAT'),
    ('WAV', 'DOUBLE'),
    ('WAV', 'ULAW'),
    ('WAV', 'IMA_ADPCM'),
    ('AIFF', 'PCM_16'),
    ('FLAC', 'PCM_16'),
    ('FLAC', 'PCM_24'),
    ('OGG', 'VORBIS'),
    ('OGG', 'OPUS'),
]
MP3_DIFFERENCE = 2.5e-7


@pytest.fixture(scope='module')
def recording(clips):
    """float32 [20 s] of real sound."""
    x = np.concatenate([x for _, x, rate in clips if rate == RATE])
    return np.clip(np.resize(x, 20 * RATE), -0.99, 0.99)


@pytest.fixture(scope='module')
def encoded(recording):
    """(container, codec, channels) -> content of the file, made once."""
    made = {}

    def encode(container, codec, channels=1):
        key = (container, codec, channels)
        if key not in made:
            x = np.stack([np.roll(recording, 1000 * c) for c in range(channels)], axis=1)
            file = io.BytesIO()
            rate = 48000 if codec == 'OPUS' else RATE
            soundfile.write(file, x, rate, format=container, subtype=codec)
            made[key] = file.getvalue()
        return made[key]

    return encode


def lame(x, rate, bit_rate):
    """An MP3 of LAME, mono: 'ID3' and an Info header first, full use of the bit reservoir."""
    out = io.BytesIO()
    with av.open(out, 'w', 'mp3') as container:
        stream = container.add_stream('libmp3lame', rate=rate)
        stream.bit_rate, stream.layout, stream.format = bit_rate, 'mono', 's16p'
        pcm = np.rint(x[None] * 32767).astype(np.int16)
        for start in range(0, pcm.shape[1], 1152):
            samples = np.ascontiguousarray(pcm[:, start : start + 1152])
            frame = av.AudioFrame.from_ndarray(samples, format='s16p', layout='mono')
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def without_info(content):
    """An MP3 whose first frame, which holds the Info header, is cut away."""
    at = content.index(b'Info')
    sync = content[at - 21 : at - 19]  # 4 bytes of header and 17 of side information before it
    return content[content.index(sync, at + 156) :]


def some_parts(total, count=12):
    rng = np.random.default_rng(7)
    parts = [(0, 1), (0, total - 1), (1, total), (total - 1, 5), (0, 2 * total)]
    starts, lengths = rng.integers(0, total, count), rng.integers(1, 5 * RATE, count)
    return [*parts, *zip(starts.tolist(), lengths.tolist())]


@pytest.mark.parametrize('channels', [1, 2, 3])
@pytest.mark.parametrize(('container', 'codec'), EXACT)
def test_a_part_has_the_bits_of_the_whole(encoded, container, codec, channels):
    if codec == 'IMA_ADPCM' and channels > 2:
        channels = 2  # it has no more
    content = encoded(container, codec, channels)
    whole, rate = decode(content)
    assert header(content) == (len(whole), rate)
    for start, frames in some_parts(len(whole), count=6):
        part, part_rate = decode_part(content, '', start, frames)
        assert part_rate == rate
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, whole[start : start + frames])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(EXACT), st.floats(0, 0.9999), st.integers(1, 3 * RATE))
def test_any_part_has_the_bits_of_the_whole(encoded, kind, place, frames):
    content = encoded(*kind)
    whole, _ = decode(content)
    start = int(place * len(whole))
    part, _ = decode_part(content, '', start, frames)
    np.testing.assert_array_equal(part, whole[start : start + frames])


@pytest.mark.parametrize('quality', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('seconds', [0.3, 2, 7, 20])
def test_the_last_page_of_an_ogg_file_is_reached(recording, quality, seconds):
    file = io.BytesIO()
    x = recording[: int(seconds * RATE)]
    soundfile.write(file, x, RATE, format='OGG', subtype='VORBIS', compression_level=quality)
    whole, _ = decode(file.getvalue())
    for start in range(len(whole) - 1, max(0, len(whole) - RATE), -997):
        part, _ = decode_part(file.getvalue(), '', start, RATE)
        np.testing.assert_array_equal(part, whole[start:])


def test_parts_of_ogg_files_from_elsewhere(recordings):
    for path in sorted(recordings.glob('*.ogg')):
        content = path.read_bytes()
        whole, _ = decode(content)
        for start in range(0, len(whole), 5003):
            part, _ = decode_part(content, path.name, start, 20000)
            np.testing.assert_array_equal(part, whole[start : start + 20000], err_msg=path.name)


@pytest.mark.parametrize('channels', [1, 2])
def test_a_part_of_an_mp3_differs_by_rounding_alone(encoded, channels):
    content = encoded('MP3', 'MPEG_LAYER_III', channels)
    whole, rate = decode(content)
    assert header(content) == (len(whole), rate)
    for start, frames in some_parts(len(whole), count=20):
        part, _ = decode_part(content, '', start, frames)
        expected = whole[start : start + frames]
        assert part.shape == expected.shape
        np.testing.assert_allclose(part, expected, rtol=0, atol=MP3_DIFFERENCE)


@pytest.mark.parametrize(
    ('rate', 'bit_rate'), [(44100, 32000), (44100, 64000), (24000, 8000), (16000, 16000)]
)
def test_the_bit_reservoir_of_an_mp3_is_filled_first(recording, rate, bit_rate, capfd):
    content = lame(recording, rate, bit_rate)
    whole, _ = decode(content)
    for start, frames in some_parts(len(whole)):
        part, _ = decode_part(content, '', start, frames)
        expected = whole[start : start + frames]
        np.testing.assert_allclose(part, expected, rtol=0, atol=MP3_DIFFERENCE)
    assert capfd.readouterr().err == ''  # mpg123 complains to the terminal of what it lacks


def test_an_mp3_without_a_header_of_its_length_is_read(recording):
    content = lame(recording, RATE, 64000)
    whole, _ = decode(content)
    bare = without_info(content)
    x, rate = decode(bare)
    assert rate == RATE
    assert abs(len(x) - len(whole)) < 3 * 1152
    estimate, _ = header(bare)
    assert abs(estimate - len(x)) < 0.02 * len(x)
    part, _ = decode_part(bare, '', 3 * RATE, RATE)
    np.testing.assert_allclose(part, x[3 * RATE : 4 * RATE], rtol=0, atol=MP3_DIFFERENCE)
    beyond, _ = decode_part(bare, '', estimate + 5000, RATE)
    np.testing.assert_array_equal(beyond, x[-RATE:])


def test_a_streamed_flac_of_unknown_length_is_read(encoded):
    content = bytearray(encoded('FLAC', 'PCM_16'))
    expected, _ = decode(bytes(content))
    content[21] &= 0xF0  # STREAMINFO: 36 bits of total samples
    content[22:26] = bytes(4)
    np.testing.assert_array_equal(decode(bytes(content))[0], expected)
    assert header(bytes(content)) == (0, RATE)
    part, _ = decode_part(bytes(content), '', 5000, RATE)
    np.testing.assert_array_equal(part, expected[5000 : 5000 + RATE])


# libsndfile does not tell a cut AIFF from a whole one.
NOTICED = [kind for kind in EXACT if kind[0] != 'AIFF'] + [('MP3', 'MPEG_LAYER_III')]


@pytest.mark.parametrize('kind', NOTICED, ids='_'.join)
@pytest.mark.parametrize('share', [0.1, 0.5, 0.95])
@pytest.mark.parametrize('start', [0, 1000, 12 * RATE, 18 * RATE])
def test_a_truncated_file_is_an_error_wherever_the_part_lies(encoded, kind, share, start):
    content = encoded(*kind)
    with pytest.raises(AudioError, match=r'cut\.bin'):
        decode_part(content[: int(share * len(content))], 'cut.bin', start, RATE)


def test_unusable_samples_are_found_in_their_part():
    x = np.zeros(1000)
    x[500] = np.nan
    file = io.BytesIO()
    soundfile.write(file, x, RATE, format='WAV', subtype='FLOAT')
    assert not decode_part(file.getvalue(), '', 0, 500)[0].any()
    with pytest.raises(AudioError, match='1 NaN or infinite'):
        decode_part(file.getvalue(), '', 400, 101)


def test_a_part_beyond_the_end_is_an_error(encoded):
    with pytest.raises(AudioError, match=r'dog\.flac ends after 882000 samples'):
        decode_part(encoded('FLAC', 'PCM_16'), 'dog.flac', 882000, 10)
    with pytest.raises(ValueError, match='0 samples from 0'):
        decode_part(encoded('FLAC', 'PCM_16'), 'dog.flac', 0, 0)


def test_what_the_system_cannot_read_is_told_from_bad_content(tmp_path):
    with pytest.raises(UnreadableFile, match='No such file') as error:
        read_bytes(tmp_path / 'none.wav')
    assert isinstance(error.value, OSError)
    assert isinstance(error.value, AudioError)
    with pytest.raises(OSError, match='Is a directory'):
        decode_part(tmp_path, '', 0, 10)
    (tmp_path / 'empty.wav').write_bytes(b'')
    with pytest.raises(AudioError) as error:
        decode_part(tmp_path / 'empty.wav', '', 0, 10)
    assert not isinstance(error.value, OSError)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.sampled_from([*EXACT, ('MP3', 'MPEG_LAYER_III')]),
    st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=300)), max_size=4),
    st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=4)), max_size=4),
    st.floats(0.01, 1),
)
def test_damage_of_any_kind_is_an_audio_error_or_leaves_audio(encoded, kind, spots, head, kept):
    content = bytearray(encoded(*kind))
    for place, damage in [*((int(p * len(content)), d) for p, d in spots), *head]:
        content[place : place + len(damage)] = damage
    content = bytes(content[: max(1, int(kept * len(content)))])
    for read in (lambda: decode(content), lambda: decode_part(content, '', 3000, RATE)):
        try:
            x, rate = read()
        except AudioError:
            continue
        assert x.dtype == np.float32
        assert len(x) >= 1
        assert np.abs(x).max() <= 1  # and no NaN
        assert 1000 <= rate <= 384000
