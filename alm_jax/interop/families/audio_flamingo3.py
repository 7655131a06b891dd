"""Audio Flamingo 3 as transformers stores it: Whisper's encoder pooled by two, an MLP, Qwen2."""

from alm_jax import config as config_lib
from alm_jax.interop import audio_lm_config, names
from alm_jax.interop.audio_lm import AudioLm
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.models.connectors import MlpConnector
from alm_jax.models.two_head import TwoHead


class AudioFlamingo3(AudioLm):
    """Its processor cuts a clip into windows of 30 s, and hears the first 10 minutes."""

    max_windows = 20


def module(config: Config) -> TwoHead:
    """The model that an AudioFlamingo3Config describes."""
    audio = audio_lm_config.encoder(config, masked=True, masked_stem=False, pool=2)
    text = audio_lm_config.decoder(config, 'qwen2')
    name = config.get('projector_hidden_act', 'gelu')
    connector = MlpConnector(
        text.size.width,
        hidden=text.size.width,
        activation=config_lib.choose(ACTIVATIONS, name, where='projector_hidden_act'),
        use_bias=config.get('projector_bias', True),
    )
    return audio_lm_config.module(config, audio, connector, text, 151_669)


def table(config: Config) -> names.Table:
    """Of AudioFlamingo3ForConditionalGeneration."""
    connector = [*names.linear('linear_1', 'hidden'), *names.linear('linear_2', 'out')]
    return audio_lm_config.table(config, connector)


FAMILIES = (
    Family(
        'Audio Flamingo 3',
        ('audioflamingo3',),
        module,
        audio_lm_config.inputs,
        table,
        model=AudioFlamingo3,
        reference='transformers AudioFlamingo3ForConditionalGeneration',
    ),
)
