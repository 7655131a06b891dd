"""Parametric sounds with compositional captions, rendered on the fly: no download.

A scene is one or two events in order; an event is what, how many and how loud. For tests and for
probes of whether a model hears order and attributes (pairs after CompA, arXiv:2310.08753): no
figure about real sound may rest on it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import record
from alm_jax.data.index import Index

RATE = 16_000  # Hz
SIZES = {'train': 2_000, 'validation': 500, 'test': 500}
COUNTS = {1: 'a', 2: 'two', 3: 'three'}
LOUDNESS = {'': 0.2, 'loud': 0.6, 'quiet': 0.04}  # peak amplitude; a word means at least 9.5 dB
_GAP = 0.12  # seconds between repetitions
_BETWEEN = 0.3  # seconds between events
_ORDERS = (
    '{0}, then {1}',
    '{0} followed by {1}',
    '{0} before {1}',
    '{1} after {0}',
)


def _decay(seconds: np.ndarray, constant: float) -> np.ndarray:
    return np.exp(-seconds / constant)


def _tone(t, rng):
    return np.sin(2 * np.pi * rng.uniform(300, 1200) * t)


def _rising(t, rng):
    low, high = rng.uniform(200, 500), rng.uniform(1500, 4000)
    return np.sin(2 * np.pi * (low * t + (high - low) * t**2 / (2 * t[-1])))


def _falling(t, rng):
    return _rising(t, rng)[::-1]


def _noise(t, rng):
    return rng.standard_normal(len(t)) / 3


def _clicks(t, rng):
    period = round(RATE / rng.uniform(12, 25))
    return np.where(np.arange(len(t)) % period < 16, rng.choice([-1.0, 1.0], len(t)), 0.0)


def _chirp(t, rng):
    sweep = rng.uniform(2500, 4500) + rng.uniform(300, 900) * np.sin(2 * np.pi * 18 * t)
    return np.sin(2 * np.pi * np.cumsum(sweep) / RATE) * np.sin(np.pi * t / t[-1])


def _bell(t, rng):
    strike = rng.uniform(400, 900)  # partial ratios of a minor-third bell
    partials = ((0.5, 0.4), (1.0, 1.0), (1.2, 0.8), (1.5, 0.5), (2.0, 0.7), (2.67, 0.4))
    return sum(a * np.sin(2 * np.pi * r * strike * t) * _decay(t, 0.25 / r) for r, a in partials)


def _engine(t, rng):
    firing = rng.uniform(30, 60)
    hum = sum(np.sin(2 * np.pi * k * firing * t + rng.uniform(0, 6)) / k for k in range(1, 12))
    return hum * (1 + 0.3 * np.sin(2 * np.pi * firing / 4 * t)) + 0.05 * _noise(t, rng)


def _drum(t, rng):
    pitch = rng.uniform(70, 120)
    return np.sin(2 * np.pi * pitch * (t + 0.03 * (1 - _decay(t, 0.03)))) * _decay(t, 0.12)


def _alarm(t, rng):
    low = rng.uniform(500, 900)
    frequency = np.where((t * 6).astype(int) % 2, low * 1.5, low)
    return np.sign(np.sin(2 * np.pi * np.cumsum(frequency) / RATE)) * 0.6


@dataclasses.dataclass(frozen=True)
class Sound:
    """One kind of sound: its noun, the nouns of one and of several, and how to render it."""

    one: str
    many: str
    seconds: float
    render: Callable[[np.ndarray, np.random.Generator], np.ndarray]


SOUNDS = {
    'tone': Sound('steady tone', 'steady tones', 0.7, _tone),
    'rising sweep': Sound('rising sweep', 'rising sweeps', 0.6, _rising),
    'falling sweep': Sound('falling sweep', 'falling sweeps', 0.6, _falling),
    'noise': Sound('burst of noise', 'bursts of noise', 0.4, _noise),
    'clicks': Sound('train of clicks', 'trains of clicks', 0.6, _clicks),
    'chirp': Sound('bird-like chirp', 'bird-like chirps', 0.25, _chirp),
    'bell': Sound('bell stroke', 'bell strokes', 0.8, _bell),
    'engine': Sound('engine hum', 'engine hums', 0.9, _engine),
    'drum': Sound('drum hit', 'drum hits', 0.3, _drum),
    'alarm': Sound('two-tone alarm', 'two-tone alarms', 0.7, _alarm),
}


@dataclasses.dataclass(frozen=True)
class Event:
    """What, how many and how loud; ``key`` fixes pitch and noise, so a swap repeats the sound."""

    sound: str
    count: int
    loudness: str
    key: int

    def phrase(self) -> str:
        """'two loud bell strokes'."""
        sound = SOUNDS[self.sound]
        noun = sound.one if self.count == 1 else sound.many
        words = [word for word in (self.loudness, noun) if word]
        article = 'an' if self.count == 1 and words[0][0] in 'aeiou' else COUNTS[self.count]
        return ' '.join([article, *words])

    def num_samples(self) -> int:
        once = round(SOUNDS[self.sound].seconds * RATE)
        return self.count * once + (self.count - 1) * round(_GAP * RATE)

    def render(self) -> np.ndarray:
        """float64 [n] at RATE; repetitions are alike."""
        sound = SOUNDS[self.sound]
        t = np.arange(round(sound.seconds * RATE)) / RATE
        once = sound.render(t, _generator(self.key))
        ramp = np.minimum(1, np.minimum(t, t[::-1]) / 0.005)  # 5 ms: no clicks at the ends
        once = once * ramp
        once = once * (LOUDNESS[self.loudness] / np.abs(once).max())
        gap = np.zeros(round(_GAP * RATE))
        return np.concatenate([once] + [gap, once] * (self.count - 1))


def render_scene(events: list[Event]) -> np.ndarray:
    """int16 [n] at RATE: the events one after another."""
    parts = [events[0].render()]
    for event in events[1:]:
        parts += [np.zeros(round(_BETWEEN * RATE)), event.render()]
    return np.round(np.concatenate(parts) * 32767).astype(np.int16)


def scene_samples(events: list[Event]) -> int:
    """The length of ``render_scene(events)``, without rendering."""
    return sum(event.num_samples() for event in events) + (len(events) - 1) * round(_BETWEEN * RATE)


def describe(events: list[Event], order: int) -> str:
    """'Two loud bell strokes, then a drum hit.'; ``order`` picks the wording."""
    phrases = [event.phrase() for event in events]
    text = phrases[0] if len(phrases) == 1 else _ORDERS[order].format(*phrases)
    return text[0].upper() + text[1:] + '.'


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key))


def _draw_events(rng: np.random.Generator, how_many: int) -> list[Event]:
    """Events of different sounds."""
    sounds = rng.choice(list(SOUNDS), how_many, replace=False)
    return [
        Event(
            sound=str(sound),
            count=int(rng.integers(1, 4)),
            loudness=str(rng.choice(list(LOUDNESS))),
            key=int(rng.integers(2**32)),
        )
        for sound in sounds
    ]


class SyntheticScenes:
    """The reader behind 'synthetic_scenes:SPLIT': record i is a function of (split, i)."""

    def __init__(self, split: str, of: Index | None = None):
        """``of`` is its index, where it has been made already."""
        if split not in SIZES:
            raise ConfigError(
                f'synthetic_scenes has no split {split!r}. {did_you_mean(split, SIZES)}'
            )
        self._split = split
        rows = range(len(self))
        self.index = Index.of(map(self._fields, rows)) if of is None else of

    def __reduce__(self) -> tuple:
        return SyntheticScenes, (self._split, self.index)

    def __len__(self) -> int:
        return SIZES[self._split]

    def shard(self, row: int) -> str:
        """None: nothing is stored."""
        return ''

    def read(self, row: int) -> dict[str, Any]:
        events, _ = self._scene(row)
        return {**self._fields(row), 'audio': render_scene(events)}

    def _scene(self, row: int) -> tuple[list[Event], int]:
        rng = _generator(record.stable_hash(self._split), row)
        return _draw_events(rng, int(rng.integers(1, 3))), int(rng.integers(len(_ORDERS)))

    def _fields(self, row: int) -> dict[str, Any]:
        events, order = self._scene(row)
        name = f'synthetic-{self._split}-{row:06d}'
        return _fields(name, events, describe(events, order))


def _fields(name: str, events: list[Event], caption: str) -> dict[str, Any]:
    """A record but for its audio."""
    num_samples = scene_samples(events)
    return {
        **record.DEFAULTS,
        'rate': RATE,
        'num_samples': num_samples,
        'duration': num_samples / RATE,
        'captions': [caption],
        'label': events[0].sound if len(events) == 1 else '',
        'tags': [event.sound for event in events],
        'kind': 'sound',
        'package': 'synthetic',
        'licence': 'CC0-1.0',
        'recording_id': name,
        'group': name,
        'id': name,
    }


def probe_pairs(n: int, seed: int) -> list[dict[str, Any]]:
    """Pairs that differ only in order or only in which sound has which loudness.

    Args:
      n: pairs; order and attribute take turns.
      seed: draws the sounds.

    Returns:
      records with, beside the usual fields, 'probe' ('order' or 'attribute'), 'caption', and
      'swapped_caption' with 'swapped_audio' (int16 [n] at RATE): the same words and the same
      sounds, differently bound. A model that hears only which sounds occur scores one half.
    """
    return [_probe_pair(index, _generator(seed, index)) for index in range(n)]


def _probe_pair(index: int, rng: np.random.Generator) -> dict[str, Any]:
    first, second = _draw_events(rng, 2)
    if probe_is_order := index % 2 == 0:
        events, swapped = [first, second], [second, first]
        order = int(rng.integers(len(_ORDERS)))
    else:
        one, other = (str(word) for word in rng.permutation(['loud', 'quiet']))
        events = [replace(first, loudness=one), replace(second, loudness=other)]
        swapped = [replace(first, loudness=other), replace(second, loudness=one)]
        order = 0
    probe = 'order' if probe_is_order else 'attribute'
    caption = describe(events, order)
    return {
        **_fields(f'probe-{probe}-{index:06d}', events, caption),
        'audio': render_scene(events),
        'probe': probe,
        'caption': caption,
        'swapped_caption': describe(swapped, order),
        'swapped_audio': render_scene(swapped),
    }
