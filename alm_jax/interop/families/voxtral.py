"""Voxtral as transformers stores it: Whisper's encoder, an MLP over four frames, Llama."""

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.interop import audio_lm_config, names
from alm_jax.interop.audio_lm import AudioLm
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.models.connectors import MlpConnector
from alm_jax.models.two_head import TwoHead

# Of a text_config that lacks them, as VoxtralConfig has it.
TEXT = {
    'vocab_size': 131_072,
    'hidden_size': 3072,
    'intermediate_size': 8192,
    'num_hidden_layers': 30,
    'num_key_value_heads': 8,
    'max_position_embeddings': 131_072,
    'rms_norm_eps': 1e-5,
    'rope_theta': 100_000_000.0,
    'head_dim': 128,
}


class Voxtral(AudioLm):
    """Its processor fills clips up to whole windows of 30 s, silence included; any number."""

    slot = '[BEGIN_AUDIO]{}'
    turn = '[INST]{}[/INST]'
    answer = '{}</s>'
    max_windows = None
    whole = True


def module(config: Config) -> TwoHead:
    """The model that a VoxtralConfig describes."""
    audio = audio_lm_config.encoder(config)
    text = audio_lm_config.decoder(config, 'llama', TEXT)
    name = config.get('projector_hidden_act', 'gelu')
    size = audio.variant
    stack, rest = divmod(size.mlp_width, size.width)
    if rest:
        raise ConfigError(
            f'audio_config: the projector takes {size.mlp_width} numbers, intermediate_size, which '
            f'are no whole number of frames of {size.width}, hidden_size.'
        )
    connector = MlpConnector(
        text.size.width,
        hidden=text.size.width,
        stack=stack,
        activation=config_lib.choose(ACTIVATIONS, name, where='projector_hidden_act'),
        use_bias=False,
    )
    return audio_lm_config.module(config, audio, connector, text, 24)


def table(config: Config) -> names.Table:
    """Of VoxtralForConditionalGeneration."""
    connector = [*names.linear('linear_1', 'hidden'), *names.linear('linear_2', 'out')]
    return audio_lm_config.table(config, connector)


FAMILIES = (
    Family(
        'Voxtral',
        ('voxtral',),
        module,
        audio_lm_config.inputs,
        table,
        model=Voxtral,
        reference='transformers VoxtralForConditionalGeneration',
    ),
)
