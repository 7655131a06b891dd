"""Headers that claim the moon and files of an hour: a real process reads them in little memory."""

import contextlib
import io
import json
import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.audio import decode
from alm_jax.config import ConfigError
from alm_jax.data.inputs import files as files_of
from alm_jax.data.inputs import headers

RATE = 16_000
HOUR = 3600
SECONDS = 3  # that are needed of an hour
# Above what the process holds with everything imported; an hour of float32 at 16 kHz is 220 MiB.
ROOM = 96 << 20  # bytes of address space

PROGRAM = """
import json, pathlib, resource, sys, time
from alm_jax.audio import decode
from alm_jax.data.inputs import headers

# A first file of each kind, so that what libraries keep for good is there.
for path in json.loads(sys.argv[2]):
    decode.decode_part(path, '', 1000, 1000)
used = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[3]),) * 2)
for path, start, frames in json.loads(sys.argv[1]):
    began = time.perf_counter()
    for kind, read in {
        'header': lambda: headers.read(pathlib.Path(path)),
        'part': lambda: len(decode.decode_part(path, '', start, frames)[0]),
        'whole': lambda: len(decode.decode(path)[0]) if frames < 1000 else None,
    }.items():
        try:
            found = read()
        except decode.AudioError as error:
            found = str(error)
        print(json.dumps([path, kind, found, time.perf_counter() - began]))
"""


def encoded(x, container, codec=None, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, x, rate, format=container, subtype=codec)
    return file.getvalue()


def wav(claimed, *, data=b'\1\0' * 5000, rate=RATE, channels=1, riff=2**32 - 1):
    form = struct.pack('<HHIIHH', 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    head = b'RIFF' + struct.pack('<I', riff) + b'WAVEfmt ' + struct.pack('<I', 16) + form
    return head + b'data' + struct.pack('<I', claimed) + data


def flac_claiming(content, samples):
    """STREAMINFO has 36 bits of samples, from the lower half of byte 21 on."""
    content = bytearray(content)
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = (samples & 2**32 - 1).to_bytes(4, 'big')
    return bytes(content)


def mp3_of(content, times, claimed=None):
    """The frames of an MP3 again and again, behind a header that tells how many."""
    at = max(content.find(word) for word in (b'Xing', b'Info'))
    sync = content[at - 13 : at - 11]  # before it: 4 bytes of header, 9 of side information
    first = content.index(sync, at + 120)
    head, frames = bytearray(content[:first]), content[first:]
    count = int.from_bytes(head[at + 8 : at + 12], 'big')
    head[at + 8 : at + 12] = (claimed or count * times).to_bytes(4, 'big')
    head[at + 12 : at + 16] = (len(head) + len(frames) * times).to_bytes(4, 'big')
    return bytes(head) + frames * times


@pytest.fixture(scope='module')
def flac():
    """64 000 samples of noise."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE)
    return encoded(noise.astype(np.float32), 'FLAC')


@pytest.fixture(scope='module')
def files(tmp_path_factory, flac):
    folder = tmp_path_factory.mktemp('claims')
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(4 * RATE)
    ogg, mp3 = encoded(noise, 'OGG'), encoded(noise, 'MP3')
    ogg_claiming = bytearray(ogg)
    at = ogg.rfind(b'OggS')
    ogg_claiming[at + 6 : at + 14] = (2**62).to_bytes(8, 'little')
    silence = encoded(np.zeros(RATE * HOUR, np.int16), 'FLAC')
    made = {
        'plain.flac': flac,
        'plain.ogg': ogg,
        'plain.mp3': mp3,
        'plain.wav': wav(10_000, riff=10_036),
        'claims_4_gib.wav': wav(2**32 - 1),
        'claims_1_gib.wav': wav(2**30),
        'claims_1024_channels.wav': wav(2**30, channels=1024),
        'claims_2_28.flac': flac_claiming(flac, 1 << 28),
        'claims_2_36.flac': flac_claiming(flac, 2**36 - 1),
        'claims_2_62.ogg': bytes(ogg_claiming),
        'claims_2_32_frames.mp3': mp3_of(mp3, 1, claimed=2**32 - 1),
        'hour.flac': silence,
        'hour_of_unknown_length.flac': flac_claiming(silence, 0),
        'hour.mp3': mp3_of(mp3, HOUR // 4),
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    with open(folder / 'hour.wav', 'wb') as file:  # 2.7 GB, of which the disk holds a page
        file.write(wav(384_000 * HOUR * 2, data=b'', rate=384_000))
        os.truncate(folder / 'hour.wav', 44 + 384_000 * HOUR * 2)
    return folder


@pytest.fixture(scope='module')
def said(files):
    """{(file, what was done): [result or error, seconds]} of a process with ROOM to grow by."""
    asked = []
    for path in sorted(files.iterdir()):
        if path.name.startswith('hour'):
            rate = 384_000 if path.suffix == '.wav' else RATE
            asked.append((str(path), 3000 * rate, SECONDS * rate))
        elif path.name.startswith('claims'):
            asked.append((str(path), 1000, 500))
    plain = [str(path) for path in files.glob('plain.*')]
    arguments = [json.dumps(asked), json.dumps(plain), str(ROOM)]
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {(os.path.basename(path), kind): rest for path, kind, *rest in lines}


TRUNCATED, TOO_LONG = 'is truncated: it ends after', r'more than 536870912 samples .* Cut it\.'


@pytest.mark.parametrize(
    ('name', 'header', 'part', 'whole'),
    [
        ('claims_4_gib.wav', [5000, RATE], 500, 5000),  # what a streamed WAV claims, too
        ('claims_1_gib.wav', [5000, RATE], TRUNCATED, TRUNCATED),
        ('claims_1024_channels.wav', [4, RATE], TRUNCATED, TRUNCATED),
        ('claims_2_28.flac', [1 << 28, RATE], TRUNCATED, TRUNCATED),
        ('claims_2_36.flac', [2**36 - 1, RATE], TRUNCATED, TOO_LONG),
        ('claims_2_62.ogg', [57_984, RATE], 500, 57_984),  # the page that claims it is damaged
        ('claims_2_32_frames.mp3', TRUNCATED, 500, TOO_LONG),
        ('hour.flac', [HOUR * RATE, RATE], SECONDS * RATE, None),
        ('hour_of_unknown_length.flac', [HOUR * RATE, RATE], SECONDS * RATE, None),
        ('hour.mp3', [59_095_936, RATE], SECONDS * RATE, None),
        ('hour.wav', [HOUR * 384_000, 384_000], SECONDS * 384_000, None),
    ],
)
def test_memory_is_bounded_whatever_a_header_claims(said, name, header, part, whole):
    for kind, expected in {'header': header, 'part': part, 'whole': whole}.items():
        found, seconds = said[name, kind]
        if isinstance(expected, str):
            assert re.search(expected, found)
        else:
            assert found == expected
        assert seconds < 60


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    channels=st.integers(0, 2**16 - 1),
    rate=st.integers(0, 2**32 - 1),
    block=st.integers(0, 2**16 - 1),
    bits=st.sampled_from([0, 1, 7, 8, 16, 24, 32, 64, 2**16 - 1]),
    tag=st.sampled_from([0, 1, 2, 3, 6, 7, 0x11, 0x31, 0x55, 0xFFFE]),
    claimed=st.integers(0, 2**32 - 1),
)
def test_any_wav_header_is_an_audio_error_or_leaves_audio(
    channels, rate, block, bits, tag, claimed
):
    form = struct.pack('<HHIIHH', tag, channels, rate, 0, block, bits)
    content = wav(claimed).replace(struct.pack('<HHIIHH', 1, 1, RATE, 2 * RATE, 2, 16), form)
    assert form in content
    with contextlib.suppress(decode.AudioError):
        samples, _ = headers.read(memoryview(content))
        assert 1 <= samples <= 8 * len(content)
    for read in (lambda: decode.decode(content), lambda: decode.decode_part(content, '', 5, 99)):
        with contextlib.suppress(decode.AudioError):
            x, found = read()
            assert found == rate
            assert 1 <= len(x) <= 8 * len(content)
            assert np.abs(x).max() <= 1  # and no NaN


@settings(max_examples=150, deadline=None, derandomize=True)
@given(samples=st.integers(0, 2**36 - 1), start=st.integers(0, 2**37))
def test_a_flac_gives_what_it_has_whatever_it_claims(flac, samples, start):
    content = flac_claiming(flac, samples)
    for read in (lambda: decode.decode(content), lambda: decode.decode_part(content, '', start, 9)):
        with contextlib.suppress(decode.AudioError):
            x, _ = read()
            assert samples <= 64_000  # or 0, which is a stream that does not say
            assert 1 <= len(x) <= 64_000


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'dog.wav')
    with pytest.raises(decode.AudioError, match='a folder, a pipe or a device'):
        headers.read(tmp_path / 'dog.wav')
    with pytest.raises(ConfigError, match='is no file'):
        files_of.read_text(tmp_path / 'dog.wav')
    (tmp_path / 'long.txt').write_bytes(b'')
    os.truncate(tmp_path / 'long.txt', files_of.LARGEST_TEXT + 1)
    with pytest.raises(ConfigError, match='has 16777217 bytes; a text has at most 16777216'):
        files_of.read_text(tmp_path / 'long.txt')
