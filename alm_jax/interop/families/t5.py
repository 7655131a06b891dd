"""T5, version 1.1 and Flan-T5 as transformers stores them; the encoder is also MusicGen's."""

import jax.numpy as jnp
import numpy as np

from alm_jax import config as config_lib
from alm_jax.interop import names
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.interop.text_to_text import TextToText
from alm_jax.models.text.t5 import T5, Size, T5Encoder


def size(config: Config) -> Size:
    """What a T5Config says."""
    gate, _, activation = config.get('feed_forward_proj', 'relu').rpartition('-')
    # The published gated ones say 'gelu' and mean its tanh form.
    activation = 'gelu_new' if (gate, activation) == ('gated', 'gelu') else activation
    depth = config.get('num_layers', 6)
    return Size(
        width=config.get('d_model', 512),
        depth=depth,
        heads=config.get('num_heads', 8),
        mlp_width=config.get('d_ff', 2048),
        head_dim=config.get('d_kv', 64),
        vocabulary=config.get('vocab_size', 32128),
        decoder_depth=config.get('num_decoder_layers') or depth,
        buckets=config.get('relative_attention_num_buckets', 32),
        max_distance=config.get('relative_attention_max_distance', 128),
        norm_epsilon=config.get('layer_norm_epsilon', 1e-6),
        activation=config_lib.choose(ACTIVATIONS, activation, where='feed_forward_proj'),
        gated=gate == 'gated',
        head=_head(config),
    )


def _head(config: Config) -> str:
    """A model whose outputs are not scaled has, as published, a head of its own."""
    if 'T5Model' in (config.get('architectures') or ()):
        return 'none'
    scaled = config.get('scale_decoder_outputs', config.get('tie_word_embeddings', True))
    return 'tied' if scaled else 'own'


def encoder(config: Config) -> T5Encoder:
    """Of a T5EncoderModel."""
    return T5Encoder(size(config))


def encoder_only(config: Config) -> bool:
    """Whether the folder is that of a T5EncoderModel."""
    return 'T5EncoderModel' in (config.get('architectures') or ())


def module(config: Config) -> T5Encoder:
    """Encoder and decoder, or the encoder alone where the folder holds no more."""
    return encoder(config) if encoder_only(config) else T5(size(config))


def inputs(config: Config) -> tuple:
    """(token ids, token mask) of one text, and those of the decoder if there is one."""
    text = jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
    return text if encoder_only(config) else text * 2


def _stack_table(config: Config, parts: tuple[str, ...]) -> names.Table:
    """Of a stack whose blocks have these parts in this order."""
    mlp = {'wi': 'up', 'wo': 'down'}
    if size(config).gated:
        mlp = {'wi_0': 'gate', 'wi_1': 'up', 'wo': 'down'}
    rules = [
        *names.embedding('block.0.layer.0.SelfAttention.relative_attention_bias', 'relative_bias'),
        *names.norm('final_layer_norm', 'norm'),
    ]
    for number, part in enumerate(parts):
        theirs, ours = f'block.{{}}.layer.{number}', f'layers/{{}}/{part}'
        rules += names.norm(f'{theirs}.layer_norm', f'{ours}_norm')
        if part == 'mlp':
            for their, our in mlp.items():
                rules += names.linear(f'{theirs}.DenseReluDense.{their}', f'{ours}/{our}')
            continue
        attention = 'SelfAttention' if part == 'attn' else 'EncDecAttention'
        for their, our in (('q', 'query'), ('k', 'key'), ('v', 'value'), ('o', 'out')):
            rules += names.linear(f'{theirs}.{attention}.{their}', f'{ours}/{our}')
    return rules


def encoder_table(config: Config) -> names.Table:
    """Of T5EncoderModel."""
    rules = _stack_table(config, ('attn', 'mlp'))
    return [
        *names.embedding('shared', 'token_embedding'),
        *names.under(rules, 'encoder.', 'encoder/'),
    ]


def table(config: Config) -> names.Table:
    """Of T5ForConditionalGeneration, T5Model and T5EncoderModel."""
    both = ('token_embedding/embedding', 'lm_head/kernel')
    heads = [
        names.Rule(('shared.weight', 'lm_head.weight'), both, _turn_second, _write_heads),
        names.Rule(('shared.weight',), both, lambda arrays: [arrays[0], arrays[0].T]),
    ]
    decoder = _stack_table(config, ('attn', 'cross_attn', 'mlp'))
    return [*heads, *encoder_table(config), *names.under(decoder, 'decoder.', 'decoder/')]


def _turn_second(arrays):
    return [arrays[0], arrays[1].T]


def _write_heads(arrays):
    """A head equal to the embedding is stored once, as transformers 5 does with Flan's."""
    embedding, head = arrays[0], arrays[1].T
    return [embedding] if np.array_equal(embedding, head) else [embedding, head]


# Copies of the shared embedding, and a bias that published files hold and no version uses.
UNUSED = (
    r'((encoder|decoder)\.embed_tokens|lm_head)\.weight',
    r'decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight',
)
FAMILIES = (
    Family(
        'T5',
        ('t5',),
        module,
        inputs,
        table,
        UNUSED,
        TextToText,
        'transformers T5ForConditionalGeneration and T5EncoderModel',
    ),
)
