"""PE-Audio as a user has it: waveforms and texts to embeddings, by the checkpoint's own files."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.family import Pretrained
from alm_jax.interop.tensor_files import read_config
from alm_jax.interop.waveforms import clips_at
from alm_jax.text.tokenizer import Tokenizer

_LENGTHS = (16, 77, 512)  # of texts, in tokens; few are compiled


@dataclasses.dataclass(frozen=True)
class Features:
    """The front end of transformers' PeAudioFeatureExtractor: whole frames, batches of zeros.

    The end of a clip is reflected until the last frame is full; that counts as part of the clip.

    Attributes:
      sampling_rate: Hz.
      hop_length: samples of a frame.
    """

    sampling_rate: int = 48_000
    hop_length: int = 1920

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> 'Features':
        """Reads a preprocessor_config.json."""
        default = cls()
        return cls(
            config.get('sampling_rate', default.sampling_rate),
            config.get('hop_length', default.hop_length),
        )

    def __call__(self, clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Clips [n_i] at this rate -> (float32 [b, n], int [b] samples of each)."""
        clips = [np.pad(c, (0, -len(c) % self.hop_length), 'reflect') for c in clips]
        lengths = np.array([len(clip) for clip in clips])
        waveform_bn = np.zeros((len(clips), lengths.max()), np.float32)
        for row, clip in zip(waveform_bn, clips):
            row[: len(clip)] = clip
        return waveform_bn, lengths


class _WithFeatures(Pretrained):
    @functools.cached_property
    def features(self) -> Features:
        """The front end that preprocessor_config.json names."""
        return Features.of(read_config(self.folder, 'preprocessor_config.json'))

    @property
    def sampling_rate(self) -> int:
        """Hz; waveforms of another rate are resampled to it."""
        return self.features.sampling_rate

    def inputs(self, clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(waveforms padded into a batch, samples of each)."""
        return self.features(clips)


class PeAudioTower(_WithFeatures, AudioEncoder):
    """The audio encoder alone: ``encode``."""


class PeAudioPair(_WithFeatures):
    """A PE-Audio checkpoint: ``embed_audio``, ``embed_frames``, ``embed_text``, ``compare``."""

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer.json."""
        return Tokenizer.load(self.folder, _LENGTHS)

    def embed_audio(
        self,
        waveform: np.ndarray | Sequence[np.ndarray] | None = None,
        *,
        sampling_rate: int | None = None,
        input_values: np.ndarray | None = None,
        padding_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Embeddings of clips, float32 [b, e].

        Args:
          waveform: a mono clip [n], or a list of clips; float in [-1, 1] or int16.
          sampling_rate: of all the clips, in Hz.
          input_values: ready samples instead, [b, 1, n].
          padding_mask: [b, n], of ``input_values``: 1 for the samples of each clip.

        Raises:
          ConfigError: no clip, or one without samples or with NaN.
        """
        inputs = self._audio_inputs(waveform, sampling_rate, input_values, padding_mask)
        return np.asarray(self._program('embed_audio')(*inputs))

    def embed_frames(
        self, waveform: np.ndarray | Sequence[np.ndarray], *, sampling_rate: int
    ) -> list[np.ndarray]:
        """Embeddings of every frame of each clip, float32 [t_i, e]; see ``embed_audio``."""
        inputs = self._audio_inputs(waveform, sampling_rate, None, None)
        frames, mask = self._program('embed_frames')(*inputs)
        return [np.asarray(row)[np.asarray(own)] for row, own in zip(frames, mask)]

    def embed_text(
        self,
        texts: Sequence[str] | None = None,
        *,
        input_ids: np.ndarray | None = None,
        attention_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Embeddings, float32 [c, e], of texts or of ready tokens [c, t]."""
        if input_ids is None:
            tokens = self.tokenizer([texts] if isinstance(texts, str) else list(texts))
            input_ids, attention_mask = tokens['token_ids'], tokens['token_mask']
        mask = np.ones(input_ids.shape, bool) if attention_mask is None else attention_mask
        return np.asarray(self._program('embed_text')(np.asarray(input_ids), mask.astype(bool)))

    def compare(self, audio_be: np.ndarray, text_ce: np.ndarray) -> np.ndarray:
        """The logits that clips (or frames) and texts belong together, float32 [..., c]."""
        return np.asarray(self._program('compare')(audio_be, text_ce))

    def _audio_inputs(self, waveform, sampling_rate, input_values, padding_mask):
        if input_values is None:
            return self.inputs(clips_at(waveform, sampling_rate, self.sampling_rate))
        waveform_bn = np.asarray(input_values, np.float32)[:, 0]
        if padding_mask is None:
            padding_mask = np.ones(waveform_bn.shape)
        return waveform_bn, np.asarray(padding_mask).sum(axis=1).astype(int)

    @functools.cached_property
    def _programs(self):
        return {}

    def _program(self, method: str):
        if method not in self._programs:
            apply = jax.jit(functools.partial(self.module.apply, method=method))
            self._programs[method] = functools.partial(apply, {'params': self.params})
        return self._programs[method]
