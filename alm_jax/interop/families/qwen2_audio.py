"""Qwen2-Audio as transformers stores it: Whisper's encoder pooled by two, one map, Qwen2."""

from alm_jax.interop import audio_lm_config, names
from alm_jax.interop.audio_lm import AudioLm
from alm_jax.interop.family import Config, Family
from alm_jax.models.connectors import MlpConnector
from alm_jax.models.two_head import TwoHead


class Qwen2Audio(AudioLm):
    """Its processor hears the first 30 s of a clip; what follows is cut."""

    slot = '<|audio_bos|>{}<|audio_eos|>'


def module(config: Config) -> TwoHead:
    """The model that a Qwen2AudioConfig describes."""
    audio = audio_lm_config.encoder(config, masked=True, masked_stem=False, pool=2)
    text = audio_lm_config.decoder(config, 'qwen2')
    connector = MlpConnector(text.size.width)
    return audio_lm_config.module(config, audio, connector, text, 151_646)


def table(config: Config) -> names.Table:
    """Of Qwen2AudioForConditionalGeneration."""
    return audio_lm_config.table(config, names.linear('linear', 'out'))


FAMILIES = (
    Family(
        'Qwen2-Audio',
        ('qwen2_audio',),
        module,
        audio_lm_config.inputs,
        table,
        model=Qwen2Audio,
        reference='transformers Qwen2AudioForConditionalGeneration',
    ),
)
