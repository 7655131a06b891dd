"""wav2vec 2.0 and its kin as a user has them: waveforms to vectors and, with a head, to texts."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.config import ConfigError
from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.ctc import VOCABULARY, CtcVocabulary
from alm_jax.interop.tensor_files import read_config

PREPROCESSOR = 'preprocessor_config.json'
TINY = 1e-7  # added to the variance


@dataclasses.dataclass(frozen=True)
class Waveforms:
    """The front end of transformers' Wav2Vec2FeatureExtractor.

    Attributes:
      sampling_rate: in Hz.
      normalise: whether each clip gets mean 0 and variance 1. Without ``mask`` these are of the
        clip and its padding, as the original counts them.
      mask: whether padding is hidden from the model.
      padding: value of samples behind a clip's end.
    """

    sampling_rate: int = 16_000
    normalise: bool = True
    mask: bool = False
    padding: float = 0.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> 'Waveforms':
        """Reads a preprocessor_config.json. Raises ConfigError for padding in front."""
        if config.get('padding_side', 'right') != 'right':
            raise ConfigError(f"{PREPROCESSOR}: padding_side is not 'right'.")
        return cls(
            config.get('sampling_rate', 16_000),
            config.get('do_normalize', True),
            config.get('return_attention_mask', False),
            config.get('padding_value', 0.0),
        )

    def __call__(self, clips: Sequence[np.ndarray], min_samples: int = 1):
        """(float32 [b, n], int32 [b] lengths) of clips [n_i]; n is at least ``min_samples``."""
        lengths = np.array([len(clip) for clip in clips], np.int32)
        shape = len(clips), max(min_samples, lengths.max())
        batch = np.full(shape, self.padding, np.float32)
        for row, clip in zip(batch, clips):
            row[: len(clip)] = clip
            counted = row[: len(clip)] if self.mask else row
            if self.normalise:
                counted -= counted.mean()
                counted /= np.sqrt(counted.var() + TINY)
        return batch, lengths


class SpeechEncoder(AudioEncoder):
    """A wav2vec 2.0, HuBERT or WavLM checkpoint: ``encode``, and ``transcribe`` with a CTC head.

    Calling it: (waveform_bn, num_samples_b) -> see ``models.audio.wav2vec2.Wav2Vec2``.
    """

    @functools.cached_property
    def features(self) -> Waveforms:
        """What preprocessor_config.json says; without one, what published models of its kind have.

        Those with layer norms in their feature encoder hide padding.
        """
        if not (self.folder / PREPROCESSOR).is_file():
            return Waveforms(mask=self.config.get('feat_extract_norm', 'group') == 'layer')
        return Waveforms.of(read_config(self.folder, PREPROCESSOR))

    @property
    def sampling_rate(self) -> int:
        """The encoder's rate in Hz; waveforms of another rate are resampled to it."""
        return self.features.sampling_rate

    def inputs(self, clips: Sequence[np.ndarray]) -> tuple[Any, ...]:
        """(waveform_bn, num_samples_b, hide_padding)."""
        batch, lengths = self.features(clips, self.module.variant.min_samples)
        return batch, lengths, np.asarray(self.features.mask)

    @functools.cached_property
    def vocabulary(self) -> CtcVocabulary:
        """That of the CTC head."""
        return CtcVocabulary.of(self.folder)

    def transcribe(
        self, waveform: np.ndarray | Sequence[np.ndarray], *, sampling_rate: int
    ) -> list[str]:
        """The text of each clip: the likeliest token of every 20 ms, without a language model.

        Of a clip's own vectors; those of padding, which the original reads too, are left out.

        Args:
          waveform: a mono clip [n], a batch [b, n] or a list of clips; float in [-1, 1] or int16.
          sampling_rate: of all the clips, in Hz.

        Raises:
          ConfigError: the model has no CTC head or the folder no vocab.json; no clip, or one
            without samples or with NaN.
        """
        if self.module.variant.vocabulary is None:
            raise ConfigError(f'{self.folder} has no CTC head: its config.json names no ...ForCTC.')
        if not (self.folder / VOCABULARY).is_file():
            raise ConfigError(f'{self.folder} has no {VOCABULARY} to write texts with.')
        outputs = self.encode(waveform, sampling_rate=sampling_rate)
        ids, mask = jax.device_get((jnp.argmax(outputs['logits'], -1), outputs['frame_mask']))
        return [self.vocabulary.text(row[own]) for row, own in zip(ids, mask)]
