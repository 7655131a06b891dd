"""MusicGen as transformers stores it, and its language model alone."""

import jax.numpy as jnp
import numpy as np

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.families import encodec, t5
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.families.whisper import ATTENTION
from alm_jax.interop.family import Config, Family
from alm_jax.interop.text_to_music import TextToMusic
from alm_jax.models.musicgen import Musicgen
from alm_jax.models.text.musicgen import MusicgenDecoder, Size

PARTS = {'text_encoder': 't5', 'audio_encoder': 'encodec'}


def decoder(config: Config) -> MusicgenDecoder:
    """What a MusicgenDecoderConfig describes."""
    activation = config.get('activation_function', 'gelu')
    size = Size(
        width=config.get('hidden_size', 1024),
        depth=config.get('num_hidden_layers', 24),
        heads=config.get('num_attention_heads', 16),
        mlp_width=config.get('ffn_dim', 4096),
        activation=config_lib.choose(ACTIVATIONS, activation, where='activation_function'),
        codebooks=config.get('num_codebooks', 4),
        rows=config.get('vocab_size', 2048),
        channels=config.get('audio_channels', 1),
    )
    return MusicgenDecoder(size)


def decoder_inputs(config: Config) -> tuple:
    """(codes, mask, memory) of two positions."""
    size = decoder(config).size
    codes = jnp.zeros((1, size.codebooks, 2), jnp.int32)
    return codes, jnp.ones((1, 2), bool), jnp.zeros((1, 2, size.width))


def module(config: Config) -> Musicgen:
    """What a MusicgenConfig describes."""
    for part, kind in PARTS.items():
        if (given := config.get(part, {}).get('model_type', kind)) != kind:
            raise ConfigError(f'config.json: {part} is a {given!r}; only {kind!r} is read.')
    return Musicgen(
        t5.encoder(config.get('text_encoder', {})),
        decoder(config.get('decoder', {})),
        encodec.module(config.get('audio_encoder', {})),
    )


def inputs(config: Config) -> tuple:
    """(token ids, token mask, codes) of one text."""
    ids = jnp.zeros((1, 4), jnp.int32)
    return ids, jnp.ones((1, 4), bool), decoder_inputs(config.get('decoder', {}))[0]


def _stack(arrays):
    return [np.concatenate(arrays)]


def _heads(arrays):
    return [np.concatenate(arrays).T]


def decoder_table(config: Config) -> names.Table:
    """Of MusicgenForCausalLM; its tables and its heads are one of ours each."""
    count = config.get('num_codebooks', 4)

    def split(arrays):
        return np.split(arrays[0], count)

    def split_heads(arrays):
        return np.split(arrays[0].T, count)

    tables = tuple(f'model.decoder.embed_tokens.{i}.weight' for i in range(count))
    heads = tuple(f'lm_heads.{i}.weight' for i in range(count))
    theirs, ours = 'model.decoder.layers.{}', 'layers/{}'
    rules = [
        names.Rule(tables, ('token_embedding/embedding',), _stack, split),
        names.Rule(heads, ('lm_heads/kernel',), _heads, split_heads),
        *names.norm('model.decoder.layer_norm', 'norm'),
        *names.norm(f'{theirs}.final_layer_norm', f'{ours}/mlp_norm'),
        *names.linear(f'{theirs}.fc1', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.fc2', f'{ours}/mlp/down'),
    ]
    for their, our in (('self_attn', 'attn'), ('encoder_attn', 'cross_attn')):
        rules += names.norm(f'{theirs}.{their}_layer_norm', f'{ours}/{our}_norm')
        for part, name in ATTENTION:
            rules += names.linear(f'{theirs}.{their}.{part}', f'{ours}/{our}/{name}')
    return rules


def table(config: Config) -> names.Table:
    """Of MusicgenForConditionalGeneration."""
    text, audio = config.get('text_encoder', {}), config.get('audio_encoder', {})
    return [
        *names.under(t5.encoder_table(text), 'text_encoder.', 'text_encoder/'),
        *names.under(encodec.table(audio), 'audio_encoder.', 'audio_encoder/'),
        *names.under(decoder_table(config.get('decoder', {})), 'decoder.', 'decoder/'),
        *names.linear('enc_to_dec_proj', 'projection'),
    ]


# Sinusoids, which some versions store, are no parameters; the text's table may be stored twice.
POSITIONS = r'(decoder\.)?model\.decoder\.embed_positions\.weights'
FAMILIES = (
    Family(
        'MusicGen',
        ('musicgen',),
        module,
        inputs,
        table,
        (POSITIONS, r'text_encoder\.encoder\.embed_tokens\.weight'),
        TextToMusic,
        'transformers MusicgenForConditionalGeneration',
    ),
    Family(
        'MusicGen decoder',
        ('musicgen_decoder',),
        decoder,
        decoder_inputs,
        decoder_table,
        (POSITIONS,),
        reference='transformers MusicgenForCausalLM',
    ),
)
