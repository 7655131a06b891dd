"""Clips of real files: the part that is decoded is the part that cropping the whole would give."""

import io
import math

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.audio import decode, windows
from alm_jax.audio.decode import AudioError
from alm_jax.data import clips, record

FORMATS = {'WAV': 'PCM_16', 'FLAC': 'PCM_16', 'OGG': 'VORBIS', 'MP3': None}
# A step of 16 bits, once more for the rounding of both sides.
STEP = 1.01 / 32_768


@pytest.fixture(scope='module')
def fire(recordings):
    """A recording of 4 s at 44.1 kHz, as float32 [n] and rate."""
    return decode.decode(recordings / 'fire_large.ogg')


@pytest.fixture(scope='module')
def files(fire):
    """The recording, three times over, as a record of each format."""
    audio, rate = fire
    made = {}
    for name, subtype in FORMATS.items():
        file = io.BytesIO()
        soundfile.write(file, np.tile(audio, 3), rate, format=name, subtype=subtype)
        num_samples = decode.header(file.getvalue())[0]
        made[name] = record.make_record(
            file.getvalue(), rate, num_samples=num_samples, id=f'fire.{name}'
        )
    return made


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(list(FORMATS)),
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    longest=st.integers(1, 200_000),
    key=st.integers(0, 2**63 - 1),
)
def test_a_part_is_what_decoding_all_then_cropping_gives(files, name, rate, longest, key):
    source = files[name]
    made = clips.as_float(clips.cut(source, *clips.clips_of(source), longest, rate, key))
    whole, native_rate = decode.decode(source['audio'])
    native = math.ceil(longest * native_rate / rate)
    window, num_samples = windows.crop(whole, native, key)
    expected = window[:num_samples]
    if rate != native_rate:
        expected = soxr.resample(expected, native_rate, rate, quality='HQ')
    assert len(made) == max(1, min(longest, len(expected)))
    assert np.abs(made[: len(expected)] - expected[: len(made)]).max(initial=0) <= 1e-5


def test_stored_pcm_and_its_file_give_the_same_to_a_step(files):
    for name in ('WAV', 'FLAC'):
        source = files[name]
        stored = record.decoded(source)
        for rate in (16_000, 44_100):
            span = clips.clips_of(source)[0]
            assert clips.clips_of(stored) == [span]
            of_file, of_pcm = (clips.cut(r, span, 16_000, rate, 5) for r in (source, stored))
            assert np.abs(clips.as_float(of_file) - clips.as_float(of_pcm)).max() <= STEP


def test_pcm_of_the_right_rate_is_not_touched(files):
    stored = record.decoded(files['WAV'])
    made = clips.cut(stored, (1000, 5000), 2000, 44_100, None)
    assert made.dtype == np.int16
    assert np.shares_memory(made, stored['audio'])
    assert np.array_equal(made, stored['audio'][1000:3000])


def test_a_record_that_tells_no_length_is_asked_for_its_header(files):
    silent = {**files['FLAC'], 'num_samples': 0, 'rate': 0}
    assert clips.size_of(silent) == clips.size_of(files['FLAC'])
    assert np.array_equal(
        clips.cut(silent, clips.clips_of(silent)[0], 999, 16_000, 3),
        clips.cut(files['FLAC'], clips.clips_of(files['FLAC'])[0], 999, 16_000, 3),
    )


@pytest.mark.parametrize('stored', ['pcm', 'FLAC', 'OGG'])
def test_several_clips(files, stored):
    source = record.decoded(files['WAV']) if stored == 'pcm' else files[stored]
    whole, rate = decode.decode(source['audio']) if stored != 'pcm' else (source['audio'], 44_100)
    several = {**source, 'clip_samples': [10_000, 1, 30_000]}
    spans = clips.clips_of(several)
    assert spans == [(0, 10_000), (10_000, 1), (10_001, 30_000)]
    for start, length in spans:
        made = clips.cut(several, (start, length), 10**6, rate, 7)
        assert np.array_equal(made, whole[start : start + length])
    key = 12
    start = 10_001 + windows.crop_start(30_000, 4_410, key)
    made = clips.cut(several, spans[2], 4_410, rate, key)
    assert np.array_equal(made, whole[start : start + 4_410])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'clip_samples': [10**9]}, 'the clips need 1000000000 samples'),
        ({'clip_samples': [5, 0]}, 'no samples'),
        ({'audio': np.zeros(0, np.int16)}, 'no samples'),
    ],
)
def test_clips_that_cannot_be(files, change, message):
    with pytest.raises(AudioError, match=message):
        clips.clips_of({**files['WAV'], **change})


def test_a_file_that_is_not_what_its_record_says(files):
    source = files['WAV']
    with pytest.raises(AudioError, match='44100 Hz; the record says 48000 Hz'):
        clips.cut({**source, 'rate': 48_000}, (0, 1000), 1000, 16_000, 0)
    with pytest.raises(AudioError, match=r'fire\.WAV'):
        clips.cut({**source, 'audio': source['audio'][:5000]}, (0, 1000), 1000, 16_000, 0)
