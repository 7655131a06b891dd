"""WavLM as transformers stores it, with or without a CTC head."""

import dataclasses

from alm_jax.interop import names
from alm_jax.interop.families import wav2vec2
from alm_jax.interop.family import Config, Family
from alm_jax.interop.speech_encoder import SpeechEncoder
from alm_jax.models.audio.wav2vec2 import Wav2Vec2


def module(config: Config) -> Wav2Vec2:
    """Of a WavLMConfig."""
    return Wav2Vec2(
        dataclasses.replace(
            wav2vec2.size(config),
            buckets=config.get('num_buckets', 320),
            max_distance=config.get('max_bucket_distance', 800),
        )
    )


def table(config: Config) -> names.Table:
    """Of WavLMModel and WavLMForCTC: wav2vec 2.0's names, and those of the gated biases."""
    theirs, ours = 'encoder.layers.{}.attention', 'layers/{}/attn/bias_gate'
    rules = [
        *wav2vec2.stem_table(),
        *wav2vec2.block_table(),
        # The first layer's, which all share.
        *names.embedding('encoder.layers.0.attention.rel_attn_embed', 'relative_bias'),
        *names.linear(f'{theirs}.gru_rel_pos_linear', f'{ours}/proj'),
        names.Rule(
            (f'{theirs}.gru_rel_pos_const',),
            (f'{ours}/scale',),
            lambda arrays: [arrays[0].reshape(-1)],
            lambda arrays: [arrays[0][None, :, None, None]],
        ),
    ]
    return wav2vec2.either(config, rules, 'wavlm.')


FAMILIES = (
    Family(
        'WavLM',
        ('wavlm',),
        module,
        wav2vec2.inputs,
        table,
        wav2vec2.UNUSED,
        SpeechEncoder,
        'transformers WavLMModel, WavLMForCTC',
    ),
)
