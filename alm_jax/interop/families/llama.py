"""Llama (Vicuna, SmolLM2), Mistral, Qwen2, Qwen2.5 and Qwen3 as transformers stores them."""

import dataclasses

import jax.numpy as jnp

from alm_jax import config as config_lib
from alm_jax.interop import names
from alm_jax.interop.causal_lm import CausalLm
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.interop.rope_config import rope
from alm_jax.models.layers.attention import PROJECTIONS
from alm_jax.models.text.decoder import Decoder, Size

# What LlamaConfig takes for missing keys.
LLAMA = {
    'hidden_size': 4096,
    'num_hidden_layers': 32,
    'num_attention_heads': 32,
    'intermediate_size': 11_008,
    'vocab_size': 32_000,
    'hidden_act': 'silu',
    'rms_norm_eps': 1e-6,
    'max_position_embeddings': 2048,
    'tie_word_embeddings': False,
}
MISTRAL = {
    **LLAMA,
    'intermediate_size': 14_336,
    'num_key_value_heads': 8,
    'max_position_embeddings': 131_072,
    'sliding_window': 4096,
}
QWEN = {
    **LLAMA,
    'intermediate_size': 22_016,
    'vocab_size': 151_936,
    'num_key_value_heads': 32,
    'max_position_embeddings': 32_768,
    'sliding_window': 4096,
    'max_window_layers': 28,
}


def size(config: Config, windowed: tuple[bool, ...] = ()) -> Size:
    """What a complete config says of any of these; ``windowed`` layers have its sliding window."""
    return Size(
        width=config['hidden_size'],
        depth=config['num_hidden_layers'],
        heads=config['num_attention_heads'],
        mlp_width=config['intermediate_size'],
        vocabulary=config['vocab_size'],
        kv_heads=config.get('num_key_value_heads'),
        head_dim=config.get('head_dim'),
        norm_epsilon=config['rms_norm_eps'],
        activation=config_lib.choose(ACTIVATIONS, config['hidden_act'], where='hidden_act'),
        mlp_bias=config.get('mlp_bias', False),
        attention_biases=PROJECTIONS if config.get('attention_bias') else (),
        rope=rope(config),
        window=config['sliding_window'] if any(windowed) else None,
        windowed=windowed,
        head=head(config),
    )


def head(config: Config) -> str:
    """Of Size: a folder of the bare model (LlamaModel) has no logits."""
    architecture = (config.get('architectures') or ['ForCausalLM'])[0]
    if architecture.endswith('Model') and not architecture.endswith('LMHeadModel'):
        return 'none'
    return 'tied' if config['tie_word_embeddings'] else 'own'


def module(config: Config) -> Decoder:
    """Of a LlamaConfig."""
    return Decoder(size({**LLAMA, **config}))


def mistral(config: Config) -> Decoder:
    """Of a MistralConfig: all layers have the window, if there is one."""
    config = {**MISTRAL, **config}
    windows = config['sliding_window'] is not None
    return Decoder(size(config, (windows,) * config['num_hidden_layers']))


def qwen2(config: Config) -> Decoder:
    """Of a Qwen2Config, which is also Qwen2.5's."""
    config = {**QWEN, **config}
    biases = ('query', 'key', 'value')
    return Decoder(dataclasses.replace(size(config, _upper(config)), attention_biases=biases))


def qwen3(config: Config) -> Decoder:
    """Of a Qwen3Config."""
    config = {**QWEN, 'head_dim': 128, **config}
    return Decoder(dataclasses.replace(size(config, _upper(config)), qk_norm=True))


def _upper(config: Config) -> tuple[bool, ...]:
    """Qwen's windowed layers: from one upwards, if any."""
    layers = range(config['num_hidden_layers'])
    if not config.get('use_sliding_window') or config['sliding_window'] is None:
        return (False,) * len(layers)
    if config.get('layer_types'):
        return tuple(name == 'sliding_attention' for name in config['layer_types'])
    return tuple(layer >= config['max_window_layers'] for layer in layers)


def inputs(config: Config) -> tuple:
    """(token ids,) of one text."""
    del config
    return (jnp.zeros((1, 4), jnp.int32),)


def table(config: Config) -> names.Table:
    """Of LlamaForCausalLM and its kin, and of their bare models."""
    norms = {'input_layernorm': 'attn_norm', 'post_attention_layernorm': 'mlp_norm'}
    return decoder_table(config, norms)


def decoder_table(config: Config, norms: dict[str, str]) -> names.Table:
    """``norms`` of a layer: their name -> ours. Names without 'model.' are those of bare models."""
    theirs, ours = 'layers.{}', 'layers/{}'
    rules = [
        *names.embedding('embed_tokens', 'token_embedding'),
        *names.norm('norm', 'norm'),
        *names.norm(f'{theirs}.self_attn.q_norm', f'{ours}/attn/query_norm'),
        *names.norm(f'{theirs}.self_attn.k_norm', f'{ours}/attn/key_norm'),
    ]
    for their, our in norms.items():
        rules += names.norm(f'{theirs}.{their}', f'{ours}/{our}')
    for their, our in zip(('q', 'k', 'v', 'o'), PROJECTIONS):
        rules += names.linear(f'{theirs}.self_attn.{their}_proj', f'{ours}/attn/{our}')
    for name in ('gate', 'up', 'down'):
        rules += names.linear(f'{theirs}.mlp.{name}_proj', f'{ours}/mlp/{name}')
    return either(config, rules, 'model.')


def either(config: Config, rules: names.Table, prefix: str) -> names.Table:
    """The table with and without a prefix, and the head; what the folder is written as is first."""
    alternatives = [names.under(rules, prefix), rules]
    if head({'tie_word_embeddings': True, **config}) == 'none':
        alternatives.reverse()
    return [*alternatives[0], *alternatives[1], *names.linear('lm_head', 'lm_head')]


# A tied head is stored a second time by some; frequencies of rotations are no parameters.
UNUSED = (r'lm_head\.weight', r'(.*\.)?rotary_emb\.inv_freq')
FAMILIES = tuple(
    Family(name, (kind,), make, inputs, table, UNUSED, CausalLm, f'transformers {name}ForCausalLM')
    for name, kind, make in (
        ('Llama', 'llama', module),
        ('Mistral', 'mistral', mistral),
        ('Qwen2', 'qwen2', qwen2),
        ('Qwen3', 'qwen3', qwen3),
    )
)
