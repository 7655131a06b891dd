"""BERT and RoBERTa as transformers stores them: text encoders of CLAP and of sentence models."""

import jax.numpy as jnp

from alm_jax.interop import names
from alm_jax.interop.family import Config, Family
from alm_jax.models.text.bert import Bert, Size

ACTIVATIONS = {'gelu': 'gelu', 'gelu_new': 'gelu_tanh', 'gelu_pytorch_tanh': 'gelu_tanh'}
ACTIVATIONS |= {'quick_gelu': 'quick_gelu', 'relu': 'relu', 'silu': 'silu', 'swish': 'silu'}


def module(config: Config, *, first_position: int = 0, pooler: bool = True) -> Bert:
    """The encoder that a BertConfig or RobertaConfig describes."""
    return Bert(
        Size(
            width=config.get('hidden_size', 768),
            depth=config.get('num_hidden_layers', 12),
            heads=config.get('num_attention_heads', 12),
            vocabulary=config.get('vocab_size', 30522),
            mlp_width=config.get('intermediate_size', 3072),
            positions=config.get('max_position_embeddings', 512),
            first_position=first_position,
            types=config.get('type_vocab_size', 2),
            norm_epsilon=config.get('layer_norm_eps', 1e-12),
            activation=ACTIVATIONS[config.get('hidden_act', 'gelu')],
            pooler=pooler,
        )
    )


def roberta(config: Config) -> Bert:
    """Its first token stands at position pad_token_id + 1."""
    config = {'layer_norm_eps': 1e-12, 'vocab_size': 50265, **config}
    return module(config, first_position=config.get('pad_token_id', 1) + 1)


def inputs(config: Config) -> tuple:
    """(token ids, token mask) of one text."""
    del config
    return jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)


def table(config: Config) -> names.Table:
    """Of BertModel and RobertaModel."""
    del config
    theirs, ours = 'encoder.layer.{}', 'layers/{}'
    return [
        *names.embedding('embeddings.word_embeddings', 'word_embedding'),
        *names.embedding('embeddings.position_embeddings', 'position_embedding'),
        *names.embedding('embeddings.token_type_embeddings', 'type_embedding'),
        *names.norm('embeddings.LayerNorm', 'embedding_norm'),
        *names.linear(f'{theirs}.attention.self.query', f'{ours}/attn/query'),
        *names.linear(f'{theirs}.attention.self.key', f'{ours}/attn/key'),
        *names.linear(f'{theirs}.attention.self.value', f'{ours}/attn/value'),
        *names.linear(f'{theirs}.attention.output.dense', f'{ours}/attn/out'),
        *names.norm(f'{theirs}.attention.output.LayerNorm', f'{ours}/attn_norm'),
        *names.linear(f'{theirs}.intermediate.dense', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.output.dense', f'{ours}/mlp/down'),
        *names.norm(f'{theirs}.output.LayerNorm', f'{ours}/mlp_norm'),
        *names.linear('pooler.dense', 'pooler'),
    ]


# Position numbers, which some versions store, are no parameters.
UNUSED = (r'(.*\.)?embeddings\.position_ids',)
FAMILIES = (
    Family('BERT', ('bert',), module, inputs, table, UNUSED, reference='transformers BertModel'),
    Family(
        'RoBERTa',
        ('roberta',),
        roberta,
        inputs,
        table,
        UNUSED,
        reference='transformers RobertaModel',
    ),
)
