"""Records to one row of a batch for models that answer: clips, and the dialogue about them."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from alm_jax.audio import presets
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError, choose
from alm_jax.data import dialogue_tokens, row_keys, transforms
from alm_jax.data.captions import TextError
from alm_jax.data.clips import Record
from alm_jax.data.dialogue_tokens import Encoded
from alm_jax.data.row_text import group_hash, text_of
from alm_jax.data.transforms import ToWindow
from alm_jax.data.treatment import LONGEST_RESPONSE
from alm_jax.text.dialogue import Dialogue
from alm_jax.text.language_tokenizer import LanguageTokenizer

_DRAWS = 8  # of the texts of a pack that is too long


class _Sequence(NamedTuple):
    """A record, or a scene: its tokens, (samples, how many) of each window of each clip, hashes."""

    encoded: Encoded
    clips: list[list[tuple[np.ndarray, int]]]
    groups: dict[str, np.int32]


@dataclasses.dataclass(frozen=True, eq=False)
class ToDialogues:
    """transform(examples, key): a record, a scene, or a pack of records, as one row.

    Attributes:
      window: makes audio and text of a record; its ``max_clips`` are the windows of audio that a
        row has places for, and its ``window_samples`` all that is heard of a clip.
      dialogue: the format.
      length: tokens of a row.
      front_end: gives the frames of a clip.
      vectors_of_frames: int32 [frames + 1], how many vectors of audio a model makes of a clip.
      max_windows: of a clip; what is longer than one has its vectors, and its places, one after
        another.
      pack: whether several records are sequences of their own instead of one scene.
      tail_seconds: by which a room may lengthen a clip.
    """

    window: ToWindow
    dialogue: Dialogue
    length: int
    front_end: presets.FrontEnd
    vectors_of_frames: np.ndarray
    max_windows: int = 1
    pack: bool = False
    tail_seconds: float = 0.0

    def __call__(
        self,
        examples: Sequence[Record],
        key: int,
        *,
        noise: Record | None = None,
        impulse_response: Record | None = None,
        window_samples: int | None = None,
    ) -> dict[str, np.ndarray]:
        """One row. Arguments are those of ``ToWindow``, and ``window_samples`` of one window.

        Returns:
          {'pcm': int16 [k, n], 'num_samples': int32 [k], 0 of an absent window, in the order in
          which their vectors stand; 'token_ids', 'segments', 'loss_mask': see
          ``dialogue_tokens.row``; 'audio_group', 'text_group': int32 hashes of the recordings and
          of the texts}.

        Raises:
          AudioError: audio that cannot be used, or too short for one vector.
          TextError: no usable text, or more than fits.
        """
        size = window_samples or self.window_samples
        effects = {'noise': noise, 'impulse_response': impulse_response}
        if not self.pack:
            return self._row([self._sequence(examples, key, size, effects)], size)
        drawn = [
            self._sequence([example], row_keys.nth(key, i), size, effects)
            for i, example in enumerate(examples)
        ]
        for draw in range(1, _DRAWS):  # lengths were planned from some of the texts there may be
            if sum(len(one.encoded.token_ids) for one in drawn) <= self.length:
                break
            for i, example in enumerate(examples):
                other = row_keys.nth(key, draw * len(examples) + i)
                drawn[i] = min(
                    (drawn[i], self._sequence([example], other, size, effects)),
                    key=lambda one: len(one.encoded.token_ids),
                )
        return self._row(drawn, size)

    def text_tokens(self, example: Record) -> tuple[int, int]:
        """(most tokens that the text of a record has in some draws, its clips); no audio is read.

        (0, 1) of a record without a usable text.
        """
        found, clips = {}, 1
        for key in range(_DRAWS):
            with contextlib.suppress(TextError, AudioError):
                text, clips = self.window.planned(example, key)
                if (said := text_of(text)) not in found:
                    encoded = self._encoded(text, [example], [0] * clips)
                    found[said] = len(encoded.token_ids)
        return max(found.values(), default=0), clips

    @property
    def window_samples(self) -> int:
        """Samples of a window, unless a call gives others."""
        return self.window.window_samples // self.max_windows

    def vectors(self, num_samples: Any) -> np.ndarray:
        """int [...]: vectors of audio of windows of so many samples."""
        return self.vectors_of_frames[self.front_end.num_frames(np.asarray(num_samples))]

    def _sequence(
        self, examples: Sequence[Record], key: int, size: int, effects: Mapping[str, Any]
    ) -> _Sequence:
        row = self.window(examples, key, window_samples=self.max_windows * size, **effects)
        lengths = np.atleast_1d(row['num_samples']).tolist()
        pcm = row['pcm'].reshape(len(lengths), -1, size)
        clips = [
            [(x, n) for x, n in zip(windows, self._cut(length, size))]
            for windows, length in zip(pcm, lengths)
            if length
        ]
        if not all(clips):
            raise AudioError(f'{min(filter(None, lengths))} samples are too short for one vector.')
        vectors = [int(self.vectors([n for _, n in windows]).sum()) for windows in clips]
        groups = {name: row[name] for name in ('audio_group', 'text_group')}
        return _Sequence(self._encoded(row, examples, vectors), clips, groups)

    def _cut(self, length: int, size: int) -> list[int]:
        """Samples of each window of a clip; the last is left out where it gives no vector."""
        cut = [min(size, length - start) for start in range(0, length, size)]
        has_vectors = not self.vectors_of_frames.any() or self.vectors(cut[-1]) > 0
        return cut if has_vectors else cut[:-1]

    def _encoded(
        self, text: Mapping[str, Any], examples: Sequence[Record], vectors: Sequence[int]
    ) -> Encoded:
        turns = [(turn['instruction'], turn['response']) for turn in text.get('turns', ())]
        is_speech = len(examples) == 1 and bool(examples[0]['transcript'])
        return dialogue_tokens.encode(
            self.dialogue,
            turns or [('', text['caption'])],
            vectors,
            task=text.get('task', 'captioning'),
            language=examples[0]['language'] if is_speech else '',
        )

    def _row(self, drawn: Sequence[_Sequence], size: int) -> dict[str, np.ndarray]:
        tokens = dialogue_tokens.row([one.encoded for one in drawn], self.length)
        heard = [
            window for one in drawn for clip in one.encoded.clips for window in one.clips[clip]
        ]
        most = self.window.max_clips
        if len(heard) > most:
            raise TextError(
                f'it does not fit: {len(heard)} windows of audio, and config.data.max_clips gives '
                f'{most}.'
            )
        pcm, num_samples = np.zeros((most, size), np.int16), np.zeros(most, np.int32)
        for i, (x, n) in enumerate(heard):
            pcm[i], num_samples[i] = x, n
        groups = drawn[0].groups
        if len(drawn) > 1:
            groups = {
                name: group_hash(' '.join(str(one.groups[name]) for one in drawn))
                for name in groups
            }
        return {'pcm': pcm, 'num_samples': num_samples, **tokens, **groups}


def build(
    config: ConfigDict,
    *,
    sampling_rate: int,
    window_samples: int,
    tokenizer: LanguageTokenizer,
    vectors_of_frames: np.ndarray | None,
) -> ToDialogues:
    """The transform of a config with data.text.dialogue.

    Args:
      config: see ``alm_jax.config.base``.
      sampling_rate, window_samples: of the front end.
      tokenizer: of the language model.
      vectors_of_frames: see ``ToDialogues``.

    Raises:
      ConfigError: options that exclude each other, or no such format.
    """
    if not isinstance(tokenizer, LanguageTokenizer) or vectors_of_frames is None:
        raise ConfigError(
            f'config.data.text.dialogue is {config.data.text.dialogue!r}, which is for models that '
            f'write; config.task.name is {config.task.name!r}.'
        )
    most = config.data.max_windows
    if not 1 <= most <= config.data.max_clips:
        raise ConfigError(
            f'config.data.max_windows is {most}: at least 1, and at most config.data.max_clips = '
            f'{config.data.max_clips}, the places of a row.'
        )
    window = transforms.build(config, sampling_rate, most * window_samples)
    front_end = choose(presets.PRESETS, config.front_end.preset, where='front_end.preset')
    return ToDialogues(
        window=window,
        dialogue=Dialogue(config.data.text.dialogue, tokenizer),
        length=max(config.text.lengths),
        front_end=front_end,
        vectors_of_frames=np.asarray(vectors_of_frames, np.int32),
        max_windows=most,
        pack=config.data.pack,
        tail_seconds=LONGEST_RESPONSE if config.data.reverb.share else 0.0,
    )
