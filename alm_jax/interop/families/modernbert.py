"""ModernBERT as transformers stores it: a text encoder, that of PE-Audio among others."""

from alm_jax import config as config_lib
from alm_jax.interop import names, rope_config
from alm_jax.interop.families import bert
from alm_jax.interop.family import Config, Family
from alm_jax.models.layers.rotary import Rope
from alm_jax.models.text.modern_bert import ModernBert, Size

BASES = {'full': 160_000.0, 'sliding': 10_000.0}
OLDER = {'full': 'global_rope_theta', 'sliding': 'local_rope_theta'}


def _rope(config: Config, kind: str) -> Rope:
    given = (config.get('rope_parameters') or {}).get(f'{kind}_attention') or {}
    given = {'rope_theta': config.get(OLDER[kind], BASES[kind]), **given}
    positions = config.get('max_position_embeddings', 8192)
    return rope_config.rope({'rope_parameters': given, 'max_position_embeddings': positions})


def module(config: Config) -> ModernBert:
    """The encoder that a ModernBertConfig describes."""
    depth, every = config.get('num_hidden_layers', 22), config.get('global_attn_every_n_layers', 3)
    kinds = config.get('layer_types') or [
        'sliding_attention' if i % every else 'full_attention' for i in range(depth)
    ]
    name = config.get('hidden_activation', 'gelu')
    return ModernBert(
        Size(
            width=config.get('hidden_size', 768),
            depth=depth,
            heads=config.get('num_attention_heads', 12),
            mlp_width=config.get('intermediate_size', 1152),
            vocabulary=config.get('vocab_size', 50368),
            windowed=tuple(kind == 'sliding_attention' for kind in kinds),
            reach=config.get('local_attention', 128) // 2,
            rope=_rope(config, 'full'),
            window_rope=_rope(config, 'sliding'),
            norm='layer' if config.get('norm_bias', False) else 'layer_no_bias',
            norm_epsilon=config.get('norm_eps', 1e-5),
            activation=config_lib.choose(bert.ACTIVATIONS, name, where='hidden_activation'),
            attention_bias=config.get('attention_bias', False),
            mlp_bias=config.get('mlp_bias', False),
        )
    )


def _block(theirs: str, ours: str) -> names.Table:
    return [
        *names.norm(f'{theirs}.attn_norm', f'{ours}/attn_norm'),
        *names.fused_linear(
            f'{theirs}.attn.Wqkv', [f'{ours}/attn/{part}' for part in ('query', 'key', 'value')]
        ),
        *names.linear(f'{theirs}.attn.Wo', f'{ours}/attn/out'),
        *names.norm(f'{theirs}.mlp_norm', f'{ours}/mlp_norm'),
        *names.fused_linear(f'{theirs}.mlp.Wi', [f'{ours}/mlp/gate', f'{ours}/mlp/up']),
        *names.linear(f'{theirs}.mlp.Wo', f'{ours}/mlp/down'),
    ]


def table(config: Config) -> names.Table:
    """Of ModernBertModel."""
    rules = [
        *names.embedding('embeddings.tok_embeddings', 'token_embedding'),
        *names.norm('embeddings.norm', 'embedding_norm'),
        *_block('layers.0', 'first'),
        *names.norm('final_norm', 'final_norm'),
    ]
    for i in range(1, config.get('num_hidden_layers', 22)):
        rules += _block(f'layers.{i}', f'layers/{i - 1}')
    return rules


FAMILIES = (
    Family(
        'ModernBERT',
        ('modernbert',),
        module,
        bert.inputs,
        table,
        reference='transformers ModernBertModel',
    ),
)
