"""The audio of a record, cut and resampled; of a file, only the part that is needed is decoded."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.audio.resample import resample
from alm_jax.audio.windows import crop_start

Record = Mapping[str, Any]
Span = tuple[int, int]  # first sample, number of samples; at the rate of the record


def clips_of(record: Record) -> list[Span]:
    """The clips of a record, in order: one, unless ``clip_samples`` tells of several.

    Raises:
      AudioError: no samples, or clips that are longer together than the audio.
    """
    num_samples, _ = size_of(record)
    lengths = [int(length) for length in record['clip_samples']] or [num_samples]
    if min(lengths) < 1:
        raise AudioError('the record holds no samples.')
    if sum(lengths) > num_samples:
        raise AudioError(f'the clips need {sum(lengths)} samples; the record holds {num_samples}.')
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    return list(zip(starts, lengths))


def size_of(record: Record) -> Span:
    """(number of samples, Hz). Of a file, what the record says, or else what its header says."""
    audio, declared = record['audio'], int(record['num_samples'])
    if not isinstance(audio, decode.FILE):
        return len(audio), int(record['rate'])
    if declared > 0 and record['rate'] > 0:
        return declared, int(record['rate'])
    num_samples, rate = decode.header(audio, _name(record))
    return (num_samples, rate) if num_samples else decode.counted(audio, _name(record))


def resampled_length(span: Span, record: Record, sampling_rate: int) -> int:
    """Samples, at least, that hold a clip at ``sampling_rate``."""
    return math.ceil(span[1] * sampling_rate / size_of(record)[1])


def cut(
    record: Record, span: Span, longest: int, sampling_rate: int, key: int | None
) -> np.ndarray:
    """A clip of a record at ``sampling_rate``, at most ``longest`` samples.

    Cut first, so that a minute takes no longer than a window, and at the place where
    ``windows.crop`` cuts.

    Args:
      record: see ``alm_jax.data.record``; int16 PCM, or a file as bytes.
      span: the clip, of ``clips_of``.
      longest: samples at ``sampling_rate``.
      sampling_rate: Hz.
      key: of the place; None takes the beginning.

    Returns:
      int16 [n] where the record holds PCM of this rate already, else float32 [n] in about [-1, 1];
      1 <= n <= longest.

    Raises:
      AudioError: audio that cannot be decoded.
    """
    start, num_samples = span
    rate = size_of(record)[1]
    native = math.ceil(longest * rate / sampling_rate)
    first = start + (0 if key is None else crop_start(num_samples, native, key))
    samples = _part(record, first, min(native, num_samples), rate)
    if rate == sampling_rate:
        return samples[:longest]
    return resample(as_float(samples), rate, sampling_rate)[:longest]


def as_float(samples: np.ndarray) -> np.ndarray:
    """int16 or float32 [n] -> float32 [n]."""
    return decode.from_pcm16(samples) if samples.dtype == np.int16 else samples


def _part(record: Record, first: int, count: int, rate: int) -> np.ndarray:
    audio = record['audio']
    if not isinstance(audio, decode.FILE):
        return audio[first : first + count]
    samples, found = decode.decode_part(audio, _name(record), first, count)
    if found != rate:
        raise AudioError(f'the file has {found} Hz; the record says {rate} Hz.')
    return samples


def _name(record: Record) -> str:
    return record['source'] or record['id']
