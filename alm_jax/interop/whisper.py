"""Whisper as a user has it: waveforms to texts, by the checkpoint's own files."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tokenizers

from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS, FrontEnd
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.decoding.generate import Writer
from alm_jax.decoding.whisper import TokenRules, next_logits
from alm_jax.interop.family import Pretrained
from alm_jax.interop.tensor_files import read_config
from alm_jax.interop.waveforms import clips_at

ROWS = 8  # windows of a batch at most; fewer go in batches of 1, 2 or 4
TIME_STEP = 0.02  # seconds between two timestamp tokens
TASKS = ('transcribe', 'translate')


@dataclasses.dataclass(frozen=True)
class Features:
    """The front end of transformers' WhisperFeatureExtractor: log-mel of windows of 30 s.

    A clip is cut into consecutive windows from its first sample on, which do not overlap; the last
    one is zero-padded at its end. Each window's log-mel has its own maximum, as if it were a clip.

    Attributes:
      front_end: constants of the log-mel.
      window_samples: of the window.
    """

    front_end: FrontEnd
    window_samples: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> 'Features':
        """Reads a preprocessor_config.json. Its dither, random noise, is never added."""
        n_mels = config.get('feature_size', 80)
        front_end = dataclasses.replace(
            PRESETS['whisper_80'],
            name=f'whisper_{n_mels}',
            sampling_rate=config.get('sampling_rate', 16_000),
            win_length=config.get('n_fft', 400),
            n_fft=config.get('n_fft', 400),
            hop_length=config.get('hop_length', 160),
            n_mels=n_mels,
        )
        return cls(front_end, config.get('chunk_length', 30) * front_end.sampling_rate)

    def __call__(self, x_n: np.ndarray) -> np.ndarray:
        """float32 [w, t, n_mels] of one clip at the front end's rate."""
        count = -(-len(x_n) // self.window_samples)
        x = np.pad(x_n, (0, count * self.window_samples - len(x_n)))
        return log_mel(x.reshape(count, self.window_samples), self.front_end)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Ids of the tokens that tell Whisper what to do, and the rules of its texts.

    Attributes:
      start, end: of a transcript.
      no_timestamps: says that there are none; the id after it is <|0.00|>.
      previous: precedes an earlier text; None where the model has no such token.
      languages: code ('en') -> id; empty for English-only models.
      tasks: 'transcribe' and 'translate' -> id; empty for English-only models.
      suppressed, suppressed_first, latest_first: see TokenRules.
    """

    start: int
    end: int
    no_timestamps: int
    previous: int | None
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    latest_first: int | None

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        generation: Mapping[str, Any],
        tokenizer: tokenizers.Tokenizer | None,
    ) -> 'Tokens':
        """Reads generation_config.json; what it lacks, config.json and the vocabulary say.

        Raises:
          ConfigError: none of them knows a token.
        """

        def known(key, token=None):
            value = generation.get(key, config.get(key))
            if value is None and token and tokenizer:
                value = tokenizer.token_to_id(token)
            if value is None and token not in (None, '<|startofprev|>'):
                raise ConfigError(f'generation_config.json has no {key} and no tokenizer {token}.')
            return value

        languages, tasks = known('lang_to_id'), known('task_to_id')
        if languages is None and tokenizer:
            languages = {n: i for n, i in tokenizer.get_vocab().items() if _language(n)}
        if tasks is None and tokenizer:
            tasks = {name: tokenizer.token_to_id(f'<|{name}|>') for name in TASKS}
        if not generation.get('is_multilingual', config.get('vocab_size', 51865) >= 51865):
            languages, tasks = {}, {}
        return cls(
            start=known('decoder_start_token_id', '<|startoftranscript|>'),
            end=known('eos_token_id', '<|endoftext|>'),
            no_timestamps=known('no_timestamps_token_id', '<|notimestamps|>'),
            previous=known('prev_sot_token_id', '<|startofprev|>'),
            languages={_language(n): i for n, i in (languages or {}).items()},
            tasks=dict(tasks or {}),
            suppressed=tuple(known('suppress_tokens') or ()),
            suppressed_first=tuple(known('begin_suppress_tokens') or ()),
            latest_first=known('max_initial_timestamp_index'),
        )

    def rules(self, timestamps: bool) -> TokenRules:
        """Those of texts with or without timestamps."""
        return TokenRules(
            self.end,
            self.suppressed,
            self.suppressed_first,
            self.no_timestamps + 1 if timestamps else None,
            self.latest_first if timestamps else None,
        )


def _language(token: str) -> str | None:
    """'<|en|>' -> 'en'; None for another token."""
    found = re.fullmatch(r'<\|([a-z]{2,3})\|>', token)
    return found and found[1]


@dataclasses.dataclass(frozen=True)
class SpeechToText(Pretrained):
    """A Whisper checkpoint: ``generate``.

    Calling it: (mel_btf, token_ids_bt) -> see ``models.whisper.Whisper``.
    """

    @functools.cached_property
    def features(self) -> Features:
        """The front end that preprocessor_config.json names."""
        return Features.of(read_config(self.folder, 'preprocessor_config.json'))

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer | None:
        """The folder's tokenizer.json, if there is one."""
        file = self.folder / 'tokenizer.json'
        if not file.is_file():
            return None
        try:
            return tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f'{file} is not a tokenizer.json: {error}.') from error

    @functools.cached_property
    def tokens(self) -> Tokens:
        """The ids that generation_config.json and the vocabulary name."""
        name = 'generation_config.json'
        generation = read_config(self.folder, name) if (self.folder / name).is_file() else {}
        return Tokens.of(self.config, generation, self.tokenizer)

    def generate(
        self,
        waveform: np.ndarray | Sequence[np.ndarray],
        prompt: str = '',
        *,
        sampling_rate: int,
        language: str | None = None,
        task: str = 'transcribe',
        timestamps: bool = False,
        max_tokens: int | None = None,
    ) -> list[str]:
        """The text of each clip, decoded greedily; the same clip gives the same text.

        A clip of more than 30 s is cut as ``Features`` says; each window is transcribed for itself
        and the texts are joined by spaces. A word that a cut goes through may be lost. Nothing is
        tried again at a higher temperature, and silence is not skipped.

        Args:
          waveform: a mono clip [n], or a list of clips; float in [-1, 1] or int16.
          prompt: what was said before, or words as they are to be spelt.
          sampling_rate: of all the clips, in Hz.
          language: code such as 'en'; None finds out which one the first window of a clip has.
          task: 'transcribe', or 'translate' into English.
          timestamps: whether texts have marks such as <|1.24|>, in seconds from the clip's start,
            before and after each segment.
          max_tokens: of a window, timestamps included; None is as many as there are positions for.

        Raises:
          ConfigError: a clip without samples or with NaN; a language or task that the model lacks;
            a prompt without a tokenizer.json; more tokens than there are positions for.
        """
        if self.tokenizer is None:
            raise ConfigError(f'{self.folder} has no tokenizer.json; use generate_ids.')
        clips = clips_at(waveform, sampling_rate, self.features.front_end.sampling_rate)
        windows = ((owner, mel) for owner, clip in enumerate(clips) for mel in self.features(clip))
        order = (self._prompt_ids(prompt), language, task, timestamps, max_tokens)
        texts: list[list[str]] = [[] for _ in clips]
        seconds = self.features.window_samples / self.features.front_end.sampling_rate
        for owner, ids in self._transcribed(windows, *order):
            texts[owner].append(self._text(ids, len(texts[owner]) * seconds))
        return [' '.join(filter(None, parts)) for parts in texts]

    def generate_ids(
        self,
        mel_btf: np.ndarray,
        prompt_ids: Sequence[int] = (),
        *,
        language: str | None = None,
        task: str = 'transcribe',
        timestamps: bool = False,
        max_tokens: int | None = None,
    ) -> list[list[int]]:
        """``generate`` from clips of one window, float32 [b, t, n_mels], to token ids.

        The ids are without prompt and end; of many ``prompt_ids`` the last ones are kept.
        """
        order = (prompt_ids, language, task, timestamps, max_tokens)
        return [ids for _, ids in self._transcribed(enumerate(mel_btf), *order)]

    def _transcribed(
        self, windows: Iterable, prompt_ids, language, task, timestamps, max_tokens
    ) -> Iterator[tuple[int, list[int]]]:
        """(clip, ids) of every window (clip, mel), batch by batch; windows of a clip in order."""
        self._check_task(language, task)
        rules, spoken, windows = self.tokens.rules(timestamps), {}, iter(windows)
        while batch := list(itertools.islice(windows, ROWS)):
            owners, mels = zip(*batch)
            rows = 1 << (len(batch) - 1).bit_length()  # 1, 2, 4 or 8; few are compiled
            mel = np.stack([*mels, *mels[:1] * (rows - len(batch))])
            memory = self._encode(mel)
            if language is None and self.tokens.languages:
                for owner, code in zip(owners, self._languages(memory)):
                    spoken.setdefault(owner, code)
            prompts = [
                self._prompt(prompt_ids, spoken.get(owner, language), task, timestamps)
                for owner in owners
            ]
            prompts = np.array(prompts + prompts[:1] * (rows - len(batch)), np.int32)
            texts = self._writer.generate(
                prompts,
                np.ones(prompts.shape, bool),
                max_tokens=self._room(prompts.shape[1], max_tokens),
                first={'memory_bsd': memory},
                grammar=rules,
            )
            yield from zip(owners, texts)

    def _check_task(self, language: str | None, task: str) -> None:
        if task not in TASKS:
            raise ConfigError(f'task is {task!r}. {did_you_mean(task, TASKS)}')
        if self.tokens.languages:
            if language is not None and language not in self.tokens.languages:
                hint = did_you_mean(language, list(self.tokens.languages))
                raise ConfigError(f'language is {language!r}. {hint}')
        elif language not in (None, 'en') or task != 'transcribe':
            raise ConfigError(f'{self.folder} only transcribes English.')

    def _languages(self, memory_bsd) -> list[str]:
        """The likeliest language of every window, as its decoder's first token says."""
        codes = list(self.tokens.languages)
        ids = [self.tokens.languages[code] for code in codes]
        prompt = np.full((len(memory_bsd), 1), self.tokens.start, np.int32)
        logits = np.asarray(next_logits(self.module, self.params, memory_bsd, prompt))
        return [codes[i] for i in logits[:, ids].argmax(axis=1)]

    def _prompt(self, prompt_ids, language, task, timestamps) -> list[int]:
        """The tokens that a text follows."""
        tokens, ids = self.tokens, []
        if len(prompt_ids):
            if tokens.previous is None:
                raise ConfigError('generation_config.json has no prev_sot_token_id for a prompt.')
            room = self.module.decoder.size.positions // 2 - 1
            ids += [tokens.previous, *prompt_ids[-room:]]
        ids.append(tokens.start)
        if tokens.languages:
            ids += [tokens.languages[language], tokens.tasks[task]]
        return ids if timestamps else [*ids, tokens.no_timestamps]

    def _prompt_ids(self, prompt: str) -> list[int]:
        if not prompt.strip():
            return []
        return self.tokenizer.encode(f' {prompt.strip()}', add_special_tokens=False).ids

    def _room(self, prompt: int, max_tokens: int | None) -> int:
        room = self.module.decoder.size.positions - prompt
        if max_tokens is not None and not 1 <= max_tokens <= room:
            raise ConfigError(
                f'max_tokens is {max_tokens}; beside the prompt there are 1 to {room}.'
            )
        return max_tokens or room

    def _text(self, ids: Sequence[int], seconds: float) -> str:
        """Text of one window that begins at ``seconds``."""
        parts, words, zero = [], [], self.tokens.no_timestamps + 1
        for token in [*ids, zero]:
            if token < zero:
                words.append(token)
                continue
            parts.append(self.tokenizer.decode(words, skip_special_tokens=True))
            parts.append(f'<|{seconds + (token - zero) * TIME_STEP:.2f}|>')
            words = []
        return ''.join(parts[:-1]).strip()

    @functools.cached_property
    def _writer(self) -> Writer:
        end = self.tokens.end
        return Writer(self.module, self.params, stop_ids=(end,), fill=end, method='decode')

    @functools.cached_property
    def _encode(self):
        def encode(params, mel):
            return self.module.apply({'params': params}, mel, method='encode')['tokens']

        return functools.partial(jax.jit(encode), self.params)
