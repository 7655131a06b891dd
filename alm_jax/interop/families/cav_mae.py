"""The audio branch of CAV-MAE (Gong et al. 2022, https://arxiv.org/abs/2210.07839), LTU's encoder.

Original names, of CAVMAE and CAVMAEFT alike. Its config.json, which the original lacks, has the
arguments of these classes as keys, each with the published value by default: audio_length,
patch_size, embed_dim, modality_specific_depth, depth (of both kinds of blocks together), num_heads,
mlp_ratio, num_mel_bins, and label_dim, the classes of a fine-tuned model's head (by default none).

UNPROVEN as a whole: there is no published package of it. Tested are the parts that it takes from
timm, its blocks, against timm's.
"""

import dataclasses

import jax.numpy as jnp

from alm_jax.audio.presets import PRESETS
from alm_jax.interop import names, vit_tables
from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.family import Config, Family
from alm_jax.interop.fbank import Fbank
from alm_jax.models.audio.spectrogram_transformer import Size, SpectrogramTransformer

EPSILON = 1e-5
MEAN, DEVIATION = -5.081, 4.4849  # of the log-mel; both CAV-MAE and LTU divide by one deviation


def _depths(config: Config) -> tuple[int, int]:
    """(blocks of the audio branch, blocks that audio and pictures share)."""
    own = config.get('modality_specific_depth', 11)
    return own, config.get('depth', 12) - own


def module(config: Config) -> SpectrogramTransformer:
    """Audio alone: the branch's own blocks, then the shared ones with their norms for audio."""
    width, patch = config.get('embed_dim', 768), config.get('patch_size', 16)
    frames, bins = config.get('audio_length', 1024), config.get('num_mel_bins', 128)
    return SpectrogramTransformer(
        Size(
            width=width,
            depth=sum(_depths(config)),
            heads=config.get('num_heads', 12),
            mlp_width=int(width * config.get('mlp_ratio', 4.0)),
            norm_epsilon=EPSILON,
        ),
        patch=(patch, patch),
        stride=(patch, patch),
        positions='absolute',
        grid=(frames // patch, bins // patch),
        modality=True,
        masked=False,
        partial=False,
        classes=config.get('label_dim', 0),
        head_norm=EPSILON,
    )


def inputs(config: Config) -> tuple:
    """(log-mel,) of one window."""
    return (jnp.zeros((1, config.get('audio_length', 1024), config.get('num_mel_bins', 128))),)


def table(config: Config) -> names.Table:
    """Of the audio branch."""
    own, shared = _depths(config)
    rules = [
        *vit_tables.patches_of_pictures('patch_embed_a.proj'),
        *vit_tables.positions('pos_embed_a', module(config).grid[1], 0, pictures=True),
        *vit_tables.squeezed('modality_a', 'modality_embedding/embedding', (0,)),
        *names.norm('norm_a', 'final_norm'),
        *names.norm('mlp_head.0', 'head_norm'),
        *names.linear('mlp_head.1', 'head'),
    ]
    for i in range(own):
        rules += vit_tables.block(f'blocks_a.{i}', f'layers/{i}')
    for i in range(shared):
        norms = ('norm1_a', 'norm2_a')
        rules += vit_tables.block(f'blocks_u.{i}', f'layers/{own + i}', norms)
    return rules


class CavMae(AudioEncoder):
    """CAV-MAE's audio branch: ``encode``. As published, what fills the window is attended to."""

    @property
    def features(self) -> Fbank:
        """Kaldi's fbank in a window of the encoder's length."""
        bins = self.config.get('num_mel_bins', 128)
        front_end = dataclasses.replace(
            PRESETS['fbank'], n_mels=bins, mean=MEAN, scale=DEVIATION, name='cav_mae'
        )
        return Fbank(front_end, self.config.get('audio_length', 1024))

    @property
    def sampling_rate(self) -> int:
        """Hz."""
        return self.features.front_end.sampling_rate

    def inputs(self, clips) -> tuple:
        """(log-mel,), each clip in a window of 1024 frames."""
        return (self.features(clips),)


UNUSED = (
    # The visual branch, and the norms of both together.
    r'(patch_embed|pos_embed|modality|blocks|norm)_v(\..*)?',
    r'norm\.(weight|bias)',
    # Norms that a block holds for uses that it has not got here.
    r'blocks_a\.\d+\.norm[12]_[av]\.(weight|bias)',
    r'blocks_u\.\d+\.norm[12](_v)?\.(weight|bias)',
    # The decoder of pre-training, and what it puts in the place of masked patches.
    r'decoder_.*',
    r'mask_token',
)
FAMILIES = (
    Family(
        'CAV-MAE',
        ('cav_mae',),
        module,
        inputs,
        table,
        UNUSED,
        model=CavMae,
        reference='UNPROVEN; its blocks against timm Block',
    ),
)
