"""A clip on a page: to look at and to listen to."""

import io

import numpy as np
import soundfile
from matplotlib import colormaps, image

from alm_jax.audio import decode, log_mel, presets, resample

_FRONT_END = presets.PRESETS['whisper_80']  # for looking at, whatever the model hears
_HEIGHT = 2  # pixels a mel band
_WIDTH = 400  # pixels, at most twice that
_AUDIO_RATE = 22050  # Hz
_HEADROOM = 0.7  # a lossy codec overshoots the peaks of its input


def spectrogram(waveform: np.ndarray, rate: int) -> bytes:
    """A bare log-mel spectrogram of an int16 clip [n] as PNG: 80 bands up to 8 kHz."""
    samples = decode.from_pcm16(resample.resample(waveform, rate, _FRONT_END.sampling_rate))
    mel = log_mel.log_mel(samples[None], _FRONT_END)[0].T[::-1]
    low, high = mel.min(), mel.max()
    levels = (mel - low) / max(high - low, 1e-6)
    pixels = (colormaps['magma'](levels)[..., :3] * 255).astype(np.uint8)
    every = max(1, pixels.shape[1] // _WIDTH)
    buffer = io.BytesIO()
    image.imsave(buffer, pixels[:, ::every].repeat(_HEIGHT, axis=0), format='png')
    return buffer.getvalue()


def mp3(waveform: np.ndarray, rate: int) -> bytes:
    """An int16 clip [n] as MP3: the one compressed format that every browser and phone plays."""
    samples = resample.resample(decode.from_pcm16(waveform), rate, _AUDIO_RATE)
    buffer = io.BytesIO()
    soundfile.write(buffer, _HEADROOM * samples, _AUDIO_RATE, format='MP3')
    return buffer.getvalue()
