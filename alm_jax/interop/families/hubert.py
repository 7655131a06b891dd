"""HuBERT as transformers stores it, with or without a CTC head."""

from alm_jax.interop import names
from alm_jax.interop.families import wav2vec2
from alm_jax.interop.family import Config, Family
from alm_jax.interop.speech_encoder import SpeechEncoder


def table(config: Config) -> names.Table:
    """Of HubertModel and HubertForCTC: wav2vec 2.0's names under its own prefix."""
    return wav2vec2.either(config, [*wav2vec2.stem_table(), *wav2vec2.block_table()], 'hubert.')


FAMILIES = (
    Family(
        'HuBERT',
        ('hubert',),
        wav2vec2.module,
        wav2vec2.inputs,
        table,
        wav2vec2.UNUSED,
        SpeechEncoder,
        'transformers HubertModel, HubertForCTC',
    ),
)
