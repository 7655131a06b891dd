"""Audio language models from the sub-configs of their parts: modules and name tables."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from alm_jax import config as config_lib
from alm_jax.interop import names
from alm_jax.interop.families import llama, whisper
from alm_jax.interop.family import Config
from alm_jax.models.audio.whisper import WhisperEncoder
from alm_jax.models.text.decoder import Decoder
from alm_jax.models.two_head import TwoHead

TEXTS = {'llama': llama.module, 'mistral': llama.mistral, 'qwen2': llama.qwen2}
# What the encoders' configs have for missing keys: large-v3's sizes.
ENCODER = {
    'd_model': 1280,
    'encoder_layers': 32,
    'encoder_attention_heads': 20,
    'encoder_ffn_dim': 5120,
    'num_mel_bins': 128,
}
# Later configs' names of the same.
NEWER = {
    'hidden_size': 'd_model',
    'num_hidden_layers': 'encoder_layers',
    'num_attention_heads': 'encoder_attention_heads',
    'intermediate_size': 'encoder_ffn_dim',
}


def encoder(config: Config, **options: Any) -> WhisperEncoder:
    """Whisper's encoder of an audio_config, with further attributes."""
    given = {NEWER.get(key, key): value for key, value in config.get('audio_config', {}).items()}
    return whisper.encoder({**ENCODER, **given}).clone(**options)


def decoder(config: Config, kind: str, defaults: Mapping[str, Any] | None = None) -> Decoder:
    """The decoder of a text_config, of this model_type if it names none; its head is its own.

    Raises:
      ConfigError: for another model_type.
    """
    text = {**(defaults or {}), **config.get('text_config', {}), 'tie_word_embeddings': False}
    name = text.get('model_type', kind)
    return config_lib.choose(TEXTS, name, where='text_config.model_type')(text)


def module(
    config: Config, audio: WhisperEncoder, connector: nn.Module, text: Decoder, default_id: int
) -> TwoHead:
    """The parts together. ``default_id`` of the audio's token is for configs without one."""
    named = config.get('audio_token_id', config.get('audio_token_index'))
    return TwoHead(audio, connector, text, default_id if named is None else named)


def table(config: Config, connector: names.Table) -> names.Table:
    """Of a model whose projector has these names."""
    return [
        *names.under(whisper.encoder_table(), 'audio_tower.', 'audio/'),
        *names.under(connector, 'multi_modal_projector.', 'connector/'),
        *names.under(llama.table(config.get('text_config', {})), 'language_model.', 'text/'),
    ]


def inputs(config: Config) -> tuple:
    """(log-mel, frames, token ids) of one text with one window."""
    mels = config.get('audio_config', {}).get('num_mel_bins', ENCODER['num_mel_bins'])
    frames = jnp.full((1, 1), 16, jnp.int32)
    return jnp.zeros((1, 1, 16, mels)), frames, jnp.zeros((1, 4), jnp.int32)
