"""The clips of a row: which of a record's, how long each, and their samples."""

from collections.abc import Sequence

import numpy as np

from alm_jax.audio.decode import to_pcm16
from alm_jax.data import clips, row_keys
from alm_jax.data.clips import Record
from alm_jax.data.row_keys import Purpose


def fair_shares(lengths: Sequence[int], room: int) -> list[int]:
    """Lengths cut to sum to at most ``room``: short ones stay whole, long ones share the rest."""
    shares = list(lengths)
    for left, i in enumerate(sorted(range(len(lengths)), key=lambda i: lengths[i])):
        shares[i] = max(1, min(lengths[i], room // (len(lengths) - left)))
        room -= shares[i]
    return shares


def one_each(found: Sequence[list[clips.Span]], key: int) -> list[clips.Span]:
    """One of the clips of each record."""
    rng = row_keys.generator(key, Purpose.CLIPS)
    return [spans[int(rng.integers(len(spans)))] for spans in found]


def is_whole(
    example: Record, spans: Sequence[clips.Span], longest: int, sampling_rate: int
) -> bool:
    """Whether all that a record holds is heard."""
    lengths = [clips.resampled_length(span, example, sampling_rate) for span in spans]
    return len(spans) == max(1, len(example['clip_samples'])) and max(lengths) <= longest


def shares(
    examples: Sequence[Record], spans: Sequence[clips.Span], room: int, sampling_rate: int
) -> list[int]:
    """Lengths at ``sampling_rate`` to which clips are cut, so that they fit into ``room``."""
    lengths = [
        clips.resampled_length(span, example, sampling_rate)
        for example, span in zip(examples, spans)
    ]
    return fair_shares(lengths, max(room, len(lengths)))


def cut(
    examples: Sequence[Record],
    spans: Sequence[clips.Span],
    longest: Sequence[int],
    sampling_rate: int,
    key: int,
) -> list[np.ndarray]:
    """Each clip at ``sampling_rate``, at most so long, from a place that the key chooses.

    int16 or float32: see ``clips.cut``.
    """
    rng = row_keys.generator(key, Purpose.PLACE)
    places = rng.integers(2**63, size=len(spans)).tolist()
    return [
        clips.cut(example, span, most, sampling_rate, place)
        for example, span, most, place in zip(examples, spans, longest, places)
    ]


def pcm16(x: np.ndarray) -> np.ndarray:
    """int16 or float32 [n] -> int16 [n]."""
    return x if x.dtype == np.int16 else to_pcm16(x)


def padded(x: np.ndarray, length: int) -> np.ndarray:
    """``x`` [at most length] as int16 [length], with zeros at its end."""
    padded = np.zeros(length, np.int16)
    padded[: len(x)] = pcm16(x)
    return padded
