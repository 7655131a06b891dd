"""PaSST under its original names, those of hear21passt and of the published .pt files.

Its config.json, which the original lacks, has the arguments of the original's PaSST and
AugmentMelSTFT as keys, each with the value of passt_s_swa_p16_128_ap476 by default: img_size,
patch_size, stride, embed_dim, depth, num_heads, mlp_ratio, qkv_bias, num_classes, distilled,
u_patchout, s_patchout_t, s_patchout_f; n_mels, sr, win_length, hopsize, n_fft, fmin, fmax.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS, FrontEnd
from alm_jax.config import ConfigError
from alm_jax.interop import names, vit_tables
from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.family import Config, Family
from alm_jax.models.audio.spectrogram_transformer import Size, SpectrogramTransformer

HEAD_EPSILON = 1e-5  # of the head's norm; the others have the module's 1e-6
PREEMPHASIS = 0.97
FRAME_STEP = 128  # batches are padded to a multiple of it, so that few lengths are compiled


def module(config: Config) -> SpectrogramTransformer:
    """The encoder and the head that the arguments describe."""
    width, patch = config.get('embed_dim', 768), config.get('patch_size', 16)
    bins, frames = config.get('img_size', (128, 998))
    bin_hop, hop = config.get('stride', (10, 10))
    return SpectrogramTransformer(
        Size(
            width=width,
            depth=config.get('depth', 12),
            heads=config.get('num_heads', 12),
            mlp_width=int(width * config.get('mlp_ratio', 4.0)),
            biases=(*vit_tables.QKV * config.get('qkv_bias', True), 'out'),
        ),
        patch=(patch, patch),
        stride=(hop, bin_hop),
        positions='separable',
        grid=(frames // hop, bins // bin_hop),
        prefix=1 + config.get('distilled', True),
        partial=False,
        patchout=(config.get('s_patchout_t', 0), config.get('s_patchout_f', 0)),
        token_patchout=config.get('u_patchout', 0),
        pool='prefix',
        classes=config.get('num_classes', 527),
        head_norm=HEAD_EPSILON,
    )


def front_end(config: Config) -> FrontEnd:
    """The log-mel that the arguments describe, of a signal after pre-emphasis."""
    preset = PRESETS['passt']
    rate = config.get('sr', preset.sampling_rate)
    return dataclasses.replace(
        preset,
        sampling_rate=rate,
        win_length=config.get('win_length', preset.win_length),
        n_fft=config.get('n_fft', preset.n_fft),
        hop_length=config.get('hopsize', preset.hop_length),
        n_mels=config.get('n_mels', preset.n_mels),
        f_min=float(config.get('fmin', preset.f_min)),
        f_max=float(config.get('fmax') or rate // 2 - 1000),
    )


def inputs(config: Config) -> tuple:
    """(log-mel,) of one window."""
    bins, frames = config.get('img_size', (128, 998))
    return (jnp.zeros((1, frames, bins)),)


def table(config: Config) -> names.Table:
    """Of PaSST."""
    tokens = ['cls_token', 'dist_token'][: 1 + config.get('distilled', True)]
    squeezed = vit_tables.squeezed
    return [
        *vit_tables.prefix(*tokens),
        *squeezed('new_pos_embed', 'prefix_position_embedding/embedding', (0,)),
        *squeezed('freq_new_pos_embed', 'frequency_embedding/embedding', (0, 3), transpose=True),
        *squeezed('time_new_pos_embed', 'time_embedding/embedding', (0, 2), transpose=True),
        *vit_tables.patches_of_pictures('patch_embed.proj'),
        *vit_tables.block('blocks.{}', 'layers/{}'),
        *names.norm('norm', 'final_norm'),
        *names.norm('head.0', 'head_norm'),
        *names.linear('head.1', 'head'),
    ]


class Passt(AudioEncoder):
    """A PaSST checkpoint. ``encode`` gives each clip what the original gives it alone.

    Clips may have the length that there are time positions for, 10 s as published; the original's
    scene embedding of a longer one is the mean over windows of 10 s. One shorter than a patch
    (0.16 s), which the original refuses, is filled up.
    """

    @property
    def sampling_rate(self) -> int:
        """Hz."""
        return front_end(self.config).sampling_rate

    def inputs(self, clips) -> tuple:
        """(log-mel, its frames). Raises ConfigError for a clip longer than there are positions."""
        features, module = front_end(self.config), self.module
        # The original filters the whole signal, which makes it one sample shorter.
        clips = [np.pad(c, (0, max(2 - len(c), 0))) for c in clips]
        clips = [clip[1:] - np.float32(PREEMPHASIS) * clip[:-1] for clip in clips]
        mels = [log_mel(clip[None], features)[0] for clip in clips]
        most = (module.grid[0] - 1) * module.stride[0] + module.patch[0]
        num_frames = [len(mel) for mel in mels]
        if max(num_frames) >= most + module.stride[0]:
            raise ConfigError(
                f'a clip has {max(num_frames)} frames; {self.folder} has time positions for '
                f'{most + module.stride[0] - 1}. Give windows.'
            )
        length = min(-(-max(num_frames) // FRAME_STEP) * FRAME_STEP, most + module.stride[0] - 1)
        mel_btf = np.zeros((len(mels), length, features.n_mels), np.float32)
        for row, mel in zip(mel_btf, mels):
            row[: len(mel)] = mel
        return mel_btf, np.array(num_frames)


# The distillation head, which the original holds but never calls.
UNUSED = (r'head_dist\.(weight|bias)',)
FAMILIES = (
    Family(
        'PaSST',
        ('passt',),
        module,
        inputs,
        table,
        UNUSED,
        model=Passt,
        reference='hear21passt PaSST',
    ),
)
