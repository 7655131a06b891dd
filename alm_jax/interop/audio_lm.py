"""What a user does with a model that hears and writes: clips and prompts in, texts out.

Prompts are plain text: the chat_template of a folder is not rendered, so what it would write around
a question (<|im_start|>user ...) stands in the prompt or is missing. ``audio_lm_dialogue`` writes
prompts with it.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.audio.log_mel import log_mel
from alm_jax.config import ConfigError
from alm_jax.decoding import streaming
from alm_jax.decoding.beam import Beams
from alm_jax.decoding.generate import GREEDY, Writer, padded
from alm_jax.decoding.sampling import Sampling
from alm_jax.interop import whisper
from alm_jax.interop.language_model import LanguageModel
from alm_jax.interop.tensor_files import read_config
from alm_jax.interop.waveforms import clips_at

ROWS = 4  # windows of a batch at most; fewer go in batches of 1 or 2
LENGTH_STEP = 500  # frames: masked windows are cut after the longest clip, at a multiple of this
SILENCE = 2  # frames behind a clip that the convolutions see


@dataclasses.dataclass(frozen=True)
class Windows:
    """One clip as the encoder takes it.

    Attributes:
      mel_wtf: float32 [w, t, n_mels], the last window filled up with silence.
      num_frames_w: int [w], those that count.
    """

    mel_wtf: np.ndarray
    num_frames_w: np.ndarray


class AudioLm(LanguageModel):
    """An audio encoder, a connector and a decoder, with tokenizer.json and the processor's files.

    Families say by class attributes what their processors do.

    Calling it: (mel_bktf, num_frames_bk, token_ids_bt, token_mask_bt) -> see
    ``models.two_head.TwoHead``.

    Attributes:
      slot: what a prompt without a place for audio gets in front, {} being the audio's token.
      turn: an instruction, {}, where no chat template says how dialogues are written.
      answer: a response, {}, likewise.
      max_windows: of a clip; what is longer is cut. None is any number.
      whole: whether the log-mel is that of a clip, filled up to full windows, all of which count;
        otherwise each window has its own maximum, and only the clip's frames count.
    """

    slot: ClassVar[str] = '{}'
    turn: ClassVar[str] = '{}'
    answer: ClassVar[str] = ' {}\n'
    max_windows: ClassVar[int | None] = 1
    whole: ClassVar[bool] = False

    @functools.cached_property
    def features(self) -> whisper.Features:
        """The front end that preprocessor_config.json, or processor_config.json, names."""
        if (self.folder / 'preprocessor_config.json').is_file():
            return whisper.Features.of(read_config(self.folder, 'preprocessor_config.json'))
        config = read_config(self.folder, 'processor_config.json')
        if 'feature_extractor' not in config:
            raise ConfigError(f'{self.folder}/processor_config.json has no feature_extractor.')
        return whisper.Features.of(config['feature_extractor'])

    @property
    def sampling_rate(self) -> int:
        """The encoder's rate in Hz; waveforms of another rate are resampled to it."""
        return self.features.front_end.sampling_rate

    @property
    def max_seconds(self) -> float:
        """How much of a clip is heard."""
        windows = math.inf if self.max_windows is None else self.max_windows
        return windows * self.features.window_samples / self.sampling_rate

    @property
    def place(self) -> str:
        """The text of the audio's token. Raises ConfigError where the tokenizer has none."""
        token = self.tokenizer.id_to_token(self.module.audio_id)
        if token is None:
            raise ConfigError(
                f'{self.folder}/tokenizer.json has no token {self.module.audio_id}, which '
                'config.json says is the audio.'
            )
        return token

    def generate(
        self,
        waveform: np.ndarray | Sequence[np.ndarray],
        prompt: str | Sequence[str | Sequence[int]] = '',
        *,
        sampling_rate: int,
        max_tokens: int = 64,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
        beams: Beams | None = None,
    ) -> list[str]:
        """Answers to prompts about clips, one a prompt.

        Args:
          waveform: a mono clip [n], or a list of clips; float in [-1, 1] or int16. They go to the
            places for audio in the prompts, in order.
          prompt: several, or one, which is then asked again until the clips are used up. The
            audio's token (<|AUDIO|>, <sound>, [AUDIO]) is a place for a clip; a prompt without one
            gets ``slot`` in front. Of several, each may also be token ids.
          sampling_rate: of all the clips, in Hz.
          max_tokens: at most so many; a stop token ends an answer earlier.
          sampling: how tokens are chosen; by default the likeliest.
          stops: strings that end an answer where they begin.
          beams: searches for the likeliest answers instead.

        Returns:
          The answers without special tokens.

        Raises:
          ConfigError: no tokenizer.json or processor files; a clip that is empty, too short for one
            vector of audio or has NaN; more clips than places for them, or fewer.
        """
        batch = self._asked(waveform, prompt, sampling_rate)
        options = {'max_tokens': max_tokens, 'sampling': sampling}
        return self._written(batch, stop_strings=stops, beams=beams, **options)

    def stream(
        self,
        waveform: np.ndarray | Sequence[np.ndarray],
        prompt: str | Sequence[int] = '',
        *,
        sampling_rate: int,
        max_tokens: int = 64,
        sampling: Sampling = GREEDY,
        **options,
    ) -> Iterator[str]:
        """``generate`` for one prompt, piece by piece; ``options`` of ``decoding.streaming``."""
        ids, mask, first = self._asked(waveform, [prompt], sampling_rate)
        options = {'max_tokens': max_tokens, 'sampling': sampling, 'first': first, **options}
        for (piece,) in streaming.stream(self._writer, self.tokenizer, ids, mask, **options):
            yield piece

    def generate_ids(
        self,
        input_ids: np.ndarray,
        input_features: np.ndarray,
        *,
        attention_mask: np.ndarray | None = None,
        features_mask: np.ndarray | None = None,
        max_tokens: int = 64,
    ) -> list[list[int]]:
        """Answers, as token ids, to what the reference's processor makes of clips and prompts.

        Args:
          input_ids: int [b, t] with the audio's token once for every vector of audio.
          input_features: [w, n_mels, t'], all windows in the order of the prompts.
          attention_mask: [b, t] of the tokens; None is all.
          features_mask: [w, t'], feature_attention_mask or input_features_mask; None is all.
          max_tokens: at most so many; the stop token is left out.

        Raises:
          ConfigError: more windows than places for their vectors, or fewer.
        """
        mel = np.asarray(input_features, np.float32).transpose(0, 2, 1)
        frames = np.full(len(mel), mel.shape[1])
        if features_mask is not None:
            frames = np.asarray(features_mask).sum(axis=1)
        vectors = np.concatenate(self.listen([Windows(mel, frames)]))
        masks = np.ones(np.shape(input_ids)) if attention_mask is None else attention_mask
        rows = [np.asarray(row)[np.asarray(mask) > 0] for row, mask in zip(input_ids, masks)]
        heard, start = [], 0
        for row in rows:
            count = self._places(row)
            heard.append(vectors[start : start + count])
            start += count
        if start != len(vectors):
            raise ConfigError(
                f'input_ids have {start} places for audio; input_features give {len(vectors)}.'
            )
        return self._answers(self._batch(rows, heard), max_tokens)

    def windows(self, clip: np.ndarray) -> Windows:
        """A clip, float32 [n] at the encoder's rate, cut as the reference's processor does.

        Raises:
          ConfigError: too short for one vector of audio.
        """
        size, hop = self.features.window_samples, self.features.front_end.hop_length
        if self.max_windows is not None:
            clip = clip[: self.max_windows * size]
        frames = size // hop
        if self.whole:
            filled = np.pad(clip, (0, -len(clip) % size))
            mel = log_mel(filled[None], self.features.front_end)[0].reshape(-1, frames, self._mels)
            return Windows(mel, np.full(len(mel), frames))
        mel = self.features(clip)
        left = -(-len(clip) // hop) - frames * np.arange(len(mel))
        windows = Windows(mel, np.clip(left, 0, frames))
        if not self.module.num_vectors(windows.num_frames_w).any():
            raise ConfigError(f'a clip of {len(clip)} samples is too short to be heard.')
        return windows

    def listen(self, clips: Sequence[Windows]) -> list[np.ndarray]:
        """The vectors of audio of every clip, float32 [m_i, d]."""
        todo = [(mel, n) for clip in clips for mel, n in zip(clip.mel_wtf, clip.num_frames_w)]
        done = list(self._listen(todo))
        heard, start = [], 0
        for clip in clips:
            stop = start + len(clip.num_frames_w)
            heard.append(np.concatenate(done[start:stop]))
            start = stop
        return heard

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt, with ``slot`` in front if it has no place for audio."""
        ids = self.tokenizer.encode(prompt).ids
        if self._places(ids):
            return ids
        return self.tokenizer.encode(self.slot.format(self.place) + prompt).ids

    @property
    def _mels(self) -> int:
        return self.features.front_end.n_mels

    def _places(self, ids: Sequence[int]) -> int:
        return int(np.sum(np.asarray(ids) == self.module.audio_id))

    def _listen(self, windows: Sequence[tuple[np.ndarray, int]]) -> Iterator[np.ndarray]:
        for start in range(0, len(windows), ROWS):
            mels, frames = zip(*windows[start : start + ROWS])
            length = mels[0].shape[0]
            if self.module.audio.masked:  # what is further behind a clip is not seen
                needed = max(frames) + SILENCE
                length = min(length, -(-needed // LENGTH_STEP) * LENGTH_STEP)
            more = (1 << (len(mels) - 1).bit_length()) - len(mels)  # few sizes are compiled
            mel = np.stack([m[:length] for m in (*mels, *mels[:1] * more)])
            count = np.array([*frames, *frames[:1] * more])
            vectors = np.asarray(self._program(mel, count))
            for row, number in enumerate(self.module.num_vectors(np.array(frames))):
                yield vectors[row, :number]

    def _asked(self, waveform, prompt: str | Sequence[str | Sequence[int]], sampling_rate: int):
        """Prompts about clips as the decoder takes them."""
        clips = clips_at(waveform, sampling_rate, self.sampling_rate)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        rows = [self.prompt_ids(p) if isinstance(p, str) else list(p) for p in prompts]
        if isinstance(prompt, str):
            rows *= max(len(clips) // self._places(rows[0]), 1)
        return self._expanded(rows, self.listen([self.windows(clip) for clip in clips]))

    def _expanded(self, rows, heard):
        """Prompts with one token a place, and the clips for these places."""
        places = sum(self._places(row) for row in rows)
        if places != len(heard):
            raise ConfigError(f'{len(heard)} clips for {places} places in {len(rows)} prompts.')
        waiting, expanded, vectors = iter(heard), [], []
        for row in rows:
            own = [next(waiting) for _ in range(self._places(row))]
            counts, ids = iter(own), []
            for token in row:
                ids += [token] * (len(next(counts)) if token == self.module.audio_id else 1)
            expanded.append(ids)
            vectors.append(np.concatenate(own))
        return self._batch(expanded, vectors)

    def _batch(self, rows, vectors):
        """Prompts with one token a vector, and their vectors."""
        rows = [np.where(np.equal(row, self.module.audio_id), -1, row) for row in rows]
        return padded(rows, vectors)

    def _answers(self, batch, max_tokens: int) -> list[list[int]]:
        ids, mask, first = batch
        return self._writer.generate(ids, mask, max_tokens=max_tokens, first=first)

    @functools.cached_property
    def _writer(self) -> Writer:
        return Writer(self.module.text, self.params['text'], stop_ids=self.stop_ids)

    @functools.cached_property
    def _program(self):
        def listen(params, mel, frames):
            outputs = self.module.apply({'params': params}, mel, frames, method='listen')
            return outputs['audio'].astype(jnp.float32)

        part = {name: self.params[name] for name in ('audio', 'connector')}
        return functools.partial(jax.jit(listen), part)
