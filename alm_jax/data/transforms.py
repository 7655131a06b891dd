"""Records to one row of a batch: resampled, cut to the window, with one caption."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.audio.decode import AudioError, from_pcm16, to_pcm16
from alm_jax.audio.resample import resample
from alm_jax.audio.windows import crop
from alm_jax.data import record, scenes


@dataclasses.dataclass(frozen=True)
class ToWindow:
    """transform(examples, key): pure, picklable, the same for the same key.

    Attributes:
      sampling_rate: Hz of the result.
      window_samples: its length; longer audio is cropped at a place the key chooses, shorter audio
        is zero-padded at its end.
      overlay: probability that the clips of a scene are mixed instead of joined.
    """

    sampling_rate: int
    window_samples: int
    overlay: float = 0.0

    def __call__(self, examples: Sequence[Mapping[str, Any]], key: int) -> dict[str, Any]:
        """One row from one record, or a scene from several.

        Args:
          examples: records (see ``alm_jax.data.record``), in the order they are to be heard.
          key: 64 bits.

        Returns:
          {'pcm': int16 [window_samples], 'num_samples': int32 before the padding, 'caption': str,
          'audio_group': int32 hash of the recordings, 'text_group': int32 hash of the caption}.
        """
        rng = np.random.Generator(np.random.Philox(key=key))
        captions = [_choose(example['captions'], rng) for example in examples]
        if len(examples) == 1:
            clip, caption = self._clip(examples[0], self.window_samples, rng), captions[0]
        elif rng.random() < self.overlay:
            clips = [self._clip(example, self.window_samples, rng) for example in examples]
            clip, caption = scenes.overlay(clips, rng), scenes.overlaid_caption(captions, rng)
        else:
            clips = self._fitting(examples, rng)
            clip = scenes.join(clips, self.sampling_rate, rng)
            caption = scenes.joined_caption(captions, rng)
        window, num_samples = crop(to_pcm16(clip), self.window_samples, int(rng.integers(2**63)))
        recordings = sorted({example['recording_id'] for example in examples})
        return {
            'pcm': window,
            'num_samples': np.int32(num_samples),
            'caption': caption,
            'audio_group': group_hash('\n'.join(recordings)),
            'text_group': group_hash(normalised(caption)),
        }

    def _clip(self, example: Mapping, longest: int, rng: np.random.Generator) -> np.ndarray:
        """float32 [at most longest]. Cut first, so that a minute takes no longer than a window."""
        rate = example['rate']
        audio = example['audio']
        if not len(audio):
            raise AudioError('the record holds no samples.')
        native = math.ceil(longest * rate / self.sampling_rate)
        window, num_samples = crop(audio, native, int(rng.integers(2**63)))
        return resample(from_pcm16(window[:num_samples]), rate, self.sampling_rate)[:longest]

    def _fitting(self, examples: Sequence[Mapping], rng: np.random.Generator) -> list[np.ndarray]:
        """The clips, long ones cut so that all fit one window with their gaps."""
        ratio = [self.sampling_rate / example['rate'] for example in examples]
        lengths = [math.ceil(len(e['audio']) * r) for e, r in zip(examples, ratio)]
        room = self.window_samples - scenes.longest_gaps(len(examples), self.sampling_rate)
        shares = fair_shares(lengths, max(room, len(examples)))
        return [self._clip(example, share, rng) for example, share in zip(examples, shares)]


def fair_shares(lengths: Sequence[int], room: int) -> list[int]:
    """Lengths cut to sum to at most ``room``: short ones stay whole, long ones share the rest."""
    shares = list(lengths)
    for left, i in enumerate(sorted(range(len(lengths)), key=lambda i: lengths[i])):
        shares[i] = max(1, min(lengths[i], room // (len(lengths) - left)))
        room -= shares[i]
    return shares


def normalised(caption: str) -> str:
    """Case, punctuation and spacing removed: captions that read alike are equal."""
    return ' '.join(re.findall(r'\w+', caption.casefold()))


def group_hash(text: str) -> np.int32:
    """int32; in a batch of b rows two groups collide with probability b**2 / 2**33."""
    return np.uint32(record.stable_hash(text, bits=32)).astype(np.int32)


def _choose(captions: Sequence[str], rng: np.random.Generator) -> str:
    if not captions:
        raise AudioError('the record holds no caption.')
    return captions[int(rng.integers(len(captions)))]
