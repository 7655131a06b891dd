"""Audio files to mono float32, whole or in part, and 16-bit PCM both ways."""

import os
from collections.abc import Iterator

import numpy as np
import soundfile

from alm_jax.audio import containers
from alm_jax.config import ConfigError

FULL_SCALE = 32768.0  # int16 PCM divided by this lies in [-1, 1)
RATES = (1000, 384000)  # Hz; a header outside is damaged or not audio
_READABLE = 'Readable: wav, flac, ogg, mp3, opus.'
# Samples of all channels that are read at a time: a header may claim any number of them.
_BLOCK = 1 << 22
_LONGEST = 1 << 29  # samples of a whole file: 3 hours at 48 kHz, 2 GiB as float32
_WHOLE = 1 << 62  # samples: all that there are
# What libsndfile says of a header -> what a user can tell from it.
_MEANT = {'SF_INFO struct incomplete': 'a sampling rate of 0 Hz or above 2**31 Hz, or no channel'}
# Codecs whose decoder gives, after a seek, the bits that it gives on its way from the start.
_SEEKS = ('PCM_S8', 'PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'ULAW', 'ALAW', 'FLOAT', 'DOUBLE')
_SYSTEM_ERROR = 2  # libsndfile: a read failed
_VORBIS_BLOCK = 8192  # samples, the largest
_MP3_FRAME = 1152  # samples, at 32 kHz and above
_MP3_DELAY = 1105  # samples an encoder usually puts before the first one: 576 + 529
# Frames to decode before a part of an MP3: 511 bytes of bit reservoir are 7 frames of 32 kbit/s,
# and each overlaps the next. Without them a part begins with noise (up to full scale was seen).
_MP3_WARM_UP = 8


# What ``record['audio']`` is when it is not PCM: the content of a file, or where it lies.
FILE = (bytes, os.PathLike)


class AudioError(ConfigError):
    """Audio that cannot be used; the message names the file and the reason."""


class UnreadableFile(AudioError, OSError):
    """The system could not read a file, which says nothing about its content and may pass."""


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
      UnreadableFile: missing, or the system cannot read it.
      AudioError: empty file, not audio, truncated, no samples, NaN or infinite samples, a float
        file on an integer scale, an absurd sampling rate, or more than 2**29 samples (3 hours at
        48 kHz), of which ``decode_part`` reads parts.
    """
    with _File(source, name) as file:
        return file.whole(), file.rate


def decode_part(
    source: str | os.PathLike | bytes, name: str, start: int, frames: int
) -> tuple[np.ndarray, int]:
    """Samples [start, start + frames) of what ``decode`` gives, decoding little else.

    Memory is that of the part, however long the file is or claims to be. The same bits; but parts
    of an MP3 may differ from the whole by 2.4e-7 (a hundredth of a step of 16 bits), as its filters
    then sum in another order. A truncated file is an error wherever the part lies, NaN samples only
    where they lie in the part.

    Args:
      source: a path, or the content of a file.
      name: what messages call it; '' is the path.
      start: first sample, at the file's own rate.
      frames: most samples to return, at least 1.

    Returns:
      (float32 [n] in [-1, 1], rate in Hz), 1 <= n <= frames; n < frames only at the end of the
      file. Of an MP3 whose header tells no length, where ``header`` can only estimate, a part
      beyond the end is moved to the last ``frames`` samples.

    Raises:
      UnreadableFile, AudioError: as ``decode``, and when the file ends before ``start``.
    """
    with _File(source, name) as file:
        return file.part(start, frames), file.rate


def header(source: str | os.PathLike | bytes, name: str = '') -> tuple[int, int]:
    """(number of samples, rate in Hz) as a file's header has them, without decoding.

    The number is an estimate for an MP3 without a Xing header, and 0 for a stream that tells none.

    Raises:
      UnreadableFile, AudioError: as ``decode``, as far as a header shows it.
    """
    with _File(source, name) as file:
        return file.length or 0, file.rate


def counted(source: str | os.PathLike | bytes, name: str = '') -> tuple[int, int]:
    """(number of samples, rate in Hz), found by decoding all of a file and keeping none of it.

    Raises:
      UnreadableFile, AudioError: as ``decode``; but samples are not looked at.
    """
    with _File(source, name) as file:
        return file.counted(), file.rate


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a file. Raises UnreadableFile."""
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError as error:
        raise _unreadable(os.fspath(path), error) from error


class _Samples(AudioError):
    """Samples that mean nothing, where the file is sound."""


class _Sequential(soundfile.SoundFile):
    """Does not seek to where it is after every read, which costs MP3 a tenth of its time."""

    def seekable(self) -> bool:
        return False


class _File:
    """An audio file opened by libsndfile.

    Attributes:
      rate: Hz.
      length: samples, as the header says; None when it does not.
    """

    def __init__(self, source: str | os.PathLike | bytes, name: str):
        self._name = name or ('audio' if isinstance(source, bytes) else os.fspath(source))
        try:
            self._content = containers.Content(source)
        except OSError as error:
            raise _unreadable(self._name, error) from error
        try:
            if not self._content.size:
                raise AudioError(f'{self._name} is empty (0 bytes).')
            self._file = self._open()
        except AudioError:
            self._content.close()
            raise
        self.rate = self._file.samplerate
        self.length = self._file.frames if self._file.frames < 2**62 else None

    def __enter__(self) -> '_File':
        if not RATES[0] <= self.rate <= RATES[1]:
            self.__exit__()
            low, high = RATES
            raise AudioError(
                f'{self._name} has a sampling rate of {self.rate} Hz; expected {low} to {high}.'
            )
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._content.close()

    def whole(self) -> np.ndarray:
        """float32 [n]."""
        if (self.length or 0) > _LONGEST:
            raise self._too_long()
        return self._decoded(0, _WHOLE)[0]

    def part(self, start: int, frames: int) -> np.ndarray:
        """float32 [1 to frames]."""
        if start < 0 or frames < 1:
            raise ValueError(f'{self._name}: {frames} samples from {start}')
        if self.length and not (start == 0 and frames >= self.length):
            x = self._sought(start, min(frames, self.length - start))
            if x is not None:
                return x
            self._again()  # whatever is wrong, decoding the whole says it best
        x, total = self._decoded(start, frames)
        if self._is_estimated() and total - frames < start:
            self._again()
            x, _ = self._decoded(max(0, total - frames), frames)
        if not len(x):
            raise AudioError(f'{self._name} ends after {total} samples, before sample {start}.')
        return x

    def counted(self) -> int:
        """All samples, at least 1."""
        return self._decoded(_WHOLE, 0)[1]

    def _decoded(self, start: int, frames: int) -> tuple[np.ndarray, int]:
        """(float32 [at most frames] from ``start`` on, samples of the whole), from the beginning.

        What is not in the part is decoded and dropped: an end that is missing is found there.
        """
        kept, at = [np.zeros(0, np.float32)], 0
        for x_nc in self._blocks(self.length or _WHOLE):
            part = x_nc[max(0, start - at) : max(0, start + frames - at)]
            at += len(x_nc)
            if len(part):
                kept.append(self._mono(part))
            if frames > _LONGEST and at > _LONGEST:
                raise self._too_long()
        is_known = self.length is not None and not self._is_estimated()
        if (is_known and at < self.length) or self._is_cut_off():
            raise AudioError(
                f'{self._name} is truncated: it ends after {at} samples. Fetch it again.'
            )
        if not at:
            raise AudioError(f'{self._name} holds no samples.')
        return kept[1] if len(kept) == 2 else np.concatenate(kept), at

    def _again(self) -> None:
        """Back to the beginning, whatever state libsndfile is in."""
        self._file.close()
        self._file = self._open()

    def _open(self) -> soundfile.SoundFile:
        try:
            return _Sequential(self._content.open(), closefd=False)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise self._undecodable(error) from error

    def _sought(self, start: int, frames: int) -> np.ndarray | None:
        """Samples [frames, channels]; None if they cannot be had, or not with certainty."""
        warm_up = self._warm_up(start)
        if frames < 1 or warm_up is None or self._is_cut_off():
            return None
        try:
            if self._file.format == 'FLAC' and not self._flac_is_whole():
                return None
            self._file.seek(start - warm_up)
            for _ in self._blocks(warm_up):
                pass
            blocks = [self._mono(x_nc) for x_nc in self._blocks(frames)]
        except (UnreadableFile, _Samples):
            raise
        except (soundfile.SoundFileError, RuntimeError, AudioError):
            return None
        if sum(map(len, blocks)) < frames:
            return None
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _warm_up(self, start: int) -> int | None:
        """Samples to decode before ``start``; None where a seek cannot be trusted."""
        codec = self._file.subtype
        if codec in _SEEKS:
            return 0
        if codec == 'OPUS':  # its prediction converges; 0.1 s was enough
            return min(start, self.rate // 4)
        if codec == 'VORBIS':
            last_page = containers.vorbis_last_page(self._content)
            return max(0, start - max(0, last_page - 2 * _VORBIS_BLOCK))
        if self._file.format != 'MP3' or self._mp3_is_cut_off():
            return None
        if self.rate < 32000:
            return start  # its reservoir spans 24 frames, and mpg123 complains while it fills
        # From an even frame on, the filters mostly sum as they do on their way from the start.
        frame = (start + _MP3_DELAY) // _MP3_FRAME - _MP3_WARM_UP
        return start - max(0, frame // 2 * 2 * _MP3_FRAME - _MP3_DELAY)

    def _blocks(self, frames: int) -> Iterator[np.ndarray]:
        """Samples [n, channels] from where the file is, ``frames`` or as many as there are."""
        most = max(1, _BLOCK // self._file.channels)
        while frames > 0:
            block = self._read(min(most, frames))
            if len(block):
                yield block
            if len(block) < min(most, frames):
                return
            frames -= len(block)

    def _read(self, frames: int) -> np.ndarray:
        """[at most frames, channels]: int16 where libsndfile converts more slowly than numpy."""
        is_pcm16 = self._file.subtype == 'PCM_16' and self._file.format != 'FLAC'
        dtype = 'int16' if is_pcm16 else 'float32'
        try:
            return self._file.read(frames, dtype=dtype, always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise self._undecodable(error) from error

    def _is_cut_off(self) -> bool:
        """Whether it lacks its end though libsndfile, which reads what is there, does not mind."""
        if self._file.format == 'OGG':
            return containers.ogg_is_cut_off(self._content)
        is_wav = self._file.format in ('WAV', 'WAVEX')
        return is_wav and containers.wav_is_cut_off(self._file.extra_info)

    def _flac_is_whole(self) -> bool:
        if containers.flac_has_last_frame(self._content, self.length):
            return True
        self._file.seek(self.length - 1)
        return len(self._read(1)) == 1

    def _is_estimated(self) -> bool:
        return self._file.format == 'MP3' and containers.mp3_sizes(self._content) is None

    def _mp3_is_cut_off(self) -> bool:
        start, size = containers.mp3_sizes(self._content) or (0, 0)
        return self._content.size - start < size

    def _mono(self, x_nc: np.ndarray) -> np.ndarray:
        """[n, c], int16 or float -> float32 [n] in [-1, 1]."""
        x = x_nc[:, 0]
        if x_nc.shape[1] > 1:
            x = x.astype(np.float32)
            for channel in range(1, x_nc.shape[1]):
                x += x_nc[:, channel]
            x /= x_nc.shape[1]
        if x_nc.dtype == np.int16:
            return x * np.float32(1 / FULL_SCALE)
        if self._file.subtype.startswith('PCM_'):
            return x
        low, high = float(x.min()), float(x.max())  # NaN if any sample is
        if not (low >= -16.0 and high <= 16.0):
            raise self._out_of_range(x)
        return x if low >= -1.0 and high <= 1.0 else np.clip(x, -1.0, 1.0, out=x)

    def _too_long(self) -> AudioError:
        longest = f'{_LONGEST} samples ({_LONGEST / self.rate / 3600:.1f} hours)'
        return AudioError(f'{self._name} has more than {longest}, or says so. Cut it.')

    def _out_of_range(self, x: np.ndarray) -> AudioError:
        if bad := int(np.count_nonzero(~np.isfinite(x))):
            return _Samples(f'{self._name} has {bad} NaN or infinite samples.')
        peak = float(np.abs(x).max())
        return _Samples(
            f'{self._name} has samples up to {peak:.0f}; float audio must lie in [-1, 1].'
        )

    def _undecodable(self, error: Exception) -> AudioError:
        if getattr(error, 'code', None) == _SYSTEM_ERROR:
            return UnreadableFile(f'{self._name} cannot be read: {error}.')
        return AudioError(f'{self._name} cannot be decoded as audio ({reason(error)}). {_READABLE}')


def reason(error: Exception) -> str:
    """What libsndfile says of a file that it does not read."""
    said = str(getattr(error, 'error_string', error)).strip()
    return next((plain for words, plain in _MEANT.items() if words in said), said)


def _unreadable(name: str, error: OSError) -> UnreadableFile:
    return UnreadableFile(f'{name} cannot be read: {error.strerror}.')


def to_pcm16(x: np.ndarray) -> np.ndarray:
    """float [n] in [-1, 1] -> int16 [n], rounded and clipped. The inverse of ``from_pcm16``."""
    scaled = x * x.dtype.type(FULL_SCALE)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)


def from_pcm16(pcm: bytes | np.ndarray) -> np.ndarray:
    """int16 [n], or its little-endian bytes, -> float32 [n] in [-1, 1)."""
    samples = np.frombuffer(pcm, '<i2') if isinstance(pcm, bytes) else pcm
    return samples * np.float32(1 / FULL_SCALE)
