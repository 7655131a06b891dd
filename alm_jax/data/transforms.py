"""Records to one row of a batch: audio cut, resampled and mixed, with its text.

A transform is pure: all it draws is fixed by the key of the row.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from alm_jax.config import ConfigError
from alm_jax.data import clips, packing, row_audio, row_keys, scenes
from alm_jax.data.captions import Caption, TextError
from alm_jax.data.clips import Record
from alm_jax.data.english import normalised
from alm_jax.data.row_keys import Purpose
from alm_jax.data.row_text import RowText, group_hash, group_hashes, text_of
from alm_jax.data.treatment import Treatment

__all__ = ['RowText', 'TextError', 'ToPack', 'ToWindow', 'Treatment', 'build']

_CAPTION = RowText()


@dataclasses.dataclass(frozen=True)
class ToWindow:
    """transform(examples, key): one record, or a scene of several, as one row.

    Attributes:
      sampling_rate: Hz of the result.
      window_samples: its length, unless a call gives another; longer audio is cropped at a place
        the key chooses, shorter audio is zero-padded at its end.
      overlay: probability that the clips of a scene are mixed instead of joined.
      max_clips: how many clips of a record a row holds. With 1, the key chooses one.
      text: what the text of a row is.
      treatment: gain, and the ratio of noise; None is no gain and 5 to 20 dB.
    """

    sampling_rate: int
    window_samples: int
    overlay: float = 0.0
    max_clips: int = 1
    text: RowText = _CAPTION
    treatment: Treatment | None = None

    def __call__(
        self,
        examples: Sequence[Record],
        key: int,
        *,
        noise: Record | None = None,
        impulse_response: Record | None = None,
        window_samples: int | None = None,
    ) -> dict[str, Any]:
        """One row.

        Args:
          examples: records (see ``alm_jax.data.record``), in the order they are to be heard; audio
            may be the bytes of a file.
          key: 64 bits.
          noise: a record to lay under the audio.
          impulse_response: a record of a room to put the audio into.
          window_samples: n, if not that of the transform.

        Returns:
          {'pcm': int16 [n], 'num_samples': int32 before the padding, 'caption': str,
          'audio_group': int32 hash of the recordings, 'text_group': int32 hash of the text}.
          With ``max_clips`` = c > 1, 'pcm' is [c, n] and 'num_samples' [c], 0 for an absent clip.
          With text.hard_negatives, 'negatives': a list of at most so many strings.
          With text.instruction, 'task': one of ``instructions.TASKS``, 'instruction' and
          'response': the first turn, 'turns': all of them ({'instruction', 'response'}); 'caption'
          is the response.

        Raises:
          AudioError: audio that cannot be used.
          TextError: a record without a usable text.
        """
        key, longest = int(key), window_samples or self.window_samples
        spans = self._spans(examples, key)
        if len(examples) == 1:
            example, rate = examples[0], self.sampling_rate
            is_whole = row_audio.is_whole(example, spans, longest, rate)
            text = self.text.of_record(example, key, is_whole)
            lengths = [longest] * len(spans)
            heard = row_audio.cut([example] * len(spans), spans, lengths, rate, key)
        else:
            is_overlaid = row_keys.generator(key, Purpose.SCENE).random() < self.overlay
            text = self.text.of_scene(examples, key, is_overlaid)
            heard = [self._scene(examples, spans, key, longest, is_overlaid)]
        treatment = self.treatment or Treatment(self.sampling_rate)
        heard = treatment(heard, key, [longest] * len(heard), noise, impulse_response)
        recordings = '\n'.join(sorted({example['recording_id'] for example in examples}))
        return {
            **self._arrays(heard, longest),
            'audio_group': group_hash(recordings),
            'text_group': group_hash(normalised(text_of(text))),
            **text,
        }

    def caption(self, example: Record, key: int) -> Caption:
        """The caption that a row of one record will have, and what it is made from; no audio."""
        spans = self._spans([example], int(key))
        is_whole = row_audio.is_whole(example, spans, self.window_samples, self.sampling_rate)
        return self.text.caption(example, int(key), is_whole)

    def planned(self, example: Record, key: int) -> tuple[dict[str, Any], int]:
        """(what of a row of one record is text, how many clips it will hold); no audio."""
        spans = self._spans([example], int(key))
        is_whole = row_audio.is_whole(example, spans, self.window_samples, self.sampling_rate)
        return self.text.of_record(example, int(key), is_whole), len(spans)

    def _spans(self, examples: Sequence[Record], key: int) -> list[clips.Span]:
        """The clips to use: those of a record, or one of each record of a scene."""
        found = [clips.clips_of(example) for example in examples]
        if all(len(spans) == 1 for spans in found):
            return [spans[0] for spans in found]
        if len(examples) > 1:
            return row_audio.one_each(found, key)
        (spans,) = found
        if self.text.instruction and examples[0]['turns'] and len(spans) > self.max_clips:
            raise TextError(
                f'its questions are about {len(spans)} clips; a row holds {self.max_clips}.'
            )
        most = min(self.max_clips, len(spans))
        rng = row_keys.generator(key, Purpose.CLIPS)
        return [spans[i] for i in sorted(rng.choice(len(spans), most, replace=False).tolist())]

    def _arrays(self, heard: list[np.ndarray], longest: int) -> dict[str, np.ndarray]:
        if self.max_clips == 1:
            return {
                'pcm': row_audio.padded(heard[0], longest),
                'num_samples': np.int32(len(heard[0])),
            }
        pcm = np.zeros((self.max_clips, longest), np.int16)
        num_samples = np.zeros(self.max_clips, np.int32)
        for i, x in enumerate(heard):
            pcm[i] = row_audio.padded(x, longest)
            num_samples[i] = len(x)
        return {'pcm': pcm, 'num_samples': num_samples}

    def _scene(
        self,
        examples: Sequence[Record],
        spans: list[clips.Span],
        key: int,
        longest: int,
        is_overlaid: bool,
    ) -> np.ndarray:
        """float32 [at most longest]: the clips joined, long ones cut so that all fit, or mixed."""
        if is_overlaid:
            shares = [longest] * len(spans)
        else:
            gaps = scenes.longest_gaps(len(spans), self.sampling_rate)
            shares = row_audio.shares(examples, spans, longest - gaps, self.sampling_rate)
        cut = row_audio.cut(examples, spans, shares, self.sampling_rate, key)
        parts = [clips.as_float(x) for x in cut]
        rng = row_keys.generator(key, Purpose.GAPS)
        if is_overlaid:
            return scenes.overlay(parts, rng)
        return scenes.join(parts, self.sampling_rate, rng)[:longest]


@dataclasses.dataclass(frozen=True)
class ToPack:
    """transform(examples, key): several short records, whole and apart, in one row.

    They lie end to end in the order given. Where they do not fit, as the index told lengths that
    are not theirs, the long ones are cut like a long record.

    Attributes:
      sampling_rate: Hz of the result.
      window_samples: its length, unless a call gives another.
      segments: how many records a row has places for.
      text: what the text of each record is; not an instruction.
      treatment: gain, and the ratio of noise; None is no gain and 5 to 20 dB.
    """

    sampling_rate: int
    window_samples: int
    segments: int = packing.MAX_CLIPS
    text: RowText = _CAPTION
    treatment: Treatment | None = None

    def __call__(
        self,
        examples: Sequence[Record],
        key: int,
        *,
        noise: Record | None = None,
        impulse_response: Record | None = None,
        window_samples: int | None = None,
    ) -> dict[str, Any]:
        """One row. Arguments and errors are those of ``ToWindow``.

        Returns:
          {'pcm': int16 [n], 'num_samples': int32 where the last segment ends, 'segment_start',
          'segment_samples': int32 [s], 0 for an absent segment, 'captions': s strings, '' for an
          absent one, 'audio_group', 'text_group': int32 [s], 0 for an absent one}.
          With text.hard_negatives, 'negatives': s lists of at most so many strings.
        """
        key, longest = int(key), window_samples or self.window_samples
        if len(examples) > self.segments:
            raise ValueError(f'{len(examples)} records for {self.segments} segments')
        spans = row_audio.one_each([clips.clips_of(example) for example in examples], key)
        shares = row_audio.shares(examples, spans, longest, self.sampling_rate)
        texts = []
        for i, (example, span, share) in enumerate(zip(examples, spans, shares)):
            is_whole = row_audio.is_whole(example, [span], share, self.sampling_rate)
            texts.append(self.text.of_record(example, row_keys.nth(key, i), is_whole))
        heard = row_audio.cut(examples, spans, shares, self.sampling_rate, key)
        treatment = self.treatment or Treatment(self.sampling_rate)
        heard = treatment(heard, key, [len(x) for x in heard], noise, impulse_response)
        lengths = np.array([len(x) for x in heard], np.int32)
        absent = self.segments - len(heard)
        row = {
            'pcm': row_audio.padded(np.concatenate([row_audio.pcm16(x) for x in heard]), longest),
            'num_samples': np.int32(lengths.sum()),
            'segment_start': np.pad(np.cumsum(lengths, dtype=np.int32) - lengths, (0, absent)),
            'segment_samples': np.pad(lengths, (0, absent)),
            'captions': [*(text['caption'] for text in texts), *[''] * absent],
            'audio_group': group_hashes([e['recording_id'] for e in examples], absent),
            'text_group': group_hashes([normalised(t['caption']) for t in texts], absent),
        }
        if self.text.hard_negatives:
            row['negatives'] = [
                *(text['negatives'] for text in texts),
                *([] for _ in range(absent)),
            ]
        return row


def build(config: ConfigDict, sampling_rate: int, window_samples: int) -> ToWindow | ToPack:
    """The transform that config.data asks for.

    Raises:
      ConfigError: a value out of its range, or options that exclude each other.
    """
    data = config.data
    for name, share in {
        'scenes.overlay': data.scenes.overlay,
        'text.keyword_share': data.text.keyword_share,
    }.items():
        if not 0 <= share <= 1:
            raise ConfigError(f'config.data.{name} is {share}; it is a probability, 0 to 1.')
    for name, number in {
        'gain_db': data.gain_db,
        'text.hard_negatives': data.text.hard_negatives,
    }.items():
        if number < 0:
            raise ConfigError(f'config.data.{name} is {number}; it is 0 (off) or more.')
    snr_db = tuple(data.noise.snr_db)
    if len(snr_db) != 2 or snr_db[0] > snr_db[1]:
        raise ConfigError(f'config.data.noise.snr_db is {snr_db}; give (low, high) in dB.')
    packs_clips = data.pack and not data.text.dialogue  # a dialogue packs sequences of tokens
    excluded = {
        ('text.instruction', 'pack'): data.text.instruction and packs_clips,
        ('text.instruction', 'text.hard_negatives'): data.text.instruction,
        ('text.dialogue', 'text.hard_negatives'): data.text.dialogue,
    }
    for (one, other), is_wanted in excluded.items():
        if is_wanted and (other == 'pack' or data.text.hard_negatives):
            raise ConfigError(f'config.data.{one} and config.data.{other} exclude each other.')
    text = RowText(data.text.keyword_share, data.text.hard_negatives, data.text.instruction)
    treatment = Treatment(sampling_rate, float(data.gain_db), snr_db)
    if packs_clips:
        return ToPack(sampling_rate, window_samples, text=text, treatment=treatment)
    if data.max_clips < 1:
        raise ConfigError(f'config.data.max_clips is {data.max_clips}; a row has at least 1.')
    return ToWindow(
        sampling_rate, window_samples, data.scenes.overlay, data.max_clips, text, treatment
    )
