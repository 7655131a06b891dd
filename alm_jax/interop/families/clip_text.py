"""CLIP's text encoder as transformers stores it, alone or in a folder of the whole CLIP."""

import jax.numpy as jnp

from alm_jax import config as config_lib
from alm_jax.interop import names
from alm_jax.interop.clip_text import ClipTextEncoder
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.models.layers.attention import PROJECTIONS
from alm_jax.models.text.clip_text import ClipText
from alm_jax.models.text.decoder import Decoder, Size

LEGACY_END = 2  # what configs said before transformers 4.32, whatever the tokenizer's id was


def module(config: Config) -> ClipText:
    """The encoder that a CLIPTextConfig, or the text_config of a CLIPConfig, describes."""
    text = config.get('text_config', config)
    size = Size(
        width=text.get('hidden_size', 512),
        depth=text.get('num_hidden_layers', 12),
        heads=text.get('num_attention_heads', 8),
        mlp_width=text.get('intermediate_size', 2048),
        vocabulary=text.get('vocab_size', 49408),
        norm='layer',
        norm_epsilon=text.get('layer_norm_eps', 1e-5),
        activation=config_lib.choose(
            ACTIVATIONS, text.get('hidden_act', 'quick_gelu'), where='hidden_act'
        ),
        gated=False,
        mlp_bias=True,
        attention_biases=PROJECTIONS,
        rope=None,
        positions=text.get('max_position_embeddings', 77),
        head='none',
    )
    end = text.get('eos_token_id', 49407)
    return ClipText(
        Decoder(size),
        embed_dim=config.get('projection_dim', 512) if _projects(config) else None,
        end_id=None if end == LEGACY_END else end,
    )


def _projects(config: Config) -> bool:
    return 'CLIPTextModel' not in (config.get('architectures') or ())


def inputs(config: Config) -> tuple:
    """(token ids, token mask) of one text."""
    del config
    return jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)


def table(config: Config) -> names.Table:
    """Of CLIPTextModel, CLIPTextModelWithProjection and the text's part of CLIPModel."""
    theirs, ours = 'encoder.layers.{}', 'layers/{}'
    rules = [
        *names.embedding('embeddings.token_embedding', 'token_embedding'),
        *names.embedding('embeddings.position_embedding', 'position_embedding'),
        *names.norm(f'{theirs}.layer_norm1', f'{ours}/attn_norm'),
        *names.norm(f'{theirs}.layer_norm2', f'{ours}/mlp_norm'),
        *names.linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/down'),
        *names.norm('final_layer_norm', 'norm'),
    ]
    for their, our in zip(('q', 'k', 'v', 'out'), PROJECTIONS):
        rules += names.linear(f'{theirs}.self_attn.{their}_proj', f'{ours}/attn/{our}')
    # transformers 5 stores the bare model without a prefix, earlier ones with it.
    alternatives = [names.under(rules, f'{prefix}', 'decoder/') for prefix in ('text_model.', '')]
    if not _projects(config):
        alternatives.reverse()
    return [
        *alternatives[0],
        *alternatives[1],
        *names.linear('text_projection', 'projection'),
    ]


# Position numbers, which some versions store, are no parameters.
UNUSED = (r'(text_model\.)?embeddings\.position_ids',)
# The pictures' side of CLIP.
PICTURES = (r'vision_model\..*', r'visual_projection\.weight', r'logit_scale')
FAMILIES = (
    Family(
        'CLIP text',
        ('clip_text_model',),
        module,
        inputs,
        table,
        UNUSED,
        ClipTextEncoder,
        'transformers CLIPTextModel and CLIPTextModelWithProjection',
    ),
    Family(
        'CLIP, its text encoder',
        ('clip',),
        module,
        inputs,
        table,
        (*UNUSED, *PICTURES),
        ClipTextEncoder,
        'transformers CLIPModel.get_text_features',
    ),
)
