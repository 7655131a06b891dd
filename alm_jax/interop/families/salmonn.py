"""SALMONN under its own names: Whisper, BEATs, a window-level Q-Former and Llama with LoRA.

UNPROVEN as a whole: its code is in no package, so nothing but its parts is compared with what
others published: the encoders, the Q-Former (transformers' Blip2QFormerModel), and the decoder with
its low-rank terms (transformers' Llama in peft).
How they are put together follows its repository (bytedance/SALMONN, models/salmonn.py) by reading.

Its four checkpoints become one folder by ``python -m alm_jax.interop.salmonn``. config.json has the
model's own keys (num_speech_query_token, second_per_window, second_stride, lora, lora_rank,
lora_alpha), and 'audio_config' (a WhisperConfig), 'beats_config' (a cfg), 'text_config' (a
LlamaConfig) and 'qformer_config' (a BertConfig); the 13B's are the default.
"""

import dataclasses

import jax.numpy as jnp

from alm_jax.interop import audio_lm_config, names
from alm_jax.interop.families import beats, llama, whisper
from alm_jax.interop.family import Config, Family
from alm_jax.interop.salmonn import AUDIO_ID, Salmonn
from alm_jax.models.audio.concatenated import Concatenated
from alm_jax.models.connectors import QFormerConnector
from alm_jax.models.layers.dense import LowRank
from alm_jax.models.qformer import Size
from alm_jax.models.two_head import TwoHead

SPEECH = {'num_mel_bins': 80}  # large-v2
VICUNA_13B = {
    'hidden_size': 5120,
    'intermediate_size': 13_824,
    'num_hidden_layers': 40,
    'num_attention_heads': 40,
    'rms_norm_eps': 1e-6,
}
TARGETS = {'query': 'q_proj', 'value': 'v_proj'}  # peft's of a Llama
VECTORS, SECONDS = 1500, 30.0  # of Whisper's window, which the windows' seconds are shares of


def _text_config(config: Config) -> Config:
    return {**VICUNA_13B, **config.get('text_config', {})}


def module(config: Config) -> TwoHead:
    """The whole."""
    speech = audio_lm_config.encoder({'audio_config': {**SPEECH, **config.get('audio_config', {})}})
    sounds = beats.module({**config.get('beats_config', {}), 'finetuned_model': False})
    text = llama.module(_text_config(config))
    if config.get('lora', True):
        rank = config.get('lora_rank', 8)
        lora = LowRank(rank, config.get('lora_alpha', 32) / rank, tuple(TARGETS))
        text = text.clone(size=dataclasses.replace(text.size, lora=lora))
    bins = (speech.variant.mel_bins, sounds.variant.mel_bins)
    return TwoHead(
        Concatenated((speech, sounds), bins, speech.variant.positions),
        QFormerConnector(
            text.size.width,
            qformer_size(config),
            window=round(VECTORS * config.get('second_per_window', 0.333333) / SECONDS),
            stride=round(VECTORS * config.get('second_stride', 0.333333) / SECONDS),
        ),
        text,
        AUDIO_ID,
    )


def qformer_size(config: Config) -> Size:
    """Of the Q-Former: bert-base-uncased's, two layers, each with cross-attention."""
    bert = config.get('qformer_config', {})
    return Size(
        width=bert.get('hidden_size', 768),
        depth=bert.get('num_hidden_layers', 2),
        heads=bert.get('num_attention_heads', 12),
        mlp_width=bert.get('intermediate_size', 3072),
        queries=config.get('num_speech_query_token', 1),
    )


def inputs(config: Config) -> tuple:
    """(features, frames, token ids) of one text with one window."""
    audio = module(config).audio
    features = jnp.zeros((1, 1, 2 * audio.positions, sum(audio.bins)))
    return features, jnp.full((1, 1), 16, jnp.int32), jnp.zeros((1, 4), jnp.int32)


def qformer_table(attention: str = 'self') -> names.Table:
    """Of a Q-Former's encoder; ``attention`` is what it calls the three projections' module."""
    theirs, ours = 'encoder.layer.{}', 'layers/{}'
    rules = [
        *names.linear(f'{theirs}.intermediate_query.dense', f'{ours}/mlp/up'),
        *names.linear(f'{theirs}.output_query.dense', f'{ours}/mlp/down'),
        *names.norm(f'{theirs}.output_query.LayerNorm', f'{ours}/mlp_norm'),
    ]
    for their, our in (('attention', 'attn'), ('crossattention', 'cross_attn')):
        for part in ('query', 'key', 'value'):
            rules += names.linear(f'{theirs}.{their}.{attention}.{part}', f'{ours}/{our}/{part}')
        rules += names.linear(f'{theirs}.{their}.output.dense', f'{ours}/{our}/out')
        rules += names.norm(f'{theirs}.{their}.output.LayerNorm', f'{ours}/{our}_norm')
    return rules


def _lora_table() -> names.Table:
    """peft's names, those with the adapter's are written; a base layer has two as well."""
    rules = []
    for our, their in TARGETS.items():
        place, ours = f'model.layers.{{}}.self_attn.{their}', f'layers/{{}}/attn/{our}'
        for adapter in ('.default', ''):
            for part in ('a', 'b'):
                turned = names.linear(f'{place}.lora_{part.upper()}{adapter}', f'{ours}/kernel')[0]
                rules.append(dataclasses.replace(turned, ours=(f'{ours}/lora_{part}',)))
        rules += names.linear(f'{place}.base_layer', ours)
    return rules


def table(config: Config) -> names.Table:
    """Of SALMONN."""
    text = llama.table(_text_config(config))
    tuned = [*text, *_lora_table()]
    connector = [
        names.Rule(
            ('speech_query_tokens',),
            ('connector/qformer/queries',),
            lambda arrays: [arrays[0][0]],
            lambda arrays: [arrays[0][None]],
        ),
        *names.norm('speech_Qformer.bert.embeddings.LayerNorm', 'connector/qformer/embedding_norm'),
        *names.under(qformer_table(), 'speech_Qformer.bert.', 'connector/qformer/'),
        *names.linear('speech_llama_proj', 'connector/out'),
    ]
    whole = 'llama_model.base_model.model.' if config.get('lora', True) else 'llama_model.'
    return [
        *names.under(whisper.encoder_table(), 'speech_encoder.', 'audio/encoders_0/'),
        *names.under(beats.table(config.get('beats_config', {})), 'beats.', 'audio/encoders_1/'),
        *names.norm('ln_speech', 'audio/norm_0'),
        *names.norm('ln_audio', 'audio/norm_1'),
        *connector,
        *names.under(tuned, whole, 'text/'),
    ]


# The tags of a fine-tuned BEATs, which are not asked for; frequencies of rotations; positions that
# some versions store.
UNUSED = (
    r'beats\.predictor\.(weight|bias)',
    r'llama_model\..*rotary_emb\.inv_freq',
    r'speech_Qformer\.bert\.embeddings\.position_ids',
)
FAMILIES = (
    Family(
        'SALMONN',
        ('salmonn',),
        module,
        inputs,
        table,
        UNUSED,
        model=Salmonn,
        reference='UNPROVEN as a whole; its parts by transformers, speechbrain and peft',
    ),
)
