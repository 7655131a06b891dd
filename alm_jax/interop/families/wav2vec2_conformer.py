"""Wav2Vec2-Conformer as transformers stores it, with or without a CTC head."""

import dataclasses

from alm_jax import config as config_lib
from alm_jax.interop import names
from alm_jax.interop.families import wav2vec2
from alm_jax.interop.family import Config, Family
from alm_jax.interop.speech_encoder import SpeechEncoder
from alm_jax.models.audio.wav2vec2_conformer import POSITIONS, Size, Wav2Vec2Conformer

MODULES = {'ffn1': 'mlp_in', 'ffn2': 'mlp_out'}
NORMS = {'ffn1': 'mlp_in', 'ffn2': 'mlp_out', 'self_attn': 'attn', 'final': 'final'}


def module(config: Config) -> Wav2Vec2Conformer:
    """Of a Wav2Vec2ConformerConfig."""
    shared = dataclasses.asdict(wav2vec2.size(config))
    positions = config.get('position_embeddings_type', 'relative') or 'none'
    config_lib.choose(POSITIONS, positions, where='position_embeddings_type')
    return Wav2Vec2Conformer(
        Size(
            **{
                **shared,
                'pre_norm': True,
                'positions': positions,
                'rotary_base': config.get('rotary_embedding_base', 10_000),
                'conv_module_size': config.get('conv_depthwise_kernel_size', 31),
            }
        )
    )


def block_table() -> names.Table:
    """Of the blocks, but for the norm after the depthwise convolution."""
    place, ours = 'encoder.layers.{}', 'layers/{}'
    rules = []
    for their, our in NORMS.items():
        rules += names.norm(f'{place}.{their}_layer_norm', f'{ours}/{our}_norm')
    for their, our in MODULES.items():
        rules += names.linear(f'{place}.{their}.intermediate_dense', f'{ours}/{our}/up')
        rules += names.linear(f'{place}.{their}.output_dense', f'{ours}/{our}/down')
    for part in ('query', 'key', 'value', 'out'):
        their = 'out' if part == 'out' else part[0]
        rules += names.linear(f'{place}.self_attn.linear_{their}', f'{ours}/attn/{part}')
    theirs, conv = f'{place}.self_attn', f'{ours}/conv'
    return [
        *rules,
        *names.linear(f'{theirs}.linear_pos', f'{ours}/attn/relative/position'),
        *names.array(f'{theirs}.pos_bias_u', f'{ours}/attn/relative/content_bias'),
        *names.array(f'{theirs}.pos_bias_v', f'{ours}/attn/relative/position_bias'),
        *names.norm(f'{place}.conv_module.layer_norm', f'{conv}/norm'),
        *_of_one(f'{place}.conv_module.pointwise_conv1', f'{conv}/expand'),
        *_depthwise(f'{place}.conv_module.depthwise_conv', f'{conv}/depthwise'),
        *_of_one(f'{place}.conv_module.pointwise_conv2', f'{conv}/project'),
    ]


def _of_one(theirs: str, ours: str) -> list[names.Rule]:
    """torch's Conv1d of size 1, which is our Dense: [out, in, 1] is [in, out]."""
    return [
        names.Rule(
            (f'{theirs}.weight',),
            (f'{ours}/kernel',),
            lambda arrays: [arrays[0][:, :, 0].T],
            lambda arrays: [arrays[0].T[:, :, None]],
        )
    ]


def _depthwise(theirs: str, ours: str) -> list[names.Rule]:
    """torch's Conv1d with a group for every channel: [d, 1, size] is our [size, d]."""
    return [
        names.Rule(
            (f'{theirs}.weight',),
            (f'{ours}/kernel',),
            lambda arrays: [arrays[0][:, 0].T],
            lambda arrays: [arrays[0].T[:, None]],
        )
    ]


def table(config: Config) -> names.Table:
    """Of Wav2Vec2ConformerModel and Wav2Vec2ConformerForCTC."""
    norm = names.batch_norm('encoder.layers.{}.conv_module.batch_norm', 'layers/{}/conv/inner_norm')
    rules = [*wav2vec2.stem_table(), *block_table(), *norm]
    return wav2vec2.either(config, rules, 'wav2vec2_conformer.')


# A layer that the original has and never calls, and frequencies of its rotations.
UNUSED = (
    *wav2vec2.UNUSED,
    r'(.*\.)?encoder\.pos_conv_embed\..*',
    r'(.*\.)?encoder\.embed_positions\.inv_freq',
)
FAMILIES = (
    Family(
        'Wav2Vec2-Conformer',
        ('wav2vec2-conformer',),
        module,
        wav2vec2.inputs,
        table,
        UNUSED,
        SpeechEncoder,
        'transformers Wav2Vec2ConformerModel, Wav2Vec2ConformerForCTC',
    ),
)
