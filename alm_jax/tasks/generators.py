"""Answers about whole clips, the same text every time.

Every call of the device has one of few shapes: as many rows as ever, the last batch padded, and
lengths that are rounded up. A row goes with rows of its own shape, so its answer depends on that
row alone, neither on what else is in the list nor on the number of devices. A process answers what
it is given on its own devices; only to gather parameters that are split over processes do all of
them have to call.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from alm_jax.audio.decode import AudioError, to_pcm16
from alm_jax.audio.resample import resample
from alm_jax.config import ConfigError
from alm_jax.data import dialogue_tokens
from alm_jax.decoding import stops as stops_lib
from alm_jax.decoding import streaming
from alm_jax.decoding.generate import GREEDY, Writer, padded, rounded
from alm_jax.decoding.sampling import Sampling
from alm_jax.models.two_head import TwoHead
from alm_jax.tasks import fixed_batches
from alm_jax.tasks.front_end import FrontEnd
from alm_jax.text.dialogue import Dialogue, Turn
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.training import whole_copy

ROWS = 8  # of a batch, on each device
AHEAD = 8  # batches of rows that are read at a time, and then sorted by shape

Clip = tuple[np.ndarray, int]  # mono [n], int16 or float32 in [-1, 1]; Hz
Row = tuple[Sequence[Clip], Sequence[Turn]]


class _Prompt(NamedTuple):
    token_ids: np.ndarray  # int32 [t], AUDIO for vectors
    is_prefix: np.ndarray  # bool [t], before the first answer
    windows: list[tuple[np.ndarray, int]]  # in the order in which their vectors stand
    seed: int


@dataclasses.dataclass(frozen=True)
class Generators:
    """What a model that hears can write.

    Attributes:
      model: the Linen module.
      front_end: makes its features.
      vectors_of_frames: int32 [frames + 1], positions that a window takes up.
      dialogue: the format of prompts.
      max_windows: of a clip, consecutive ones from its start; what follows is not heard, nor is a
        last one that is too short for one vector.
      prefix: whether the positions of a prompt see each other both ways.
      mesh: whose devices share the rows, those of this process alone; None is one device.
    """

    model: TwoHead
    front_end: FrontEnd
    vectors_of_frames: np.ndarray
    dialogue: Dialogue
    max_windows: int = 1
    prefix: bool = False
    mesh: Mesh | None = None

    @property
    def sampling_rate(self) -> int:
        """Hz; clips of other rates are resampled."""
        return self.front_end.sampling_rate

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self.front_end.window_samples

    @property
    def max_seconds(self) -> float:
        """How much of a clip is heard."""
        return self.max_windows * self.window_samples / self.sampling_rate

    @property
    def front_end_sha256(self) -> str:
        """Names the log-mel constants, the window and the policy for long clips."""
        return self.front_end.sha256(
            f'the first {self.max_windows} windows, the last if it has a vector'
        )

    @property
    def tokenizer(self) -> LanguageTokenizer:
        """Of the language model."""
        return self.dialogue.tokenizer

    @property
    def text_sha256(self) -> str:
        """The hash of the tokenizer's files and of the format of dialogues."""
        return hashlib.sha256(
            f'{self.tokenizer.sha256} {self.dialogue.format}'.encode()
        ).hexdigest()

    def generate(
        self,
        params: Any,
        extra: Any,
        rows: Iterable[Row],
        *,
        max_tokens: int,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
    ) -> list[str]:
        """Answers to the last instruction of each row.

        Rows are read as they are needed, so memory does not grow with their number.

        Args:
          params, extra: of the model.
          rows: (clips, turns) each: clips are (mono waveform [n], int16 or float32 in [-1, 1], rate
            in Hz), turns (instruction, response), where the last response is None. Where clips
            stand in the turns is said in ``alm_jax.text.dialogue``.
          max_tokens: of an answer.
          sampling: how tokens are chosen; with several seeds, those of the rows in order.
          stops: strings at which an answer ends, themselves left out.

        Returns:
          The answers without special tokens and surrounding white space.

        Raises:
          AudioError: a clip that is too short for one vector.
          ConfigError: turns that cannot be written, or more tokens than the model has positions.
        """
        seeds = itertools.cycle(np.atleast_1d(sampling.seed).tolist())
        prompts = (self._prompt(*row, seed) for row, seed in zip(rows, seeds))
        params, extra = fixed_batches.whole((params, extra), self._local_mesh)
        writer = self._writer(params)
        answers: list[str] = []
        while block := list(itertools.islice(prompts, AHEAD * self._rows)):
            heard = self._heard(params, extra, block)
            found: list[str] = [''] * len(block)
            for numbers in self._batches(block):
                own = [block[number] for number in numbers]
                vectors = [heard[number] for number in numbers]
                ids, mask, first = self._inputs(own, vectors, self._rows)
                self._check_length(own, max_tokens)
                seed = tuple(prompt.seed for prompt in own)
                texts = writer.generate(
                    ids,
                    mask,
                    max_tokens=max_tokens,
                    sampling=dataclasses.replace(sampling, seed=_padded(seed, self._rows)),
                    first=first,
                )
                for number, tokens in zip(numbers, texts):
                    text = self.tokenizer.decode(tokens)
                    found[number] = stops_lib.cut(text, stops)[0].strip()
            answers += found
        return answers

    def stream(
        self,
        params: Any,
        extra: Any,
        row: Row,
        *,
        max_tokens: int,
        sampling: Sampling = GREEDY,
        stops: Sequence[str] = (),
    ) -> Iterator[str]:
        """``generate`` for one row, piece by piece as it is written."""
        params, extra = fixed_batches.whole((params, extra), self._local_mesh)
        prompt = self._prompt(*row, 0)
        heard = self._heard(params, extra, [prompt])
        ids, mask, first = self._inputs([prompt], heard, rows=1)
        self._check_length([prompt], max_tokens)
        options = {'max_tokens': max_tokens, 'sampling': sampling, 'stops': stops, 'first': first}
        writer, tokenizer = self._writer(params), self.tokenizer.full
        for (piece,) in streaming.stream(writer, tokenizer, ids, mask, **options):
            yield piece

    def _prompt(self, clips: Sequence[Clip], turns: Sequence[Turn], seed: int) -> _Prompt:
        if not clips:
            raise ConfigError('nothing can be answered about no clip; a row needs one at least.')
        cut = [self._windows(*clip) for clip in clips]
        vectors = [sum(self._vectors(n) for _, n in own) for own in cut]
        encoded = dialogue_tokens.encode(self.dialogue, turns, vectors)
        heard = [window for clip in encoded.clips for window in cut[clip]]
        before = np.cumsum(encoded.loss_mask) == 0
        return _Prompt(encoded.token_ids, before, heard, seed)

    def _windows(self, waveform: np.ndarray, rate: int) -> list[tuple[np.ndarray, int]]:
        x = resample(waveform, rate, self.sampling_rate)
        x = x if x.dtype == np.int16 else to_pcm16(x)  # as in training, PCM crosses to the device
        size = self.window_samples
        cut = [x[start : start + size] for start in range(0, len(x), size)][: self.max_windows]
        heard = [(np.pad(part, (0, size - len(part))), np.int32(len(part))) for part in cut]
        heard = [(pcm, n) for pcm, n in heard if self._vectors(n)]
        if not heard:
            raise AudioError(f'a clip of {len(x)} samples is too short for one vector of audio.')
        return heard

    def _vectors(self, num_samples: int) -> int:
        return int(self.vectors_of_frames[self.front_end.preset.num_frames(num_samples)])

    def _heard(self, params, extra, block: Sequence[_Prompt]) -> list[list[Any]]:
        """Of every prompt (vectors [m, d], bool [m]) for each of its windows."""
        found: list[list[Any]] = [[] for _ in block]
        items = ((i, *window) for i, prompt in enumerate(block) for window in prompt.windows)
        for i, heard in fixed_batches.results(self._listen, params, extra, items, self._rows):
            found[i].append(heard)
        return found

    @functools.cached_property
    def _listen(self):
        def listen(params, extra, pcm_bn, num_samples_b):
            mel, num_frames = self.front_end.plain(pcm_bn, num_samples_b)
            variables = {'params': params, **extra}
            heard = self.model.apply(variables, mel, num_frames, method='listen')
            return heard['audio'], heard['audio_mask']

        return fixed_batches.program(listen, self._local_mesh)

    def _writer(self, params) -> Writer:
        stop_ids = self.dialogue.stop_ids
        return Writer(self.model, params, stop_ids=stop_ids, fill=stop_ids[0], method='write')

    def _batches(self, block: Sequence[_Prompt]) -> Iterator[list[int]]:
        """Numbers of prompts of one shape, no more than there are rows."""

        def shape(number):
            return rounded(len(block[number].token_ids)), _power(len(block[number].windows))

        for _, group in itertools.groupby(sorted(range(len(block)), key=shape), shape):
            while numbers := list(itertools.islice(group, self._rows)):
                yield numbers

    def _inputs(self, prompts: Sequence[_Prompt], heard: Sequence[Sequence[Any]], rows: int):
        """(ids, mask, what the first call of the model takes besides) of so many rows."""
        ids, mask, _ = padded([prompt.token_ids for prompt in prompts])
        vectors, counts = heard[0][0]
        audio = np.zeros((len(prompts), _power(len(heard[0])), *vectors.shape), vectors.dtype)
        audio_mask = np.zeros((*audio.shape[:2], *counts.shape), bool)
        prefix = np.zeros(mask.shape, bool)
        for row, (prompt, own) in enumerate(zip(prompts, heard)):
            prefix[row, : len(prompt.is_prefix)] = prompt.is_prefix
            for window, (vectors, counts) in enumerate(own):
                audio[row, window], audio_mask[row, window] = vectors, counts
        first = {'audio_bkmd': audio, 'audio_mask_bkm': audio_mask}
        if self.prefix:
            first['prefix_bt'] = prefix
        return jax.tree.map(lambda x: fixed_batches.padded(x, rows), (ids, mask, first))

    def _check_length(self, prompts: Sequence[_Prompt], max_tokens: int) -> None:
        positions = self.model.text.size.positions
        length = max(len(prompt.token_ids) for prompt in prompts) + max_tokens
        if positions and length > positions:
            raise ConfigError(
                f'a prompt and its answer may take {length} tokens; the model has {positions} '
                'positions. Give a smaller max_tokens, or shorter turns.'
            )

    @functools.cached_property
    def _local_mesh(self) -> Mesh | None:
        return self.mesh and whole_copy.local_mesh(self.mesh)

    @property
    def _rows(self) -> int:
        return fixed_batches.rows_of(self._local_mesh, ROWS)


def _power(count: int) -> int:
    """The least power of 2 that is not below ``count``."""
    return 1 << max(count - 1, 0).bit_length()


def _padded(values: tuple[int, ...], count: int) -> tuple[int, ...]:
    return values + values[:1] * (count - len(values))
