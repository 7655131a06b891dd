"""GPT-2 as transformers stores it: language model of MS-CLAP, its captioner and Pengi."""

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.causal_lm import CausalLm
from alm_jax.interop.families import llama
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.models.layers.attention import PROJECTIONS
from alm_jax.models.text.decoder import Decoder, Size


def module(config: Config) -> Decoder:
    """The decoder that a GPT2Config describes."""
    if config.get('scale_attn_by_inverse_layer_idx'):
        raise ConfigError('scale_attn_by_inverse_layer_idx is not supported.')
    width = config.get('n_embd', 768)
    activation = config.get('activation_function', 'gelu_new')
    return Decoder(
        Size(
            width=width,
            depth=config.get('n_layer', 12),
            heads=config.get('n_head', 12),
            mlp_width=config.get('n_inner') or 4 * width,
            vocabulary=config.get('vocab_size', 50257),
            norm='layer',
            norm_epsilon=config.get('layer_norm_epsilon', 1e-5),
            activation=config_lib.choose(ACTIVATIONS, activation, where='activation_function'),
            gated=False,
            mlp_bias=True,
            attention_biases=PROJECTIONS,
            attention_scale=None if config.get('scale_attn_weights', True) else 1.0,
            rope=None,
            positions=config.get('n_positions', 1024),
            head=llama.head({'tie_word_embeddings': True, **config}),
        )
    )


def table(config: Config) -> names.Table:
    """Of GPT2LMHeadModel and GPT2Model; OpenAI's own folder has the latter's names."""
    theirs, ours = 'h.{}', 'layers/{}'
    query_key_value = [f'{ours}/attn/{name}' for name in PROJECTIONS[:3]]
    rules = [
        *names.embedding('wte', 'token_embedding'),
        *names.embedding('wpe', 'position_embedding'),
        *names.norm(f'{theirs}.ln_1', f'{ours}/attn_norm'),
        *names.fused_linear(f'{theirs}.attn.c_attn', query_key_value, transpose=False),
        *_conv1d(f'{theirs}.attn.c_proj', f'{ours}/attn/out'),
        *names.norm(f'{theirs}.ln_2', f'{ours}/mlp_norm'),
        *_conv1d(f'{theirs}.mlp.c_fc', f'{ours}/mlp/up'),
        *_conv1d(f'{theirs}.mlp.c_proj', f'{ours}/mlp/down'),
        *names.norm('ln_f', 'norm'),
    ]
    return llama.either(config, rules, 'transformer.')


def _conv1d(theirs: str, ours: str) -> list[names.Rule]:
    """GPT-2's Linear, [in, out] already."""
    return [
        *names.array(f'{theirs}.weight', f'{ours}/kernel'),
        *names.array(f'{theirs}.bias', f'{ours}/bias'),
    ]


# Causal masks, which older files store, are no parameters; the head is tied.
UNUSED = (r'(transformer\.)?h\.\d+\.attn\.(masked_)?bias', r'lm_head\.weight')
FAMILIES = (
    Family(
        'GPT-2',
        ('gpt2',),
        module,
        llama.inputs,
        table,
        UNUSED,
        CausalLm,
        'transformers GPT2LMHeadModel',
    ),
)
