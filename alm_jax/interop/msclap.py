"""MS-CLAP as a user has it: waveforms and texts to embeddings, clips to captions."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tokenizers

from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS, FrontEnd
from alm_jax.audio.windows import windows
from alm_jax.config import ConfigError
from alm_jax.decoding.generate import Writer, padded
from alm_jax.interop.clap import Clap
from alm_jax.interop.family import Config
from alm_jax.interop.language_model import LanguageModel
from alm_jax.interop.waveforms import clips_at

TEXT_STEP = 16  # texts are padded to a multiple of it, so that few shapes are compiled
END = ' <|endoftext|>'
# What the package's own config_2022.yml, config_2023.yml and config_clapcap.yml say, and Pengi's
# base.yml.
_OF_2023 = {
    'audioenc_name': 'HTSAT',
    'text_model': 'gpt2',
    'text_len': 77,
    'out_emb': 768,
    'd_proj': 1024,
    'sampling_rate': 44_100,
    'duration': 7,
}
VERSIONS = {
    'msclap_2022': {
        **_OF_2023,
        'audioenc_name': 'Cnn14',
        'text_model': 'bert-base-uncased',
        'text_len': 100,
        'out_emb': 2048,
        'duration': 5,
        'window_size': 1024,
        'hop_size': 320,
        'mel_bins': 64,
        'fmin': 50,
        'fmax': 14_000,
        'num_classes': 527,
    },
    'msclap_2023': _OF_2023,
    'msclap_clapcap': {
        **_OF_2023,
        'text_decoder': 'gpt2',
        'mapping_type': 'transformer',
        'prefix_length': 40,
        'prefix_length_clip': 40,
        'num_layers': 8,
        'normalize_prefix': True,
    },
    'pengi': {
        **_OF_2023,
        'text_model': 'openai/clip-vit-base-patch16',
        'text_len': 40,
        'text_decoder': 'gpt2',
        'mapping_type': 'transformer',
        'prefix_length': 40,
        'prefix_length_clip': 40,
        'num_layers': 8,
        'normalize_prefix': True,
    },
}


def completed(config: Config) -> Config:
    """With the package's values for missing keys."""
    return {**VERSIONS[config['model_type']], **config}


@dataclasses.dataclass(frozen=True)
class Features:
    """The package's front end, with nothing random.

    A clip shorter than the window is repeated until it fills it. A longer one is cut into windows
    (``audio.windows``), whose embeddings are averaged; the original takes one at random, so that
    it embeds one clip differently from run to run.

    Attributes:
      front_end: constants of the log-mel.
      sampling_rate: of the waveforms in Hz. With HTS-AT it is not that of the front end: the
        package's HTS-AT keeps the mel filters of its own 32 kHz for waveforms of 44.1 kHz.
      window_samples: of the window.
    """

    front_end: FrontEnd
    sampling_rate: int
    window_samples: int

    @classmethod
    def of(cls, config: Config) -> 'Features':
        """Reads a config.json."""
        config = completed(config)
        rate = config['sampling_rate']
        front_end = PRESETS['cnn14']  # also that of the package's HTS-AT, whatever the config says
        if config['audioenc_name'] == 'Cnn14':
            front_end = dataclasses.replace(
                front_end,
                sampling_rate=rate,
                win_length=config['window_size'],
                n_fft=config['window_size'],
                hop_length=config['hop_size'],
                n_mels=config['mel_bins'],
                f_min=float(config['fmin']),
                f_max=float(config['fmax']),
            )
        return cls(front_end, rate, int(config['duration'] * rate))

    def __call__(self, x_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One clip -> (float32 [w, t, n_mels], bool [w], all False)."""
        if len(x_n) < self.window_samples:
            x_n = np.resize(x_n, self.window_samples)
        mel = log_mel(windows(x_n, self.window_samples)[0], self.front_end)
        return mel, np.zeros(len(mel), bool)


class MsClap(LanguageModel, Clap):
    """A checkpoint of 2022 or 2023: ``embed_audio``, ``embed_text``."""

    @functools.cached_property
    def features(self) -> Features:
        """The front end that config.json describes."""
        return Features.of(self.config)

    @property
    def sampling_rate(self) -> int:
        return self.features.sampling_rate

    def embed_text(
        self,
        texts: str | Sequence[str] | None = None,
        *,
        input_ids: np.ndarray | None = None,
        attention_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Unit-norm embeddings, float32 [b, d], of texts or of ready tokens [b, t].

        A text of more tokens than the package pads to loses its end, but not the token for it.

        Raises:
          ConfigError: texts, but no tokenizer.json.
        """
        if input_ids is None:
            input_ids, attention_mask = self._tokens([texts] if isinstance(texts, str) else texts)
        return super().embed_text(input_ids=input_ids, attention_mask=attention_mask)

    def _tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        limit = completed(self.config)['text_len']
        if self.module.text.place == 'last':
            texts = [text + END for text in texts]
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        rows = [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in rows]
        width = -(-max(map(len, rows)) // TEXT_STEP) * TEXT_STEP
        ids = np.zeros((len(rows), width), np.int32)
        mask = np.zeros(ids.shape, bool)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask


class PrefixLm(LanguageModel):
    """A decoder that continues what was made of a clip."""

    @functools.cached_property
    def features(self) -> Features:
        """The front end that config.json describes."""
        return Features.of(self.config)

    @property
    def sampling_rate(self) -> int:
        """Of the encoder in Hz; waveforms of another rate are resampled to it."""
        return self.features.sampling_rate

    def _mel(self, waveform: np.ndarray | Sequence[np.ndarray], sampling_rate: int) -> np.ndarray:
        """The first windows of clips, float32 [b, t, n_mels]."""
        clips = clips_at(waveform, sampling_rate, self.sampling_rate)
        return np.stack([self.features(clip)[0][0] for clip in clips])

    def _continued(
        self,
        prefix_bpd: np.ndarray,
        max_tokens: int,
        stop_ids: tuple[int, ...],
        text_ids: Sequence[int] = (),
    ) -> list[list[int]]:
        """Greedy token ids after prefixes and a text, the stop token left out."""
        prompt = [-1] * prefix_bpd.shape[1] + list(text_ids)
        ids, mask, inputs = padded([prompt] * len(prefix_bpd), np.asarray(prefix_bpd))
        options = {'max_tokens': max_tokens, 'stop_ids': stop_ids, 'first': inputs}
        return self._writer.generate(ids, mask, **options)

    @functools.cached_property
    def _writer(self) -> Writer:
        return Writer(self.module.decoder, self.params['decoder'])

    @functools.cached_property
    def _stop_id(self) -> int:
        """As the package has it: the first token of the end of its captions, which is a space."""
        return self.tokenizer.encode(END, add_special_tokens=False).ids[0]

    @functools.cached_property
    def _prefix_program(self):
        def prefix(variables: Any, *inputs: jax.Array) -> jax.Array:
            return self.module.apply(variables, *inputs, method='prefix')['prefix']

        return functools.partial(jax.jit(prefix), {'params': self.params, **self.extra})


class ClapCapModel(PrefixLm):
    """A captioner: ``generate``. Calling it: see ``models.clapcap.ClapCap``."""

    def generate(
        self,
        waveform: np.ndarray | Sequence[np.ndarray],
        *,
        sampling_rate: int,
        max_tokens: int = 67,
    ) -> list[str]:
        """A caption for each clip, decoded greedily; the package decodes with a beam of 5.

        Args:
          waveform: a mono clip [n], or a list of clips; float in [-1, 1] or int16. Only the first
            window (7 s) of a longer clip is described.
          sampling_rate: of all the clips, in Hz.
          max_tokens: at most so many.

        Raises:
          ConfigError: no tokenizer.json, or a clip without samples.
        """
        mel = self._mel(waveform, sampling_rate)
        ids = self.generate_ids(mel, max_tokens=max_tokens, stop_ids=(self._stop_id,))
        return [text.strip().capitalize() for text in self.tokenizer.decode_batch(ids)]

    def generate_ids(
        self, mel_btf: np.ndarray, *, max_tokens: int = 67, stop_ids: tuple[int, ...] = ()
    ) -> list[list[int]]:
        """``generate`` from ready log-mel and to token ids, the stop token left out."""
        return self._continued(self._prefix_program(mel_btf), max_tokens, stop_ids)


class PengiModel(PrefixLm):
    """Answers to prompts about clips. Calling it: see ``models.pengi.Pengi``.

    tokenizer.json is that of the answers (gpt2), prompt_tokenizer.json that of the prompts (CLIP).
    """

    @functools.cached_property
    def prompt_tokenizer(self) -> tokenizers.Tokenizer:
        """Of the prompts, cutting them. Raises ConfigError when there is none."""
        file = self.folder / 'prompt_tokenizer.json'
        if not file.is_file():
            raise ConfigError(f'{self.folder} has no {file.name}; give token ids.')
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        tokenizer.enable_truncation(completed(self.config)['text_len'])
        return tokenizer

    def generate(
        self,
        waveform: np.ndarray | Sequence[np.ndarray],
        prompt: str | Sequence[str] = 'generate metadata',
        *,
        sampling_rate: int,
        text: str = '',
        max_tokens: int = 67,
    ) -> list[str]:
        """An answer for each clip, decoded greedily; the original decodes with a beam.

        Args:
          waveform: a mono clip [n], or a list of clips; float in [-1, 1] or int16. Only the first
            window (7 s) of a longer clip is heard.
          prompt: of all clips, or one each; the model was trained on few, such as 'generate audio
            caption' and 'question: ...'.
          sampling_rate: of all the clips, in Hz.
          text: how every answer begins; it is not repeated in the result.
          max_tokens: at most so many.

        Raises:
          ConfigError: a tokenizer is missing, a clip has no samples, or there are not as many
            prompts as clips.
        """
        mel = self._mel(waveform, sampling_rate)
        prompts = [prompt] * len(mel) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(mel):
            raise ConfigError(f'{len(prompts)} prompts for {len(mel)} clips.')
        rows = [encoding.ids for encoding in self.prompt_tokenizer.encode_batch(prompts)]
        width = max(map(len, rows))
        ids = np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)
        mask = np.arange(width) < np.array([len(row) for row in rows])[:, None]
        prefix = self._prefix_program(mel, ids, mask)
        start = self.tokenizer.encode(text).ids if text else ()
        found = self._continued(prefix, max_tokens, (self._stop_id,), start)
        return [answer.strip() for answer in self.tokenizer.decode_batch(found)]
