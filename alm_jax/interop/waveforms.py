"""What users give to a model that was read from a folder: waveforms, checked and resampled."""

from collections.abc import Sequence

import numpy as np

from alm_jax.audio.decode import from_pcm16
from alm_jax.audio.resample import resample
from alm_jax.config import ConfigError


def clips_at(
    waveform: np.ndarray | Sequence[np.ndarray], sampling_rate: int | None, rate: int
) -> list[np.ndarray]:
    """Clips, float32 [n_i] each, at ``rate`` Hz.

    Args:
      waveform: a mono clip [n], a batch [b, n] or a list of clips [n_i]; float in [-1, 1] or int16.
      sampling_rate: of all the clips, in Hz.

    Raises:
      ConfigError: no rate, no clip, or a clip without samples or with NaN.
    """
    if sampling_rate is None:
        raise ConfigError('give sampling_rate, the rate of the waveform in Hz.')
    if not len(waveform):
        raise ConfigError('waveform holds no clip.')
    clips = [waveform] if np.ndim(waveform[0]) == 0 else list(waveform)
    return [resample(_checked(np.asarray(clip)), sampling_rate, rate) for clip in clips]


def _checked(clip: np.ndarray) -> np.ndarray:
    clip = from_pcm16(clip) if clip.dtype == np.int16 else clip.astype(np.float32)
    if clip.ndim != 1 or not len(clip) or not np.isfinite(clip).all():
        raise ConfigError(f'a clip has shape {clip.shape} or NaN; expected finite samples [n].')
    return clip
