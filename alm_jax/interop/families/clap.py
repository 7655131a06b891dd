"""LAION-CLAP as transformers' ClapModel stores it: HTS-AT, with or without fusion, and RoBERTa."""

from collections.abc import Callable

import jax.numpy as jnp

from alm_jax.interop import clap, names
from alm_jax.interop.families import bert
from alm_jax.interop.family import Config, Family
from alm_jax.models.audio.htsat import HtsAt, Size
from alm_jax.models.two_tower import TwoTower

AUDIO = 'audio_model.audio_encoder.'


def audio_encoder(config: Config) -> HtsAt:
    """The encoder that a ClapAudioConfig describes."""
    patch = config.get('patch_size', 4)
    size = Size(
        width=config.get('patch_embeds_hidden_size', 96),
        depths=tuple(config.get('depths', (2, 2, 6, 2))),
        heads=tuple(config.get('num_attention_heads', (4, 8, 16, 32))),
        window=config.get('window_size', 8),
        patch=patch if isinstance(patch, int) else patch[0],
        image=config.get('spec_size', 256),
        mel_bins=config.get('num_mel_bins', 64),
        mlp_ratio=config.get('mlp_ratio', 4.0),
        norm_epsilon=config.get('layer_norm_eps', 1e-5),
        qkv_bias=config.get('qkv_bias', True),
        patch_norm=config.get('enable_patch_layer_norm', True),
        fusion_reduction=config.get('aff_block_r', 4),
    )
    return HtsAt(size, fusion=config.get('enable_fusion', False))


def module(config: Config) -> TwoTower:
    """The two towers that a ClapConfig describes."""
    return TwoTower(
        audio=audio_encoder(config.get('audio_config', {})),
        text=bert.roberta({'max_position_embeddings': 514, **config.get('text_config', {})}),
        embed_dim=config.get('projection_dim', 512),
        projection='mlp',
        logit_bias_init=None,
        two_scales=True,
    )


def inputs(config: Config) -> tuple:
    """(log-mel, frames, token ids, token mask) of one pair."""
    audio = config.get('audio_config', {})
    size = audio_encoder(audio).variant
    shape = (4,) * audio.get('enable_fusion', False) + (size.image * 2, size.mel_bins)
    ids, mask = bert.inputs(config)
    return jnp.zeros((1, *shape)), jnp.ones((1,), jnp.int32), ids, mask


def block_table(theirs: str, ours: str) -> names.Table:
    """One Swin block."""
    return [
        *names.norm(f'{theirs}.layernorm_before', f'{ours}/attn_norm'),
        *names.array(
            f'{theirs}.attention.self.relative_position_bias_table',
            f'{ours}/relative_position_bias',
        ),
        *names.linear(f'{theirs}.attention.self.query', f'{ours}/attn/query'),
        *names.linear(f'{theirs}.attention.self.key', f'{ours}/attn/key'),
        *names.linear(f'{theirs}.attention.self.value', f'{ours}/attn/value'),
        *names.linear(f'{theirs}.attention.output.dense', f'{ours}/attn/out'),
        *names.norm(f'{theirs}.layernorm_after', f'{ours}/mlp_norm'),
        *names.linear(f'{theirs}.intermediate.dense', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.output.dense', f'{ours}/mlp/down'),
    ]


def audio_table(
    config: Config, block: Callable[[str, str], names.Table] = block_table, norm: str = 'batch_norm'
) -> names.Table:
    """Of ClapAudioModel's encoder, or of an HTS-AT whose blocks and mel norm have other names."""
    rules = [
        *names.batch_norm(norm, 'mel_norm'),
        *names.conv('patch_embed.proj', 'patch_embedding'),
        *names.norm('patch_embed.norm', 'patch_norm'),
        *names.conv('patch_embed.mel_conv2d', 'local_patches'),
        *names.norm('norm', 'final_norm'),
    ]
    for part in ('local', 'global'):
        first = 0 if part == 'local' else 1  # the pooling comes before it
        place = f'patch_embed.fusion_model.{part}_att.'
        for number, name in ((first, 'in'), (first + 3, 'out')):
            rules += names.pointwise(f'{place}{number}', f'fusion/{part}_{name}')
            rules += names.batch_norm(f'{place}{number + 1}', f'fusion/{part}_{name}_norm')
    for stage, depth in enumerate(config.get('depths', (2, 2, 6, 2))):
        for number in range(depth):
            kind = ('plain', 'shifted')[number % 2]
            ours = f'stage_{stage}/layers/{number // 2}/{kind}'
            rules += block(f'layers.{stage}.blocks.{number}', ours)
        rules += names.norm(f'layers.{stage}.downsample.norm', f'stage_{stage}/merge_norm')
        rules += names.linear(f'layers.{stage}.downsample.reduction', f'stage_{stage}/merge')
    return rules


def table(config: Config) -> names.Table:
    """Of ClapModel."""
    projections = [
        names.linear(f'{part}_projection.linear{number}', f'{part}_projection/{name}')
        for part in ('audio', 'text')
        for number, name in ((1, 'linear'), (2, 'expand'))
    ]
    return [
        *names.under(audio_table(config.get('audio_config', {})), AUDIO, 'audio/'),
        *names.under(bert.table(config), 'text_model.', 'text/'),
        *(rule for rules in projections for rule in rules),
        *names.array('logit_scale_a', 'logit_scale'),
        *names.array('logit_scale_t', 'text_logit_scale'),
    ]


# What is a function of the sizes, and the counts of batches that batch norm has seen.
UNUSED = (
    r'.*\.relative_position_index',
    r'.*\.num_batches_tracked',
    r'text_model\.embeddings\.(position_ids|token_type_ids)',
)
FAMILIES = (
    Family(
        'CLAP',
        ('clap',),
        module,
        inputs,
        table,
        UNUSED,
        model=clap.Clap,
        reference='transformers ClapModel',
    ),
)
