"""wav2vec 2.0, HuBERT and WavLM as transformers stores them, with or without a CTC head."""

import jax.numpy as jnp

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.interop.speech_encoder import SpeechEncoder
from alm_jax.models.audio.wav2vec2 import Size, Wav2Vec2
from alm_jax.models.layers.attention import PROJECTIONS

NOT_READ = ('add_adapter', 'adapter_attn_dim')


def size(config: Config) -> Size:
    """Of a Wav2Vec2Config or HubertConfig; a missing key takes the default that both have."""
    for key in NOT_READ:
        if config.get(key):
            raise ConfigError(f'config.json: {key} is {config[key]}; adapters are not read.')

    def activation(key):
        return config_lib.choose(ACTIVATIONS, config.get(key, 'gelu'), where=key)

    mask_rates = config.get('mask_time_prob', 0.05), config.get('mask_feature_prob', 0.0)
    return Size(
        width=config.get('hidden_size', 768),
        depth=config.get('num_hidden_layers', 12),
        heads=config.get('num_attention_heads', 12),
        mlp_width=config.get('intermediate_size', 3072),
        conv_widths=tuple(config.get('conv_dim', (512,) * 7)),
        conv_sizes=tuple(config.get('conv_kernel', (10, 3, 3, 3, 3, 2, 2))),
        conv_strides=tuple(config.get('conv_stride', (5, 2, 2, 2, 2, 2, 2))),
        conv_norm=config_lib.choose(
            {'group': 'group', 'layer': 'layer'},
            config.get('feat_extract_norm', 'group'),
            where='feat_extract_norm',
        ),
        conv_bias=config.get('conv_bias', False),
        conv_activation=activation('feat_extract_activation'),
        projection_norm=config.get('feat_proj_layer_norm', True),
        position_size=config.get('num_conv_pos_embeddings', 128),
        position_groups=config.get('num_conv_pos_embedding_groups', 16),
        position_norm='batch' if config.get('conv_pos_batch_norm') else 'weight',
        pre_norm=config.get('do_stable_layer_norm', False),
        norm_epsilon=config.get('layer_norm_eps', 1e-5),
        activation=activation('hidden_act'),
        mask_embedding=max(mask_rates) > 0,
        vocabulary=vocabulary(config),
    )


def vocabulary(config: Config) -> int | None:
    """Tokens of the CTC head; None is no head."""
    if not (config.get('architectures') or [''])[0].endswith('ForCTC'):
        return None
    return config.get('vocab_size', 32)


def module(config: Config) -> Wav2Vec2:
    """Of a Wav2Vec2Config or HubertConfig."""
    return Wav2Vec2(size(config))


def inputs(config: Config) -> tuple:
    """(waveform,) of one short clip."""
    return (jnp.zeros((1, 2 * size(config).min_samples)),)


def stem_table() -> names.Table:
    """All but the blocks."""
    positions = names.conv('encoder.pos_conv_embed.conv', 'positions')
    return [
        *names.conv('feature_extractor.conv_layers.{}.conv', 'feature_encoder/conv_{}'),
        *names.norm('feature_extractor.conv_layers.{}.layer_norm', 'feature_encoder/norm_{}'),
        *names.norm('feature_projection.layer_norm', 'projection_norm'),
        *names.linear('feature_projection.projection', 'projection'),
        *names.array('masked_spec_embed', 'mask_embedding'),
        *names.weight_normed(positions, axis=2),
        *positions,
        *names.batch_norm('encoder.pos_conv_embed.batch_norm', 'positions/norm'),
        *names.norm('encoder.layer_norm', 'final_norm'),
        *names.norm('encoder.layer_norm', 'embedding_norm'),
    ]


def block_table() -> names.Table:
    """Of the blocks."""
    theirs, ours = 'encoder.layers.{}', 'layers/{}'
    rules = [
        *names.norm(f'{theirs}.layer_norm', f'{ours}/attn_norm'),
        *names.norm(f'{theirs}.final_layer_norm', f'{ours}/mlp_norm'),
        *names.linear(f'{theirs}.feed_forward.intermediate_dense', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.feed_forward.output_dense', f'{ours}/mlp/down'),
    ]
    for part in PROJECTIONS:
        their = 'out_proj' if part == 'out' else f'{part[0]}_proj'
        rules += names.linear(f'{theirs}.attention.{their}', f'{ours}/attn/{part}')
    return rules


def either(config: Config, rules: names.Table, prefix: str) -> names.Table:
    """The table with and without a prefix, and the head; what the folder is written as is first."""
    alternatives = [names.under(rules, prefix), rules]
    if (config.get('architectures') or ['Model'])[0].endswith('Model'):
        alternatives.reverse()
    return [*alternatives[0], *alternatives[1], *names.linear('lm_head', 'head')]


def table(config: Config) -> names.Table:
    """Of Wav2Vec2Model, Wav2Vec2ForCTC and Wav2Vec2ForPreTraining."""
    return either(config, [*stem_table(), *block_table()], 'wav2vec2.')


# What pretraining chooses its targets with, and the counts of batches that batch norm has seen.
UNUSED = (r'(quantizer|project_hid|project_q)\..*', r'.*\.num_batches_tracked')
FAMILIES = (
    Family(
        'wav2vec 2.0',
        ('wav2vec2',),
        module,
        inputs,
        table,
        UNUSED,
        SpeechEncoder,
        'transformers Wav2Vec2Model, Wav2Vec2ForCTC',
    ),
)
