"""LAION-CLAP as a user has it: waveforms and texts to embeddings, by the checkpoint's own files."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS, FrontEnd
from alm_jax.audio.windows import windows
from alm_jax.config import ConfigError
from alm_jax.interop.family import Pretrained
from alm_jax.interop.tensor_files import read_config
from alm_jax.interop.waveforms import clips_at
from alm_jax.text.tokenizer import Tokenizer

_LENGTHS = (16, 77, 512)  # of texts, in tokens; few are compiled
_ROWS = 8  # of a batch


@dataclasses.dataclass(frozen=True)
class Features:
    """The front end of transformers' ClapFeatureExtractor, with nothing random.

    A clip shorter than the window is repeated as often as it fits and then zero-padded, or only
    zero-padded. A longer one is, without fusion, cut into windows whose embeddings are averaged
    (``audio.windows``); with fusion, its whole spectrogram is shrunk to the window, and beside it
    go the cuts from the middle of its first, second and last third. The original draws both at
    random, so that it embeds one clip differently from run to run.

    Attributes:
      front_end: constants of the log-mel.
      window_samples: of the window.
      repeat: whether short clips are repeated.
      fusion: whether there are four spectrograms.
    """

    front_end: FrontEnd
    window_samples: int
    repeat: bool
    fusion: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> 'Features':
        """Reads a preprocessor_config.json."""
        fusion = config.get('truncation', 'fusion') == 'fusion'
        front_end = dataclasses.replace(
            PRESETS['clap'],
            sampling_rate=config.get('sampling_rate', 48_000),
            win_length=config.get('fft_window_size', 1024),
            n_fft=config.get('fft_window_size', 1024),
            hop_length=config.get('hop_length', 480),
            n_mels=config.get('feature_size', 64),
            f_min=float(config.get('frequency_min', 0)),
            f_max=float(config.get('frequency_max', 14_000)),
            mel='htk_hz' if fusion else 'slaney',
        )
        seconds = config.get('max_length_s', 10)
        padding = config.get('padding', 'repeatpad')
        if padding not in ('repeatpad', 'pad'):
            raise ConfigError(f"preprocessor_config.json: padding {padding!r} is not 'repeatpad'.")
        window = int(seconds * front_end.sampling_rate)
        return cls(front_end, window, padding == 'repeatpad', fusion)

    def __call__(self, x_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The spectrograms of one clip at the front end's rate.

        Returns:
          (float32 [w, t, n_mels], or with fusion [1, 4, t, n_mels]; bool [w]: longer clips).
        """
        if self.fusion and len(x_n) > self.window_samples:
            return self._fused(x_n)
        cuts, _ = windows(self._filled(x_n), self.window_samples)
        mel = log_mel(cuts, self.front_end)
        if self.fusion:
            mel = np.repeat(mel[:, None], 4, axis=1)
        return mel, np.zeros(len(mel), bool)

    def _filled(self, x_n: np.ndarray) -> np.ndarray:
        times = self.window_samples // len(x_n) if self.repeat else 1
        return np.tile(x_n, times) if times > 1 else x_n

    def _fused(self, x_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mel = log_mel(x_n[None], self.front_end)[0]
        frames = self.window_samples // self.front_end.hop_length + 1
        if len(mel) == frames:
            return np.repeat(mel[None, None], 4, axis=1), np.zeros(1, bool)
        thirds = np.array_split(np.arange(len(mel) - frames + 1), 3)
        starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
        cuts = [mel[start : start + frames] for start in starts]
        return np.stack([shrunk(mel, frames), *cuts])[None], np.ones(1, bool)


def shrunk(mel_tf: np.ndarray, frames: int) -> np.ndarray:
    """float32 [frames, f]: bilinear in time, half-pixel centres (torch's align_corners=False)."""
    at = (np.arange(frames) + 0.5) * (len(mel_tf) / frames) - 0.5
    at = np.clip(at, 0, len(mel_tf) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(mel_tf) - 1)
    weight = (at - low)[:, None]
    return ((1 - weight) * mel_tf[low] + weight * mel_tf[high]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Clap(Pretrained):
    """A CLAP checkpoint: ``embed_audio``, ``embed_text``."""

    @functools.cached_property
    def features(self) -> Features:
        """The front end that preprocessor_config.json names."""
        return Features.of(read_config(self.folder, 'preprocessor_config.json'))

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer.json."""
        return Tokenizer.load(self.folder, _LENGTHS)

    @property
    def fusion(self) -> bool:
        """Whether the audio encoder takes four spectrograms."""
        return getattr(self.module.audio, 'fusion', False)

    @property
    def sampling_rate(self) -> int:
        """The encoder's rate in Hz; waveforms of another rate are resampled to it."""
        return self.features.front_end.sampling_rate

    def embed_audio(
        self,
        waveform: np.ndarray | Sequence[np.ndarray] | None = None,
        *,
        sampling_rate: int | None = None,
        input_features: np.ndarray | None = None,
        is_longer: np.ndarray | None = None,
    ) -> np.ndarray:
        """Unit-norm embeddings, float32 [b, d]; the same clip gives the same bits.

        Args:
          waveform: a mono clip [n], or a list of clips; float in [-1, 1] or int16.
          sampling_rate: of all the clips, in Hz.
          input_features: ready log-mel instead, [b, 1 or 4, t, f].
          is_longer: bool [b] or [b, 1], with ``input_features`` of a fusion model.
        """
        if input_features is not None:
            mel = np.asarray(input_features, np.float32)
            mel = mel if self.fusion else mel[:, 0]
            longer = np.zeros(len(mel), bool) if is_longer is None else np.ravel(is_longer)
            return self._embed(mel, longer)
        embedded = []
        for clip in clips_at(waveform, sampling_rate, self.sampling_rate):
            rows = self._embed(*self.features(clip)).astype(np.float64)
            mean = rows.mean(axis=0)
            embedded.append((mean / np.linalg.norm(mean)).astype(np.float32))
        return np.stack(embedded)

    def embed_text(
        self,
        texts: Sequence[str] | None = None,
        *,
        input_ids: np.ndarray | None = None,
        attention_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Unit-norm embeddings, float32 [b, d], of texts or of ready tokens [b, t]."""
        if input_ids is None:
            tokens = self.tokenizer([texts] if isinstance(texts, str) else list(texts))
            input_ids, attention_mask = tokens['token_ids'], tokens['token_mask']
        mask = np.ones(input_ids.shape, bool) if attention_mask is None else attention_mask
        return np.asarray(self._text_program(np.asarray(input_ids), np.asarray(mask, bool)))

    def _embed(self, mel: np.ndarray, longer: np.ndarray) -> np.ndarray:
        rows = []
        for start in range(0, len(mel), _ROWS):  # one compiled batch; the last one is filled up
            part, flags = mel[start : start + _ROWS], longer[start : start + _ROWS]
            lack = _ROWS - len(part)
            filled = np.concatenate([part, np.repeat(part[:1], lack, axis=0)])
            flags = np.concatenate([flags, np.zeros(lack, bool)])
            rows.append(np.asarray(self._audio_program(filled, flags))[: len(part)])
        return np.concatenate(rows)

    @functools.cached_property
    def _audio_program(self):
        variables = {'params': self.params, **self.extra}

        def embed(variables, mel, longer):
            given = {'longer_b': longer} if self.fusion else {}
            return self.module.apply(variables, mel, None, method='embed_audio', **given)

        return functools.partial(jax.jit(embed), variables)

    @functools.cached_property
    def _text_program(self):
        variables = {'params': self.params, **self.extra}

        def embed(variables, ids, mask):
            return self.module.apply(variables, jnp.asarray(ids), mask, method='embed_text')

        return functools.partial(jax.jit(embed), variables)
