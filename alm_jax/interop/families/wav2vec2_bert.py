"""w2v-BERT 2.0 as transformers stores it, with or without a CTC head, and its front end."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from alm_jax import config as config_lib
from alm_jax.audio.log_mel import log_mel
from alm_jax.audio.presets import PRESETS, FrontEnd
from alm_jax.config import ConfigError
from alm_jax.interop import names
from alm_jax.interop.families import wav2vec2, wav2vec2_conformer
from alm_jax.interop.families.bert import ACTIVATIONS
from alm_jax.interop.family import Config, Family
from alm_jax.interop.speech_encoder import PREPROCESSOR, TINY, SpeechEncoder
from alm_jax.interop.tensor_files import read_config
from alm_jax.models.audio.wav2vec2_bert import STACKED, Size, Wav2Vec2Bert

NOT_READ = ('add_adapter', 'use_intermediate_ffn_before_adapter')


def module(config: Config) -> Wav2Vec2Bert:
    """Of a Wav2Vec2BertConfig."""
    for key in NOT_READ:
        if config.get(key):
            raise ConfigError(f'config.json: {key} is {config[key]}; adapters are not read.')
    mask_rates = config.get('mask_time_prob', 0.05), config.get('mask_feature_prob', 0.0)
    return Wav2Vec2Bert(
        Size(
            width=config.get('hidden_size', 1024),
            depth=config.get('num_hidden_layers', 24),
            heads=config.get('num_attention_heads', 16),
            mel_bins=config.get('feature_projection_input_dim', 160) // STACKED,
            mlp_width=config.get('intermediate_size', 4096),
            positions=config.get('position_embeddings_type', 'relative_key') or 'none',
            behind=config.get('left_max_position_embeddings', 64),
            ahead=config.get('right_max_position_embeddings', 8),
            rotary_base=config.get('rotary_embedding_base', 10_000),
            conv_module_size=config.get('conv_depthwise_kernel_size', 31),
            norm_epsilon=config.get('layer_norm_eps', 1e-5),
            activation=config_lib.choose(
                ACTIVATIONS, config.get('hidden_act', 'swish'), where='hidden_act'
            ),
            mask_embedding=max(mask_rates) > 0,
            vocabulary=wav2vec2.vocabulary(config),
        )
    )


def inputs(config: Config) -> tuple:
    """(log-mel,) of one short clip."""
    return (jnp.zeros((1, 2 * STACKED, module(config).variant.mel_bins)),)


def table(config: Config) -> names.Table:
    """Of Wav2Vec2BertModel and Wav2Vec2BertForCTC."""
    place, ours = 'encoder.layers.{}', 'layers/{}'
    rules = [
        *names.norm('feature_projection.layer_norm', 'projection_norm'),
        *names.linear('feature_projection.projection', 'projection'),
        *names.array('masked_spec_embed', 'mask_embedding'),
        *wav2vec2_conformer.block_table(),
        *names.norm(f'{place}.conv_module.depthwise_layer_norm', f'{ours}/conv/inner_norm'),
        *names.embedding(f'{place}.self_attn.distance_embedding', f'{ours}/attn/relative'),
    ]
    return wav2vec2.either(config, rules, 'wav2vec2_bert.')


@dataclasses.dataclass(frozen=True)
class Features:
    """The front end of transformers' SeamlessM4TFeatureExtractor.

    Kaldi's log-mel, each bin of a clip brought to mean 0 and variance 1 over its frames.

    Attributes:
      front_end: constants of the log-mel.
      padding: value of frames behind a clip's end.
    """

    front_end: FrontEnd = PRESETS['w2v_bert']
    padding: float = 0.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> 'Features':
        """Reads a preprocessor_config.json. Raises ConfigError for what is not supported."""
        front_end = cls.front_end
        wanted = {'padding_side': 'right', 'stride': STACKED}
        wanted |= {'sampling_rate': front_end.sampling_rate}
        for key, value in wanted.items():
            if config.get(key, value) != value:
                raise ConfigError(f'{PREPROCESSOR}: {key} is {config[key]!r}, not {value!r}.')
        bins = config.get('num_mel_bins', front_end.n_mels)
        return cls(dataclasses.replace(front_end, n_mels=bins), config.get('padding_value', 0.0))

    def __call__(self, clips: Sequence[np.ndarray]):
        """(float32 [b, t, f], int32 [b] frames) of clips [n_i]; t is even.

        A clip too short for two frames is zero-padded, for one frame has no variance.
        """
        shortest = self.front_end.win_length + self.front_end.hop_length
        mels = []
        for clip in clips:
            x = np.pad(clip, (0, max(shortest - len(clip), 0)))
            mel = log_mel(x[None], self.front_end)[0]
            mel = mel - mel.mean(axis=0)
            mels.append(mel / np.sqrt(mel.var(axis=0, ddof=1) + TINY))
        frames = np.array([len(mel) for mel in mels], np.int32)
        length = -(-frames.max() // STACKED) * STACKED
        batch = np.full((len(mels), length, self.front_end.n_mels), self.padding, np.float32)
        for row, mel in zip(batch, mels):
            row[: len(mel)] = mel
        return batch, frames


class MelSpeechEncoder(SpeechEncoder):
    """A w2v-BERT 2.0 checkpoint: ``encode``, and ``transcribe`` with a CTC head.

    Calling it: (mel_btf, num_frames_b) -> see ``models.audio.wav2vec2_bert.Wav2Vec2Bert``.
    """

    @functools.cached_property
    def features(self) -> Features:
        """What preprocessor_config.json says, or its defaults."""
        if not (self.folder / PREPROCESSOR).is_file():
            return Features()
        return Features.of(read_config(self.folder, PREPROCESSOR))

    @property
    def sampling_rate(self) -> int:
        """The encoder's rate in Hz; waveforms of another rate are resampled to it."""
        return self.features.front_end.sampling_rate

    def inputs(self, clips: Sequence[np.ndarray]) -> tuple[Any, ...]:
        """(mel_btf, num_frames_b)."""
        return self.features(clips)


UNUSED = (r'(.*\.)?encoder\.embed_positions\.inv_freq',)
FAMILIES = (
    Family(
        'w2v-BERT 2.0',
        ('wav2vec2-bert',),
        module,
        inputs,
        table,
        UNUSED,
        MelSpeechEncoder,
        'transformers Wav2Vec2BertModel, Wav2Vec2BertForCTC',
    ),
)
