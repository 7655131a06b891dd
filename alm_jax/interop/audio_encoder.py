"""What a user does with an audio encoder that was read from a folder: waveforms in, tokens out."""

import abc
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from alm_jax.interop.family import Pretrained
from alm_jax.interop.waveforms import clips_at


class AudioEncoder(Pretrained, abc.ABC):
    """An encoder that takes waveforms; its family says how they become inputs."""

    @property
    @abc.abstractmethod
    def sampling_rate(self) -> int:
        """The encoder's rate in Hz; waveforms of another rate are resampled to it."""

    @abc.abstractmethod
    def inputs(self, clips: Sequence[np.ndarray]) -> tuple[Any, ...]:
        """Positional arguments of the module for clips, float32 [n_i] each, at its own rate.

        Clips of unequal length are padded into one batch, with their lengths or a mask.
        """

    def encode(
        self, waveform: np.ndarray | Sequence[np.ndarray], *, sampling_rate: int
    ) -> dict[str, jax.Array]:
        """The module's named intermediates for a clip [n], a batch [b, n] or a list of clips.

        Args:
          waveform: mono; float in [-1, 1] or int16.
          sampling_rate: of all the clips, in Hz.

        Raises:
          ConfigError: no clip, or one without samples or with NaN.
        """
        clips = clips_at(waveform, sampling_rate, self.sampling_rate)
        return self._program(*self.inputs(clips))

    @functools.cached_property
    def _program(self):
        variables = {'params': self.params, **self.extra}
        return functools.partial(jax.jit(self.module.apply), variables)
