"""The front end that AST, AudioMAE and CAV-MAE share: Kaldi's fbank in a window of fixed length."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS, FrontEnd


@dataclasses.dataclass(frozen=True)
class Fbank:
    """Clips to normalised log-mel of ``frames`` frames each.

    As transformers' ASTFeatureExtractor has it: a longer clip is cut off, a shorter one is
    followed by frames of log-mel 0 (not of silence), which are normalised like the others.

    Attributes:
      front_end: constants, mean and scale included.
      frames: of the window; 1024 are 10.24 s.
    """

    front_end: FrontEnd
    frames: int = 1024

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> 'Fbank':
        """Reads a preprocessor_config.json of ASTFeatureExtractor."""
        preset = PRESETS['fbank']
        rate = config.get('sampling_rate', preset.sampling_rate)
        normalised = config.get('do_normalize', True)
        front_end = dataclasses.replace(
            preset,
            sampling_rate=rate,
            n_mels=config.get('num_mel_bins', preset.n_mels),
            f_max=float(rate // 2),
            mean=config.get('mean', preset.mean) if normalised else 0.0,
            scale=2 * config.get('std', preset.scale / 2) if normalised else 1.0,
        )
        return cls(front_end, config.get('max_length', 1024))

    def __call__(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """Clips [n_i] at the front end's rate -> float32 [b, frames, n_mels]."""
        front_end = self.front_end
        shape = (len(clips), self.frames, front_end.n_mels)
        mel_btf = np.full(shape, -front_end.mean / front_end.scale, np.float32)
        for row, clip in zip(mel_btf, clips):
            # Samples that only frames behind the window see are not looked at.
            window = front_end.win_length + self.frames * front_end.hop_length
            mel = log_mel(clip[None, :window], front_end)[0, : self.frames]
            row[: len(mel)] = mel
        return mel_btf
