"""Whisper as transformers stores it; its parts also serve the models that start from them."""

import jax.numpy as jnp

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.interop.whisper import SpeechToText
from alm_jax.models.audio import whisper as audio
from alm_jax.models.text import whisper_decoder as text
from alm_jax.models.whisper import Whisper

ATTENTION = (('q_proj', 'query'), ('k_proj', 'key'), ('v_proj', 'value'), ('out_proj', 'out'))


def _activation(config: Config) -> str:
    name = config.get('activation_function', 'gelu')
    return config_lib.choose(ACTIVATIONS, name, where='activation_function')


def encoder(config: Config) -> audio.WhisperEncoder:
    """The encoder that a WhisperConfig, or another's audio_config with its keys, describes."""
    return audio.WhisperEncoder(
        audio.Size(
            width=config.get('d_model', 384),
            depth=config.get('encoder_layers', 4),
            heads=config.get('encoder_attention_heads', 6),
            mel_bins=config.get('num_mel_bins', 80),
            mlp_width=config.get('encoder_ffn_dim', 1536),
            positions=config.get('max_source_positions', 1500),
            activation=_activation(config),
        )
    )


def decoder(config: Config) -> text.WhisperDecoder:
    """The decoder that a WhisperConfig describes."""
    if not config.get('tie_word_embeddings', True):
        raise ConfigError('config.json: tie_word_embeddings is False; only tied heads are read.')
    return text.WhisperDecoder(
        text.Size(
            width=config.get('d_model', 384),
            depth=config.get('decoder_layers', 4),
            heads=config.get('decoder_attention_heads', 6),
            vocabulary=config.get('vocab_size', 51865),
            mlp_width=config.get('decoder_ffn_dim', 1536),
            positions=config.get('max_target_positions', 448),
            activation=_activation(config),
        )
    )


def module(config: Config) -> Whisper:
    """Both."""
    return Whisper(encoder(config), decoder(config))


def inputs(config: Config) -> tuple:
    """(log-mel, token ids) of one window."""
    return jnp.zeros((1, 4, config.get('num_mel_bins', 80))), jnp.zeros((1, 4), jnp.int32)


def _block_table(attentions: dict[str, str]) -> names.Table:
    """One block, its attentions by their name -> ours."""
    theirs, ours = 'layers.{}', 'layers/{}'
    rules = [
        *names.norm(f'{theirs}.final_layer_norm', f'{ours}/mlp_norm'),
        *names.linear(f'{theirs}.fc1', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.fc2', f'{ours}/mlp/down'),
    ]
    for their, our in attentions.items():
        rules += names.norm(f'{theirs}.{their}_layer_norm', f'{ours}/{our}_norm')
        for part, name in ATTENTION:
            rules += names.linear(f'{theirs}.{their}.{part}', f'{ours}/{our}/{name}')
    return rules


def encoder_table() -> names.Table:
    """Of WhisperEncoder."""
    return [
        *names.conv('conv1', 'conv1'),
        *names.conv('conv2', 'conv2'),
        *names.embedding('embed_positions', 'position_embedding'),
        *_block_table({'self_attn': 'attn'}),
        *names.norm('layer_norm', 'final_norm'),
    ]


def table(config: Config) -> names.Table:
    """Of WhisperForConditionalGeneration and WhisperModel."""
    del config
    rules = [
        *names.embedding('embed_tokens', 'token_embedding'),
        *names.embedding('embed_positions', 'position_embedding'),
        *_block_table({'self_attn': 'attn', 'encoder_attn': 'cross_attn'}),
        *names.norm('layer_norm', 'norm'),
    ]
    rules = [
        *names.under(encoder_table(), 'encoder.', 'encoder/'),
        *names.under(rules, 'decoder.', 'decoder/'),
    ]
    return [*names.under(rules, 'model.'), *rules]


UNUSED = (r'proj_out\.weight',)  # the head, which is the token embedding once more
FAMILIES = (
    Family(
        'Whisper',
        ('whisper',),
        module,
        inputs,
        table,
        UNUSED,
        SpeechToText,
        'transformers WhisperForConditionalGeneration',
    ),
)
