"""The audio of one clip, from a file or an archive's member, whole or a part of it."""

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np

from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data.catalog import archives
from alm_jax.data.catalog.declaration import Clip

_BY_FFMPEG = ('.m4a', '.aac', '.webm', '.mp4')  # what libsndfile does not read
_ALL = 1 << 40  # samples
_LONGEST = 1 << 29  # samples: 3 hours at 48 kHz, 1 GiB of PCM
_EARLIER = 0.5  # seconds decoded before a part, for codecs that need what went before
_LACKING = 0.5  # seconds that a file may be shorter than its header says


def read(clip: Clip) -> tuple[np.ndarray, int]:
    """(int16 mono [n], rate in Hz), n >= 1.

    The bytes of one file and the samples of one clip are held; of most formats only a part that is
    asked for is decoded.

    Raises:
      AudioError: missing, damaged, or a part that begins behind the end; names the clip.
    """
    name = str(clip)
    with _opened(clip) as file:
        if archives.audio_ending(clip.member or clip.path) in _BY_FFMPEG:
            return _read_by_ffmpeg(file, name, clip.start, clip.seconds)
        return _read_by_libsndfile(file.read(), name, clip.start, clip.seconds)


@contextlib.contextmanager
def _opened(clip: Clip) -> Iterator[BinaryIO]:
    try:
        if clip.member:
            yield io.BytesIO(_member(clip))
        else:
            with open(clip.path, 'rb') as file:
                yield file
    except OSError as error:
        raise AudioError(f'{clip.path} cannot be read: {error.strerror}.') from error


def _member(clip: Clip) -> bytes:
    try:
        return archives.read(clip.path, clip.span, clip.member)
    except ConfigError as error:
        raise AudioError(str(error)) from error


def _read_by_libsndfile(
    content: bytes, name: str, start: float, seconds: float | None
) -> tuple[np.ndarray, int]:
    length, rate = decode.header(content, name)
    if not start and seconds is None:
        if length > _LONGEST:
            raise AudioError(
                f'{name} is {length / rate / 3600:.1f} hours long, which is no record that can be '
                'stored; --max_seconds keeps the start of longer ones.'
            )
        x, rate = decode.decode(content, name)
        return decode.to_pcm16(x), rate
    first = round(start * rate)
    frames = _ALL if seconds is None else max(1, round(seconds * rate))
    if not content.startswith((b'RIFF', b'fLaC', b'OggS', b'RF64', b'FORM')):
        # An MP3 may only estimate where its samples lie; a cut must not depend on that.
        x, rate = decode.decode(content, name)
        if first >= len(x):
            raise AudioError(f'{name} ends after {len(x) / rate:.3f} s, before the part begins.')
        x = x[first : first + frames]
    else:
        x, rate = decode.decode_part(content, name, first, frames)
    return decode.to_pcm16(x), rate


def _read_by_ffmpeg(
    file: BinaryIO, name: str, start: float, seconds: float | None
) -> tuple[np.ndarray, int]:
    try:
        with av.open(file) as container:
            if not container.streams.audio:
                raise AudioError(f'{name} has no audio stream.')
            stream = container.streams.audio[0]
            rate = stream.rate
            # Elsewhere times are rounded, in WebM to 1 ms: samples are counted from the start.
            if start > _EARLIER and stream.time_base == Fraction(1, rate):
                container.seek(int((start - _EARLIER) / stream.time_base), stream=stream)
            first, last = round(start * rate), None
            if seconds is not None:
                last = first + max(1, round(seconds * rate))
            pcm = np.concatenate([np.zeros(0, np.int16), *_pieces(container, stream, first, last)])
            length = container.duration
    except av.FFmpegError as error:
        raise AudioError(f'{name} cannot be decoded as audio ({error.strerror}).') from error
    if not len(pcm):
        raise AudioError(f'{name} holds no samples from {start:g} s on.')
    if seconds is None and length and start + len(pcm) / rate < length / av.time_base - _LACKING:
        raise AudioError(f'{name} is truncated: it ends after {first + len(pcm)} samples.')
    return pcm, rate


def _pieces(container, stream, first: int, last: int | None) -> Iterator[np.ndarray]:
    """int16 mono of the frames between two samples, by the frames' own times."""
    planar = av.AudioResampler(format='fltp', layout=stream.layout, rate=stream.rate)
    at = None if stream.time_base == Fraction(1, stream.rate) else 0
    for decoded in container.decode(stream):
        for frame in planar.resample(decoded):
            if at is None:
                at = _position(frame, stream)
            x = frame.to_ndarray().mean(axis=0)
            begin = max(0, first - at)
            end = len(x) if last is None else min(len(x), last - at)
            at += len(x)
            if end > begin:
                yield decode.to_pcm16(np.clip(x[begin:end], -1.0, 1.0))
        if last is not None and at is not None and at >= last:
            return


def _position(frame, stream) -> int:
    """Samples from the start of the recording to a frame."""
    return round((frame.pts or 0) * frame.time_base * stream.rate) - (stream.start_time or 0)
