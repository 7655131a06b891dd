"""Gemma, Gemma 2 and the text model of Gemma 3 as transformers stores them."""

import dataclasses
import math

from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.causal_lm import CausalLm
from alm_jax.interop.families import llama
from alm_jax.interop.family import Config, Family
from alm_jax.interop.rope_config import rope
from alm_jax.models.text.decoder import Decoder, Size

# What GemmaConfig, Gemma2Config and Gemma3TextConfig take for missing keys.
GEMMA = {
    'hidden_size': 3072,
    'intermediate_size': 24_576,
    'num_hidden_layers': 28,
    'num_attention_heads': 16,
    'num_key_value_heads': 16,
    'head_dim': 256,
    'vocab_size': 256_000,
    'rms_norm_eps': 1e-6,
    'max_position_embeddings': 8192,
    'tie_word_embeddings': True,
}
GEMMA2 = {
    **GEMMA,
    'hidden_size': 2304,
    'intermediate_size': 9216,
    'num_hidden_layers': 26,
    'num_attention_heads': 8,
    'num_key_value_heads': 4,
    'query_pre_attn_scalar': 256,
    'sliding_window': 4096,
}
GEMMA3 = {
    **GEMMA2,
    'vocab_size': 262_208,
    'max_position_embeddings': 131_072,
    'rope_theta': 1_000_000.0,
    'rope_local_base_freq': 10_000.0,
}
CAPS = {'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0}


def module(config: Config) -> Decoder:
    """Of a GemmaConfig."""
    return Decoder(_size({**GEMMA, **config}))


def gemma2(config: Config) -> Decoder:
    """Of a Gemma2Config: every other layer has a window; scores and logits are capped."""
    config = {**GEMMA2, **CAPS, **config}
    return Decoder(_sandwich(config, _windowed(config, 2)))


def gemma3(config: Config) -> Decoder:
    """Of a Gemma3TextConfig: five layers of six have a window and a rotation of their own."""
    config = {**GEMMA3, **config}
    windowed = _windowed(config, config.get('sliding_window_pattern', 6))
    local = rope(config, 'sliding_attention')
    return Decoder(
        dataclasses.replace(_sandwich(config, windowed), qk_norm=True, window_rope=local)
    )


def _size(config: Config, windowed: tuple[bool, ...] = ()) -> Size:
    if config.get('use_bidirectional_attention'):
        raise ConfigError('use_bidirectional_attention: an encoder, not a language model.')
    # Some of the published files say 'gelu' and mean its approximation.
    config = {**config, 'hidden_act': 'gelu_pytorch_tanh'}
    scale = math.sqrt(config['hidden_size'])
    return dataclasses.replace(
        llama.size(config, windowed), norm='rms_from_one', embedding_scale=scale
    )


def _sandwich(config: Config, windowed: tuple[bool, ...]) -> Size:
    return dataclasses.replace(
        _size(config, windowed),
        sandwich=True,
        attention_scale=config['query_pre_attn_scalar'] ** -0.5,
        attention_softcap=config.get('attn_logit_softcapping'),
        logit_softcap=config.get('final_logit_softcapping'),
    )


def _windowed(config: Config, pattern: int) -> tuple[bool, ...]:
    """All layers but every ``pattern``-th, unless the config lists them."""
    if config.get('layer_types'):
        return tuple(name == 'sliding_attention' for name in config['layer_types'])
    return tuple((layer + 1) % pattern != 0 for layer in range(config['num_hidden_layers']))


def sandwich_table(config: Config) -> names.Table:
    """Of Gemma2ForCausalLM and Gemma3ForCausalLM."""
    norms = {
        'input_layernorm': 'attn_norm',
        'post_attention_layernorm': 'attn_post_norm',
        'pre_feedforward_layernorm': 'mlp_norm',
        'post_feedforward_layernorm': 'mlp_post_norm',
    }
    return llama.decoder_table(config, norms)


FAMILIES = tuple(
    Family(
        name,
        (kind,),
        make,
        llama.inputs,
        table,
        llama.UNUSED,
        CausalLm,
        f'transformers {name.replace(" ", "")}ForCausalLM',
    )
    for name, kind, make, table in (
        ('Gemma', 'gemma', module, llama.table),
        ('Gemma 2', 'gemma2', gemma2, sandwich_table),
        ('Gemma 3', 'gemma3_text', gemma3, sandwich_table),
    )
)
