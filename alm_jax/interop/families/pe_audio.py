"""PE-Audio as transformers stores it: PeAudioModel, PeAudioFrameLevelModel and PeAudioEncoder."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from alm_jax import config as config_lib
from alm_jax.interop import names, pe_audio, rope_config, vit_tables
from alm_jax.interop.families import bert, dac, modernbert
from alm_jax.interop.family import Config, Family
from alm_jax.models.audio.pe_audio import PeAudioEncoder, Size
from alm_jax.models.pe_audio import PeAudio

CODEC = {'downsampling_ratios': (2, 8, 10, 12), 'encoder_hidden_size': 64, 'codebook_dim': 128}
TEXT = {
    'hidden_size': 1024,
    'intermediate_size': 2624,
    'num_hidden_layers': 22,
    'num_attention_heads': 16,
}
THETA = 20_000.0


def _codec(config: Config) -> Config:
    return {**CODEC, **(config.get('dac_config') or {})}


def _text(config: Config) -> Config:
    return {**TEXT, **(config.get('text_config') or {})}


def _audio(config: Config) -> Config:
    return config.get('audio_config') or {}


def encoder(config: Config) -> PeAudioEncoder:
    """The encoder that a PeAudioEncoderConfig describes."""
    codec = _codec(config)
    name = config.get('hidden_act', 'silu')
    rope = {'rope_theta': THETA, **(config.get('rope_parameters') or {})}
    positions = config.get('max_position_embeddings', 10_000)
    return PeAudioEncoder(
        Size(
            codec=dac.size(codec),
            width=config.get('hidden_size', 1792),
            depth=config.get('num_hidden_layers', 6),
            heads=config.get('num_attention_heads', 14),
            kv_heads=config.get('num_key_value_heads'),
            head_dim=config.get('head_dim', 128),
            mlp_width=config.get('intermediate_size', 4800),
            codec_dim=codec['codebook_dim'],
            activation=config_lib.choose(bert.ACTIVATIONS, name, where='hidden_act'),
            norm_epsilon=config.get('rms_norm_eps', 1e-5),
            attention_bias=config.get('attention_bias', False),
            rope=rope_config.rope({'rope_parameters': rope, 'max_position_embeddings': positions}),
        )
    )


def module(config: Config) -> PeAudio:
    """Both towers."""
    text = _text(config)
    return PeAudio(encoder(_audio(config)), modernbert.module(text), text['hidden_size'])


def encoder_inputs(config: Config) -> tuple:
    """(waveform,) of one clip."""
    return (jnp.zeros((1, 2 * math.prod(_codec(config)['downsampling_ratios']))),)


def inputs(config: Config) -> tuple:
    """(waveform, samples, token ids, token mask) of one pair."""
    (waveform,) = encoder_inputs(_audio(config))
    return waveform, jnp.full(1, waveform.shape[1]), *bert.inputs(config)


def _in_halves(rules: names.Table, head_dim: int) -> names.Table:
    """Rotated projections: theirs rotate neighbours (2i, 2i + 1), ours (i, i + head_dim / 2)."""

    def turn(array: np.ndarray, pairs: tuple[int, int]) -> np.ndarray:
        heads = array.reshape(*array.shape[:-1], -1, *pairs)
        return heads.swapaxes(-1, -2).reshape(array.shape)

    def turned(rule: names.Rule) -> names.Rule:
        def read(arrays):
            return [turn(array, (head_dim // 2, 2)) for array in rule.read(arrays)]

        def write(arrays):
            return rule.write([turn(array, (2, head_dim // 2)) for array in arrays])

        return dataclasses.replace(rule, read=read, write=write)

    return [turned(rule) for rule in rules]


def encoder_table(config: Config) -> names.Table:
    """Of PeAudioEncoder."""
    head_dim = config.get('head_dim', 128)
    theirs, ours = 'layers.{}.self_attn', 'layers/{}/attn'
    rules = [
        *names.under(dac.encoder_table(), 'embedder.dac_encoder.', 'codec/'),
        *names.pointwise('embedder.bottleneck', 'bottleneck', axes=1),
        *names.linear('embedder.data_proj', 'codec_projection'),
        *vit_tables.squeezed('patch_embedder.class_embedding', 'class_embedding/embedding', (0,)),
        *names.linear(f'{theirs}.v_proj', f'{ours}/value'),
        *names.linear(f'{theirs}.o_proj', f'{ours}/out'),
        *names.norm('layers.{}.input_layernorm', 'layers/{}/attn_norm'),
        *names.norm('layers.{}.post_attention_layernorm', 'layers/{}/mlp_norm'),
        *names.norm('norm', 'final_norm'),
        *names.linear('output', 'output'),
    ]
    for number in (1, 2):
        place = f'patch_embedder.resnet_block.block{number}'
        rules += names.norm(f'{place}.groupnorm', f'block_{number}/norm')
        rules += names.conv(f'{place}.project', f'block_{number}/conv')
    for part, name in (('q', 'query'), ('k', 'key')):
        rotated = names.linear(f'{theirs}.{part}_proj', f'{ours}/{name}')
        rotated += names.norm(f'{theirs}.{part}_norm', f'{ours}/{name}_norm')
        rules += _in_halves(rotated, head_dim)
    for part in ('gate', 'up', 'down'):
        rules += names.linear(f'layers.{{}}.mlp.{part}_proj', f'layers/{{}}/mlp/{part}')
    return rules


def table(config: Config) -> names.Table:
    """Of PeAudioModel and PeAudioFrameLevelModel."""
    rules = [
        *names.under(encoder_table(_audio(config)), 'audio_encoder.', 'audio/'),
        *names.under(modernbert.table(_text(config)), 'text_model.', 'text/'),
        *names.array('text_audio_logit_scale', 'logit_scale'),
        *names.array('text_audio_logit_bias', 'logit_bias'),
    ]
    for theirs, ours in (('audio_head', 'audio_head'), ('text_audio_head', 'text_head')):
        rules += names.norm(f'{theirs}.layer_norm', f'{ours}/norm')
        rules += names.linear(f'{theirs}.proj', f'{ours}/projection')
    return rules


FAMILIES = (
    Family(
        'PE-Audio',
        ('pe_audio',),
        module,
        inputs,
        table,
        model=pe_audio.PeAudioPair,
        reference='transformers PeAudioModel, PeAudioFrameLevelModel',
    ),
    Family(
        'PE-Audio encoder',
        ('pe_audio_encoder',),
        encoder,
        encoder_inputs,
        encoder_table,
        model=pe_audio.PeAudioTower,
        reference='transformers PeAudioEncoder',
    ),
)
