"""Audio files to mono float32, and 16-bit PCM both ways."""

import io
import os

import numpy as np
import soundfile

from alm_jax.config import ConfigError

FULL_SCALE = 32768.0  # int16 PCM divided by this lies in [-1, 1)
RATES = (1000, 384000)  # Hz; a header outside is damaged or not audio
_READABLE = 'Readable: wav, flac, ogg, mp3, opus.'


class AudioError(ConfigError):
    """Audio that cannot be used; the message names the file and the reason."""


def decode(source: str | os.PathLike | bytes, name: str = '') -> tuple[np.ndarray, int]:
    """A whole file (wav, flac, ogg, mp3, opus and whatever else libsndfile reads) as mono.

    Several channels are averaged. Float files and lossy decoders may exceed full scale; such
    samples are clipped to [-1, 1].

    Args:
      source: a path, or the content of a file.
      name: what messages call it; the path by default.

    Returns:
      (float32 [n] in [-1, 1], rate in Hz), n >= 1.

    Raises:
      AudioError: missing or empty file, not audio, truncated, no samples, NaN or infinite samples,
        a float file on an integer scale, or an absurd sampling rate.
    """
    name = name or ('audio' if isinstance(source, bytes) else os.fspath(source))
    content = source if isinstance(source, bytes) else read_bytes(source)
    if not content:
        raise AudioError(f'{name} is empty (0 bytes).')
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, expected, notes = file.samplerate, file.frames, file.extra_info
            ogg = file.format == 'OGG'
            x = file.read(dtype='float32', always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = str(getattr(error, 'error_string', error)).strip()
        raise AudioError(f'{name} cannot be decoded as audio ({reason}). {_READABLE}') from error
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(
            f'{name} has a sampling rate of {rate} Hz; expected {RATES[0]} to {RATES[1]}.'
        )
    if len(x) < expected or _cut_off(content, notes, ogg):
        raise AudioError(f'{name} is truncated: it ends after {len(x)} samples. Fetch it again.')
    return _mono(x, name), rate


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a file. Raises AudioError, with the OSError as its cause."""
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError as error:
        raise AudioError(f'{os.fspath(path)} cannot be read: {error.strerror}.') from error


def _cut_off(content: bytes, notes: str, ogg: bool) -> bool:
    """Whether a file lacks its end though libsndfile, which reads what is there, does not mind."""
    if ogg:
        # The last page's segment table gives its size (RFC 3533). The end-of-stream flag proves
        # nothing: real encoders forget it.
        page = content[content.rfind(b'OggS') :]
        return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
    for line in notes.splitlines():
        if line.startswith('data : ') and '(should be ' in line:  # wav: declared size, then found
            declared, found = line.removeprefix('data : ').rstrip(')').split(' (should be ')
            # A size of 2 GiB and more stands for 'unknown' in streamed files; 1 is a pad byte.
            return int(found) + 1 < int(declared) < 2**31 - 1
    return False


def _mono(x_nc: np.ndarray, name: str) -> np.ndarray:
    x = x_nc.mean(axis=1) if x_nc.shape[1] > 1 else x_nc[:, 0]
    if not len(x):
        raise AudioError(f'{name} holds no samples.')
    if not np.isfinite(x).all():
        bad = int(np.count_nonzero(~np.isfinite(x)))
        raise AudioError(f'{name} has {bad} NaN or infinite samples.')
    peak = float(np.abs(x).max())
    if peak > 16.0:
        raise AudioError(f'{name} has samples up to {peak:.0f}; float audio must lie in [-1, 1].')
    return np.clip(x, -1.0, 1.0)


def to_pcm16(x: np.ndarray) -> np.ndarray:
    """float [n] in [-1, 1] -> int16 [n], rounded and clipped. The inverse of ``from_pcm16``."""
    return np.clip(np.rint(x * FULL_SCALE), -32768, 32767).astype(np.int16)


def from_pcm16(pcm: bytes | np.ndarray) -> np.ndarray:
    """int16 [n], or its little-endian bytes, -> float32 [n] in [-1, 1)."""
    samples = np.frombuffer(pcm, '<i2') if isinstance(pcm, bytes) else pcm
    return samples.astype(np.float32) / np.float32(FULL_SCALE)
