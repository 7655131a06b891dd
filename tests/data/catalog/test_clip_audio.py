"""Clips whole and in part, in the formats of libsndfile and of FFmpeg; loudness, peak, silence."""

import io
import math
from fractions import Fraction

import av
import numpy as np
import pytest

from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.audio.resample import resample
from alm_jax.data.catalog.building import clip_audio, shards, statistics
from alm_jax.data.catalog.declaration import Clip

CODECS = {'m4a': 'aac', 'mp4': 'aac', 'aac': 'aac', 'webm': 'libopus'}


def encoded(x, rate, ending, channels=1):
    """A recording as FFmpeg writes it."""
    buffer = io.BytesIO()
    layout = 'stereo' if channels == 2 else 'mono'
    kind = {'m4a': 'mp4', 'aac': 'adts'}.get(ending, ending)
    with av.open(buffer, 'w', format=kind) as container:
        stream = container.add_stream(CODECS[ending], rate=rate, layout=layout)
        stream.bit_rate = 192_000
        frame = av.AudioFrame.from_ndarray(
            np.repeat(x[None].astype(np.float32), channels, axis=0), format='fltp', layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            stream.format, stream.layout, rate, stream.codec_context.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def level_of_error(found, expected):
    """dB of the difference to the loudness of the recording."""
    error = decode.from_pcm16(found) - decode.from_pcm16(expected)
    return 10 * math.log10(np.mean(error**2) + 1e-12) - 10 * math.log10(
        np.mean(decode.from_pcm16(expected) ** 2)
    )


@pytest.fixture(scope='module')
def long(clips):
    """Six recordings one after another at 48 kHz: float32 [n]."""
    return np.concatenate([clips.samples(number, 48_000)[0] for number in range(6)])


@pytest.mark.parametrize('channels', [1, 2])
@pytest.mark.parametrize('ending', ['m4a', 'mp4', 'webm'])
def test_what_ffmpeg_reads_comes_back_in_place(tmp_path, long, ending, channels):
    path = tmp_path / f'x.{ending}'
    path.write_bytes(encoded(long, 48_000, ending, channels))
    pcm, rate = clip_audio.read(Clip(str(path)))
    assert (rate, pcm.dtype) == (48_000, np.int16)
    assert abs(len(pcm) - len(long)) < 4096  # the last frame of a codec is filled up
    whole = decode.to_pcm16(long)
    n = min(len(pcm), len(long))
    assert level_of_error(pcm[:n], whole[:n]) < -15  # a shift by one frame gives +3
    for start, seconds in ((1.5, 1.0), (0.2, 0.3), (2.5, None)):
        part, _ = clip_audio.read(Clip(str(path), start=start, seconds=seconds))
        first = round(start * rate)
        expected = pcm[first:][: None if seconds is None else round(seconds * rate)]
        assert len(part) == len(expected)
        if ending == 'webm':
            np.testing.assert_array_equal(part, expected)
        else:  # AAC is sought in, and fills bands with random noise
            assert level_of_error(part, expected) < -25


def test_a_stream_of_aac_without_times_is_read(tmp_path, long):
    (tmp_path / 'x.aac').write_bytes(encoded(long, 48_000, 'aac'))
    pcm, rate = clip_audio.read(Clip(str(tmp_path / 'x.aac')))
    assert (rate, abs(len(pcm) - len(long)) < 4096) == (48_000, True)


def test_files_that_ffmpeg_cannot_read_are_named(tmp_path, long):
    whole = encoded(long, 48_000, 'webm')
    for name, content, reason in (
        ('empty.webm', b'', 'cannot be decoded'),
        ('noise.mp4', b'no video' * 99, 'cannot be decoded'),
        ('cut.webm', whole[: len(whole) // 3], 'is truncated|cannot be decoded'),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=rf'{name} ({reason})'):
            clip_audio.read(Clip(str(tmp_path / name)))
    with pytest.raises(AudioError, match=r'gone\.mp4 cannot be read: No such file'):
        clip_audio.read(Clip(str(tmp_path / 'gone.mp4')))
    (tmp_path / 'x.webm').write_bytes(whole)
    with pytest.raises(AudioError, match='holds no samples from 99 s on'):
        clip_audio.read(Clip(str(tmp_path / 'x.webm'), start=99))


@pytest.mark.parametrize('ending', ['wav', 'flac', 'ogg', 'mp3'])
def test_parts_are_those_of_the_whole(tmp_path, clips, ending):
    path = clips.write(tmp_path / f'x.{ending}', 9)
    whole, rate = clip_audio.read(Clip(str(path)))
    np.testing.assert_array_equal(whole, decode.to_pcm16(decode.decode(path)[0]))
    for start, seconds in ((0.1, 0.2), (0.0, 0.25), (0.3, None), (0.2, 1000.0)):
        part, _ = clip_audio.read(Clip(str(path), start=start, seconds=seconds))
        first = round(start * rate)
        stop = None if seconds is None else first + round(seconds * rate)
        np.testing.assert_array_equal(part, whole[first:stop])
    nested = Clip(str(path)).cut(0.1, 0.5).cut(0.1, 0.1)
    assert (nested.start, nested.seconds) == (0.2, 0.1)
    with pytest.raises(AudioError, match=r'x\.\w+ \[99: s\]'):
        clip_audio.read(Clip(str(path), start=99.0))


def test_several_clips_lie_end_to_end_at_the_highest_rate(tmp_path, clips):
    paths = [clips.write(tmp_path / f'{n}.wav', n, rate) for n, rate in ((0, 16_000), (1, 32_000))]
    made = shards.make_record('x', [Clip(str(path)) for path in paths], {}, 0)
    parts = [resample(*clip_audio.read(Clip(str(path))), 32_000) for path in paths]
    assert made['rate'] == 32_000
    assert made['clip_samples'] == tuple(map(len, parts))
    np.testing.assert_array_equal(made['audio'], np.concatenate(parts))
    cut = shards.make_record('x', [Clip(str(path)) for path in paths], {}, 8_000, 0.1)
    assert cut['clip_samples'] == (800, 800)


def tone(rate, seconds=3.0, level=1.0, hertz=997.0):
    return decode.to_pcm16(level * np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate))


@pytest.mark.parametrize('rate', [8_000, 16_000, 44_100, 48_000])
def test_loudness_of_the_calibration_tone(rate):
    """BS.1770-4: a full-scale sine of 997 Hz in one channel reads -3.01 LKFS."""
    assert statistics.measure(tone(rate), rate)['loudness'] == pytest.approx(-3.01, abs=0.1)
    quiet = statistics.measure(tone(rate, level=0.1), rate)
    assert quiet['loudness'] == pytest.approx(-23.01, abs=0.1)
    assert quiet['peak'] == pytest.approx(-20, abs=0.01)
    short = statistics.measure(tone(rate, seconds=0.05), rate)
    assert short['loudness'] == pytest.approx(-3.01, abs=0.6)  # the filters' onset is in it


def test_silence_is_gated_and_counted():
    rate = 16_000
    half = np.concatenate([tone(rate, level=0.1), np.zeros(3 * rate, np.int16)])
    measured = statistics.measure(half, rate)
    assert measured['silence'] == 0.5
    assert measured['loudness'] == pytest.approx(-23.2, abs=0.2)  # gated; -26 if it counted
    nothing = statistics.measure(np.zeros(rate, np.int16), rate)
    assert nothing == {'loudness': -70.0, 'peak': -96.0, 'silence': 1.0}
    murmur = statistics.measure(np.resize(np.array([1, -1], np.int16), rate), rate)
    assert murmur['silence'] == 1.0
    assert murmur['peak'] == pytest.approx(-90.31, abs=0.01)


def test_the_shortest_and_slowest_recordings_are_measured(clips):
    for n in (1, 2, 7, 400):
        measured = statistics.measure(np.full(n, -32768, np.int16), 44_100)
        assert measured['peak'] == 0.0
        assert -70.0 <= measured['loudness'] < 10.0
    x, _ = clips.samples(3, 4_000)
    full, _ = clips.samples(3, 48_000)
    slow = statistics.measure(decode.to_pcm16(x), 4_000)
    fast = statistics.measure(decode.to_pcm16(resample(x, 4_000, 48_000)), 48_000)
    assert slow['loudness'] == pytest.approx(fast['loudness'], abs=0.5)
    assert len(full) > len(x)
