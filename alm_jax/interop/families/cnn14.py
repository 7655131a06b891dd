"""Cnn14 of PANNs under its original names, those of panns-inference and of the published .pth.

Its config.json, which the original lacks, has the arguments of the original's class as keys:
sample_rate, window_size, hop_size, mel_bins, fmin, fmax, classes_num, each with the published
value by default; ``widths`` are the channels of its blocks.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS, FrontEnd
from alm_jax.interop import names
from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.family import Config, Family
from alm_jax.models.audio.cnn14 import Cnn14, Size

FRAME_STEP = 128  # batches are padded to a multiple of it, so that few lengths are compiled


def module(config: Config) -> Cnn14:
    """The encoder that the arguments describe."""
    size = Size()
    return Cnn14(
        Size(
            widths=tuple(config.get('widths', size.widths)),
            mel_bins=config.get('mel_bins', size.mel_bins),
            embedding=config.get('out_emb', size.embedding),
            classes=config.get('classes_num', size.classes),
        )
    )


def front_end(config: Config) -> FrontEnd:
    """The log-mel that the arguments describe."""
    preset = PRESETS['cnn14']
    window = config.get('window_size', preset.win_length)
    return dataclasses.replace(
        preset,
        sampling_rate=config.get('sample_rate', preset.sampling_rate),
        win_length=window,
        n_fft=window,
        hop_length=config.get('hop_size', preset.hop_length),
        n_mels=config.get('mel_bins', preset.n_mels),
        f_min=float(config.get('fmin', preset.f_min)),
        f_max=float(config.get('fmax', preset.f_max)),
    )


def inputs(config: Config) -> tuple:
    """(log-mel,) of one clip."""
    size = module(config).variant
    return (jnp.zeros((1, size.min_frames, size.mel_bins)),)


def table(config: Config) -> names.Table:
    """Of Cnn14."""
    rules = names.batch_norm('bn0', 'mel_norm')
    for block in range(1, len(module(config).variant.widths) + 1):
        for i in (1, 2):
            rules += names.conv(f'conv_block{block}.conv{i}', f'block_{block}/conv_{i}')
            rules += names.batch_norm(f'conv_block{block}.bn{i}', f'block_{block}/norm_{i}')
    return [
        *rules,
        *names.linear('fc1', 'embedding'),
        *names.linear('fc_audioset', 'classifier'),
    ]


class Panns(AudioEncoder):
    """The tagger with its front end. ``encode`` gives each clip what the original gives it alone.

    A clip too short for the network's halvings (0.31 s at 32 kHz), which the original refuses, is
    zero-padded to that.
    """

    @property
    def sampling_rate(self) -> int:
        return front_end(self.config).sampling_rate

    def inputs(self, clips):
        """(log-mel [b, t, f], frames [b])."""
        constants = front_end(self.config)
        least = (self.module.variant.min_frames - 1) * constants.hop_length
        mels = [
            log_mel(np.pad(clip, (0, max(least - len(clip), 0)))[None], constants)[0]
            for clip in clips
        ]
        frames = np.array([len(mel) for mel in mels], np.int32)
        length = -(-frames.max() // FRAME_STEP) * FRAME_STEP
        return np.stack([np.pad(m, ((0, length - len(m)), (0, 0))) for m in mels]), frames


# The DFT and the mel filters, which the original keeps as frozen parameters, are the front end
# here; batch norm's counts of batches serve training only.
UNUSED = (
    r'spectrogram_extractor\.stft\.conv_(real|imag)\.weight',
    r'logmel_extractor\.melW',
    r'.*\.num_batches_tracked',
)
FAMILIES = (
    Family(
        'Cnn14',
        ('panns_cnn14',),
        module,
        inputs,
        table,
        UNUSED,
        Panns,
        'panns-inference Cnn14',
    ),
)
