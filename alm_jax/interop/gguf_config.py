"""config.json from a GGUF file's metadata."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.interop.gguf import GgufFile
from alm_jax.models.layers.rotary import Rope

# general.architecture -> model_type of config.json
ARCHITECTURES = {
    'llama': 'llama',
    'qwen2': 'qwen2',
    'qwen3': 'qwen3',
    'gemma2': 'gemma2',
    'gemma3': 'gemma3_text',
    'gpt2': 'gpt2',
}
_LARGEST_GEMMA = {'gemma2': 46, 'gemma3': 62}  # layers


def architecture(gguf: GgufFile) -> str:
    """general.architecture. Raises ConfigError for one that is not read."""
    kind = gguf.metadata.get('general.architecture')
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        hint = did_you_mean(str(kind), list(ARCHITECTURES))
        raise ConfigError(f'{gguf.name}: general.architecture {kind!r} is not read. {hint}')
    return kind


def number(gguf: GgufFile, key: str, default: float | None = None) -> Any:
    """A positive number under '<architecture>.<key>'. Raises ConfigError for anything else."""
    key = f'{architecture(gguf)}.{key}'
    value = gguf.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f'{gguf.name}: metadata key {key} is missing or no number.')
    if not 0 < value < math.inf:
        raise ConfigError(f'{gguf.name}: metadata key {key} is {value}, not above 0.')
    return value


def count(gguf: GgufFile, key: str, default: int | None = None) -> int:
    """``number``, but a whole one."""
    value = number(gguf, key, default)
    if not isinstance(value, int):
        raise ConfigError(
            f'{gguf.name}: metadata key {architecture(gguf)}.{key} is no whole number.'
        )
    return value


def config(gguf: GgufFile) -> dict[str, Any]:
    """The content of config.json, but for the ids of special tokens.

    Raises:
      ConfigError: an architecture that is not read, or a key that is missing or no number.
    """
    kind = architecture(gguf)
    if 'token_embd.weight' not in gguf or len(gguf.shape('token_embd.weight')) != 2:
        raise ConfigError(f'{gguf.name} has no tensor token_embd.weight of two dimensions.')
    return {
        'model_type': ARCHITECTURES[kind],
        'vocab_size': gguf.shape('token_embd.weight')[0],
        **(_gpt2(gguf) if kind == 'gpt2' else _decoder(gguf, kind)),
    }


def _gpt2(gguf: GgufFile) -> dict[str, Any]:
    return {
        'architectures': ['GPT2LMHeadModel'],
        'n_embd': count(gguf, 'embedding_length'),
        'n_layer': count(gguf, 'block_count'),
        'n_head': count(gguf, 'attention.head_count'),
        'n_positions': count(gguf, 'context_length'),
        'n_inner': count(gguf, 'feed_forward_length'),
        'layer_norm_epsilon': number(gguf, 'attention.layer_norm_epsilon'),
        'tie_word_embeddings': True,
    }


def _decoder(gguf: GgufFile, kind: str) -> dict[str, Any]:
    heads, width = count(gguf, 'attention.head_count'), count(gguf, 'embedding_length')
    head_dim = count(gguf, 'attention.key_length', width // heads)
    rotated = count(gguf, 'rope.dimension_count', head_dim)
    if rotated != head_dim:
        raise ConfigError(
            f'{gguf.name}: {kind}.rope.dimension_count is {rotated}, of a head of {head_dim}; '
            'partial rotation is not read.'
        )
    made = {
        'architectures': [f'{kind.capitalize()}ForCausalLM'],
        'hidden_size': width,
        'num_hidden_layers': count(gguf, 'block_count'),
        'num_attention_heads': heads,
        'num_key_value_heads': count(gguf, 'attention.head_count_kv', heads),
        'head_dim': head_dim,
        'intermediate_size': count(gguf, 'feed_forward_length'),
        'max_position_embeddings': count(gguf, 'context_length'),
        'rms_norm_eps': number(gguf, 'attention.layer_norm_rms_epsilon'),
        'rope_theta': number(gguf, 'rope.freq_base', 10_000.0),
        'tie_word_embeddings': 'output.weight' not in gguf,
        'attention_bias': kind == 'llama' and 'blk.0.attn_q.bias' in gguf,
    }
    if scaling := _rope_scaling(gguf, made):
        made['rope_scaling'] = scaling
    return made | (_gemma(gguf, kind, made) if kind.startswith('gemma') else {})


def _gemma(gguf: GgufFile, kind: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """What its config has beside. Only the models of 27B scale scores by the width."""
    largest = made['num_hidden_layers'] == _LARGEST_GEMMA[kind]
    caps = ('attn_logit_softcapping', 'final_logit_softcapping')
    return {
        'query_pre_attn_scalar': made['hidden_size'] // made['num_attention_heads']
        if largest
        else made['head_dim'],
        'sliding_window': count(gguf, 'attention.sliding_window'),
        **{cap: gguf.metadata.get(f'{kind}.{cap}') or None for cap in caps},
    }


def _rope_scaling(gguf: GgufFile, made: Mapping[str, Any]) -> dict[str, Any] | None:
    if 'rope_freqs.weight' in gguf:
        return _llama3(gguf, made)
    key = f'{architecture(gguf)}.rope.scaling.type'
    kind = gguf.metadata.get(key, 'none')
    if kind == 'none':
        return None
    if kind not in ('linear', 'yarn'):
        raise ConfigError(f"{gguf.name}: {key} {kind!r} is neither 'linear' nor 'yarn'.")
    scaling = {'rope_type': kind, 'factor': number(gguf, 'rope.scaling.factor')}
    if kind == 'yarn':
        length = count(gguf, 'rope.scaling.original_context_length')
        scaling['original_max_position_embeddings'] = length
    return scaling


def _llama3(gguf: GgufFile, made: Mapping[str, Any]) -> dict[str, Any]:
    """Llama 3.1 and later store what each frequency is divided by, not the numbers behind it."""
    divisors = gguf['rope_freqs.weight']
    factor = round(float(divisors.max(initial=1.0)), 3)
    rope = Rope(made['rope_theta'], 'llama3', factor, 8192)
    plain = Rope(made['rope_theta']).frequencies(made['head_dim'])
    ratio = plain / rope.frequencies(made['head_dim'])
    if ratio.shape != divisors.shape or not np.allclose(ratio, divisors, rtol=1e-3):
        raise ConfigError(f'{gguf.name}: rope_freqs.weight is not the scaling of Llama 3.1.')
    return {
        'rope_type': 'llama3',
        'factor': factor,
        'low_freq_factor': rope.low,
        'high_freq_factor': rope.high,
        'original_max_position_embeddings': rope.length,
    }
