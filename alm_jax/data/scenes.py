"""Scenes: short clips joined or mixed into one, with one caption for all of them.

Waveforms are float32 [n] at one rate; every random choice comes from the generator given.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np

from alm_jax.data import temporal
from alm_jax.data.english import clause, sentence

_GAP = (0.05, 0.4)  # seconds of silence between joined clips
_FADE = 0.01  # seconds at each end of a joined clip: a cut does not click
_MAX_GAIN = 4.0  # 12 dB: levels are evened out, but noise is not blown up to an event
# Wordings that hold for clauses ('a dog barks') and for noun phrases ('footsteps on gravel') alike,
_JOINED = {
    2: (
        '{0}, then {1}',
        '{0}, followed by {1}',
        '{1}, preceded by {0}',
        '{0} before {1}',
        '{1} after {0}',
    ),
    3: ('{0}, then {1}, and finally {2}', 'first {0}, then {1}, then {2}'),
}
_OVERLAID = {
    2: ('{0} and, at the same time, {1}', '{0} and {1} at the same time'),
    3: ('{0}, {1} and {2} at the same time', '{0} and, at the same time, {1} and {2}'),
}
# and one that only a clause can end.
_WHILE = {2: ('{0} while {1}',), 3: ('{0} and {1} while {2}',)}
# Captions that hold several sentences, or an order, would become ambiguous inside one sentence.
_COMPOSED = re.compile(
    r'[.!?]["\')]?\s+\S|\b(then|followed by|preceded by|before|after|while|at the same time)\b',
    re.IGNORECASE,
)


def join(clips: Sequence[np.ndarray], rate: int, rng: np.random.Generator) -> np.ndarray:
    """The clips one after another with short gaps, faded at their ends, at even levels."""
    parts = []
    for clip in even_levels(clips):
        if parts:
            parts.append(np.zeros(int(rng.uniform(*_GAP) * rate), np.float32))
        parts.append(_faded(clip, rate))
    return np.concatenate(parts)


def longest_gaps(how_many: int, rate: int) -> int:
    """Samples that the gaps of ``join`` take at most."""
    return (how_many - 1) * int(_GAP[1] * rate)


def overlay(clips: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The clips mixed at even levels; all start within the longest one, which starts first."""
    clips = even_levels(clips)
    longest = max(range(len(clips)), key=lambda i: len(clips[i]))
    mixed = clips[longest].copy()
    for i, clip in enumerate(clips):
        if i != longest:
            start = int(rng.integers(0, len(mixed) - len(clip) + 1))
            mixed[start : start + len(clip)] += clip
    return mixed / max(1.0, np.abs(mixed).max())


def even_levels(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each clip at the geometric mean of their RMS levels, by at most 12 dB; no peak above 1."""
    rms = np.array([np.sqrt(np.mean(np.square(clip, dtype=np.float64))) for clip in clips])
    sounding = rms[rms > 0]
    target = np.exp(np.log(sounding).mean()) if len(sounding) else 0.0
    gains = np.where(rms > 0, np.clip(target / np.maximum(rms, 1e-12), 1 / _MAX_GAIN, _MAX_GAIN), 1)
    peaks = np.array([np.abs(clip).max() for clip in clips])
    gains = np.minimum(gains, 1 / np.maximum(peaks, 1e-12))
    return [(clip * np.float32(gain)).astype(np.float32) for clip, gain in zip(clips, gains)]


def joined_caption(captions: Sequence[str], rng: np.random.Generator) -> str:
    """One text for clips in this order: 'A dog barks, then glass breaks.'"""
    return _one_text(captions, _JOINED.get(len(captions), ()), 'Then {}', rng)


def overlaid_caption(captions: Sequence[str], rng: np.random.Generator) -> str:
    """One text for clips at the same time: 'A dog barks while a bell is ringing.'"""
    wordings = _OVERLAID.get(len(captions), ())
    if temporal.is_clause(captions[-1]):
        wordings += _WHILE.get(len(captions), ())
    return _one_text(captions, wordings, 'At the same time, {}', rng)


def misordered_captions(captions: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Captions that are false of clips in this order: other orders of them, then all at once.

    The negatives of T-CLAP (arXiv:2404.17806). [] where two of the captions may tell of the same
    event: then another order may be true.
    """
    if any(temporal.alike(*pair) for pair in itertools.combinations(captions, 2)):
        return []
    size = len(captions)
    places = [tuple(reversed(range(size)))]
    places += [(*range(i), i + 1, i, *range(i + 2, size)) for i in range(size - 1)]
    orders = [[captions[place] for place in order] for order in dict.fromkeys(places)]
    made = [joined_caption(orders[i], rng) for i in rng.permutation(len(orders))]
    return [*made, overlaid_caption(captions, rng)]


def _one_text(
    captions: Sequence[str], wordings: tuple[str, ...], opening: str, rng: np.random.Generator
) -> str:
    """One sentence by a wording; composed captions, or too many, stay sentences."""
    if not wordings or any(map(_COMPOSED.search, captions)):
        later = [sentence(opening.format(clause(caption))) for caption in captions[1:]]
        return ' '.join([sentence(captions[0]), *later])
    wording = wordings[int(rng.integers(len(wordings)))]
    return sentence(wording.format(*map(clause, captions)))


def _faded(clip: np.ndarray, rate: int) -> np.ndarray:
    n = min(int(_FADE * rate), len(clip) // 2)
    if not n:
        return clip
    clip = clip.copy()
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    clip[:n] *= ramp
    clip[-n:] *= ramp[::-1]
    return clip
