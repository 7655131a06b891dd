"""Records to one row of a batch for models that answer: clips, and the dialogue about them."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

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


@dataclasses.dataclass(frozen=True, eq=False)
class ToDialogues:
    """transform(examples, key): a record, a scene, or a pack of records, as one row.

    Attributes:
      window: makes audio and text of a record; its ``max_clips`` are the clips of a row.
      dialogue: the format.
      length: tokens of a row.
      front_end: gives the frames of a clip.
      vectors_of_frames: int32 [frames + 1], how many vectors of audio a model makes of a clip.
      pack: whether several records are sequences of their own instead of one scene.
      tail_seconds: by which a room may lengthen a clip.
    """

    window: ToWindow
    dialogue: Dialogue
    length: int
    front_end: presets.FrontEnd
    vectors_of_frames: np.ndarray
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
        """One row. Arguments are those of ``ToWindow``.

        Returns:
          {'pcm': int16 [k, n], 'num_samples': int32 [k], 0 of an absent clip, in the order in which
          their vectors stand; 'token_ids', 'segments', 'loss_mask': see ``dialogue_tokens.row``;
          'audio_group', 'text_group': int32 hashes of the recordings and of the texts}.

        Raises:
          AudioError: audio that cannot be used, or too short for one vector.
          TextError: no usable text, or more than fits.
        """
        effects = {'noise': noise, 'impulse_response': impulse_response}
        effects['window_samples'] = window_samples
        if not self.pack:
            return self._row([self._sequence(examples, key, effects)])
        drawn = [
            self._sequence([example], row_keys.nth(key, i), effects)
            for i, example in enumerate(examples)
        ]
        for draw in range(1, _DRAWS):  # lengths were planned from some of the texts there may be
            if sum(len(encoded.token_ids) for _, encoded in drawn) <= self.length:
                break
            for i, example in enumerate(examples):
                other = row_keys.nth(key, draw * len(examples) + i)
                drawn[i] = min(
                    (drawn[i], self._sequence([example], other, effects)),
                    key=lambda made: len(made[1].token_ids),
                )
        return self._row(drawn)

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

    def vectors(self, num_samples: Any) -> np.ndarray:
        """int [...]: vectors of audio of clips of so many samples."""
        return self.vectors_of_frames[self.front_end.num_frames(np.asarray(num_samples))]

    def _sequence(
        self, examples: Sequence[Record], key: int, effects: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Encoded]:
        row = self.window(examples, key, **effects)
        heard = np.atleast_1d(row['num_samples'])
        vectors = self.vectors(heard[heard > 0])
        if self.vectors_of_frames.any() and not vectors.all():
            raise AudioError(f'{heard[heard > 0].min()} samples are too short for one vector.')
        return row, self._encoded(row, examples, vectors.tolist())

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

    def _row(self, drawn: Sequence[tuple[dict[str, Any], Encoded]]) -> dict[str, np.ndarray]:
        rows, sequences = zip(*drawn)
        tokens = dialogue_tokens.row(sequences, self.length)
        samples = rows[0]['pcm'].shape[-1]
        pcm = np.zeros((self.window.max_clips, samples), np.int16)
        num_samples = np.zeros(len(pcm), np.int32)
        heard = [(row, clip) for row, sequence in drawn for clip in sequence.clips]
        if len(heard) > len(pcm):
            raise TextError(f'{len(heard)} clips do not fit: config.data.max_clips is {len(pcm)}.')
        for i, (row, clip) in enumerate(heard):
            pcm[i] = row['pcm'].reshape(-1, samples)[clip]
            num_samples[i] = row['num_samples'].ravel()[clip]
        groups = {
            name: group_hash(' '.join(str(row[name]) for row in rows))
            if rows[1:]
            else rows[0][name]
            for name in ('audio_group', 'text_group')
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
    window = transforms.build(config, sampling_rate, window_samples)
    front_end = choose(presets.PRESETS, config.front_end.preset, where='front_end.preset')
    return ToDialogues(
        window=window,
        dialogue=Dialogue(config.data.text.dialogue, tokenizer),
        length=max(config.text.lengths),
        front_end=front_end,
        vectors_of_frames=np.asarray(vectors_of_frames, np.int32),
        pack=config.data.pack,
        tail_seconds=LONGEST_RESPONSE if config.data.reverb.share else 0.0,
    )
