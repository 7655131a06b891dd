"""AudioMAE's encoder under its original names, which timm's ports of it share.

Its config.json has a timm folder's keys, each with the published value by default: num_classes and
global_pool, whose 'avg' is the fine-tuned model (the mean of the patches, then ``fc_norm``), and
img_size, patch_size, embed_dim, depth, num_heads, mlp_ratio, which timm keeps in 'model_args'.
"""

import dataclasses

import jax.numpy as jnp

from alm_jax.audio.presets import PRESETS
from alm_jax.config import ConfigError
from alm_jax.interop import names, vit_tables
from alm_jax.interop.audio_encoder import AudioEncoder
from alm_jax.interop.family import Config, Family
from alm_jax.interop.fbank import Fbank
from alm_jax.models.audio.spectrogram_transformer import Size, SpectrogramTransformer

POOLS = {'token': 'prefix', 'avg': 'mean'}
ORIGINAL = {True: 'avg', False: 'token'}  # what the original's own arguments say


def _arguments(config: Config) -> Config:
    return {**config, **(config.get('model_args') or {})}


def _pool(config: Config) -> str:
    """Of the class token, as timm has it by default; a fine-tuned model's is of the patches."""
    arguments = _arguments(config)
    pool = arguments.get('global_pool', 'avg' if arguments.get('num_classes', 0) else 'token')
    pool = ORIGINAL.get(pool, pool)
    if pool not in POOLS:
        raise ConfigError(f'config.json: global_pool is {pool!r}, not one of {", ".join(POOLS)}.')
    return pool


def module(config: Config) -> SpectrogramTransformer:
    """The encoder, with the head if there are classes."""
    arguments = _arguments(config)
    width, patch = arguments.get('embed_dim', 768), arguments.get('patch_size', 16)
    frames, bins = arguments.get('img_size', (1024, 128))
    return SpectrogramTransformer(
        Size(
            width=width,
            depth=arguments.get('depth', 12),
            heads=arguments.get('num_heads', 12),
            mlp_width=int(width * arguments.get('mlp_ratio', 4.0)),
        ),
        patch=(patch, patch),
        stride=(patch, patch),
        positions='absolute',
        grid=(frames // patch, bins // patch),
        prefix=1,
        masked=False,
        partial=False,
        pool=POOLS[_pool(config)],
        norm_pooled=_pool(config) == 'avg',
        classes=arguments.get('num_classes', 0),
    )


def inputs(config: Config) -> tuple:
    """(log-mel,) of one window."""
    return (jnp.zeros((1, *_arguments(config).get('img_size', (1024, 128)))),)


def table(config: Config) -> names.Table:
    """Of timm's VisionTransformer and of the original's encoder."""
    return [
        *vit_tables.prefix('cls_token'),
        *vit_tables.positions('pos_embed', module(config).grid[1], 1, pictures=False),
        *names.conv('patch_embed.proj', 'patch_embedding'),
        *vit_tables.block('blocks.{}', 'layers/{}'),
        *names.norm('fc_norm' if _pool(config) == 'avg' else 'norm', 'final_norm'),
        *names.linear('head', 'head'),
    ]


class AudioMae(AudioEncoder):
    """AudioMAE's encoder: ``encode``. As published, what fills the window is attended to."""

    @property
    def features(self) -> Fbank:
        """Kaldi's fbank with AudioSet's mean and deviation, in a window of the encoder's length."""
        frames, bins = _arguments(self.config).get('img_size', (1024, 128))
        return Fbank(dataclasses.replace(PRESETS['fbank'], n_mels=bins), frames)

    @property
    def sampling_rate(self) -> int:
        """Hz."""
        return self.features.front_end.sampling_rate

    def inputs(self, clips) -> tuple:
        """(log-mel,), each clip in a window of 1024 frames."""
        return (self.features(clips),)


# The decoder of pre-training, and what it puts in the place of masked patches.
UNUSED = (r'decoder_.*', r'mask_token')
FAMILIES = (
    Family(
        'AudioMAE',
        ('audiomae',),
        module,
        inputs,
        table,
        UNUSED,
        model=AudioMae,
        reference="timm vit_base_patch16_224 with AudioMAE's arguments",
    ),
)
