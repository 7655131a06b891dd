"""Mimi as transformers stores it."""

import math

import jax.numpy as jnp

from alm_jax import config as config_lib
from alm_jax.interop import names
from alm_jax.interop.codec import Codec
from alm_jax.interop.families import encodec
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.interop.rope_config import rope
from alm_jax.models.audio import mimi
from alm_jax.models.layers.attention import PROJECTIONS

# What EncodecConfig calls alike and has other values for, or has and Mimi lacks.
DEFAULTS = {
    'hidden_size': 512,
    'num_filters': 64,
    'upsampling_ratios': (8, 6, 5, 4),
    'last_kernel_size': 3,
    'pad_mode': 'constant',
    'use_conv_shortcut': False,
    'max_position_embeddings': 8000,
}
ABSENT = {'num_lstm_layers': 0, 'norm_type': 'none'}


def _full(config: Config) -> Config:
    given = {name: value for name, value in config.items() if value is not None}
    return {**DEFAULTS, **given, **ABSENT}


def module(config: Config) -> mimi.Mimi:
    """The codec that a MimiConfig describes."""
    config = _full(config)
    halves = encodec.seanet_size(config)
    rate, hop = config.get('sampling_rate', 24_000), math.prod(halves.ratios)
    frame_rate = config.get('frame_rate', config.get('_frame_rate', rate / hop / 2))
    heads = config.get('num_attention_heads', 8)
    size = mimi.Size(
        halves=halves,
        depth=config.get('num_hidden_layers', 8),
        heads=heads,
        kv_heads=config.get('num_key_value_heads', 8),
        head_dim=config.get('head_dim', halves.width // heads),
        mlp_width=config.get('intermediate_size', 2048),
        activation=config_lib.choose(
            ACTIVATIONS, config.get('hidden_act', 'gelu'), where='hidden_act'
        ),
        norm_epsilon=config.get('norm_eps', 1e-5),
        window=config.get('sliding_window', 250),
        rope=rope(config),
        attention_bias=config.get('attention_bias', False),
        layer_scale=config.get('layer_scale_initial_scale', 0.01),
        stride=int(math.ceil(rate / hop) / frame_rate),
        upsample_groups=config.get('upsample_groups', 512),
        codebooks=config.get('num_quantizers', 32),
        semantic=config.get('num_semantic_quantizers', 1),
        rows=config.get('codebook_size', 2048),
        code_width=config.get('codebook_dim', 256),
    )
    return mimi.Mimi(size)


def inputs(config: Config) -> tuple:
    """(waveform,) of two codes."""
    size = module(config).size
    return (jnp.zeros((1, 2 * size.hop, size.halves.channels)),)


def table(config: Config) -> names.Table:
    """Of MimiModel."""
    rules = encodec.seanet_table(encodec.seanet_size(_full(config)))
    rules += names.conv('downsample.conv', 'downsample/conv')
    rules += names.conv_transpose('upsample.conv', 'upsample/conv')
    for half in ('encoder', 'decoder'):
        theirs, ours = f'{half}_transformer.layers.{{}}', f'{half}_transformer/layers/{{}}'
        for their, our in zip(('q', 'k', 'v', 'o'), PROJECTIONS):
            rules += names.linear(f'{theirs}.self_attn.{their}_proj', f'{ours}/attn/{our}')
        rules += names.linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/up')
        rules += names.linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/down')
        for their, part, our in (
            ('input_layernorm', 'self_attn', 'attn'),
            ('post_attention_layernorm', 'mlp', 'mlp'),
        ):
            rules += names.norm(f'{theirs}.{their}', f'{ours}/{our}_norm')
            rules += names.array(f'{theirs}.{part}_layer_scale.scale', f'{ours}/{our}_scale')
    for part in ('semantic', 'acoustic'):
        theirs, ours = f'quantizer.{part}_residual_vector_quantizer', f'quantizer/{part}'
        rules += names.pointwise(f'{theirs}.input_proj', f'{ours}/in_proj', axes=1)
        rules += names.pointwise(f'{theirs}.output_proj', f'{ours}/out_proj', axes=1)
        book, our_book = f'{theirs}.layers.{{}}.codebook', f'{ours}/codebooks/layers/{{}}'
        rules += names.array(f'{book}.embed_sum', f'{our_book}/embed_sum')
        rules += names.array(f'{book}.cluster_usage', f'{our_book}/cluster_usage')
        rules += names.array(f'{book}.initialized', f'batch_stats/{our_book}/initialized')
    return rules


FAMILIES = (
    Family(
        'Mimi',
        ('mimi',),
        module,
        inputs,
        table,
        model=Codec,
        reference='transformers MimiModel',
    ),
)
