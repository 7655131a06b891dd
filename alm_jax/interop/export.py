"""A two-tower run as a Hugging Face ClapModel folder: a model trained here is used anywhere.

The audio tower must be HTS-AT, the text tower BERT with a pooler, the projections 'mlp'.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.audio.presets import PRESETS
from alm_jax.config import ConfigError
from alm_jax.interop import names, tensor_files
from alm_jax.interop.families import clap
from alm_jax.models.audio import htsat
from alm_jax.models.text import bert
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training.param_names import flatten_canonical

_ACTIVATIONS = {'gelu': 'gelu', 'gelu_tanh': 'gelu_new', 'relu': 'relu', 'silu': 'silu'}


def export_clap(
    config: ConfigDict, params: Any, extra: Any, tokenizer: Tokenizer, path: str | os.PathLike
) -> pathlib.Path:
    """Writes config.json, model.safetensors, preprocessor_config.json and tokenizer.json.

    The bias of the sigmoid objective has no place in a ClapModel and is left out; both of its
    logit scales are ours. Clips are padded there as in training here, with zeros.

    Args:
      config: of the run.
      params, extra: of a checkpoint.
      tokenizer: of the run.
      path: a new folder.

    Raises:
      ConfigError: an architecture that a ClapModel cannot hold, or a folder that is not empty.
    """
    folder = pathlib.Path(path).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f'{folder} is not empty; give a new folder.')
    written = _clap_config(config, tokenizer)
    arrays = flatten_canonical({**params, **extra})
    arrays.pop('logit_bias', None)
    arrays['text_logit_scale'] = arrays['logit_scale']
    positions = 'text/position_embedding/embedding'
    shift = tokenizer.pad_id + 1 - _text_size(config).first_position
    arrays[positions] = _shifted(np.asarray(arrays[positions]), shift)
    tensor_files.write(folder, names.their_arrays(clap.table(written), arrays))
    _write_json(folder / 'config.json', written)
    _write_json(folder / 'preprocessor_config.json', _preprocessor(config))
    tokenizer.save(folder)
    pad = tokenizer.pad_token
    _write_json(
        folder / 'tokenizer_config.json',
        {'tokenizer_class': 'PreTrainedTokenizerFast', 'pad_token': pad},
    )
    return folder


def _clap_config(config: ConfigDict, tokenizer: Tokenizer) -> dict[str, Any]:
    """The inverse of ``families.clap.module``."""
    model = config.model
    if (model.audio.name, model.text.name, model.projection) != ('htsat', 'bert', 'mlp'):
        raise ConfigError(
            'a ClapModel is model.audio htsat, model.text bert and model.projection mlp, not '
            f'{model.audio.name}, {model.text.name} and {model.projection}.'
        )
    audio = _variant(model.audio, htsat.VARIANTS, htsat.HtsAt.variant)
    text = _text_size(config)
    if not text.pooler:
        raise ConfigError("a ClapModel needs BERT's pooler: config.model.text.variant 'roberta'.")
    rows = text.positions + tokenizer.pad_id + 1 - text.first_position
    return {
        'model_type': 'clap',
        'architectures': ['ClapModel'],
        'projection_dim': model.embed_dim,
        'projection_hidden_act': 'relu',
        'audio_config': {
            'model_type': 'clap_audio_model',
            'patch_embeds_hidden_size': audio.width,
            'hidden_size': audio.width * 2 ** (len(audio.depths) - 1),
            'depths': list(audio.depths),
            'num_hidden_layers': len(audio.depths),
            'num_attention_heads': list(audio.heads),
            'window_size': audio.window,
            'patch_size': audio.patch,
            'patch_stride': [audio.patch, audio.patch],
            'spec_size': audio.image,
            'num_mel_bins': audio.mel_bins,
            'mlp_ratio': audio.mlp_ratio,
            'layer_norm_eps': audio.norm_epsilon,
            'qkv_bias': audio.qkv_bias,
            'enable_patch_layer_norm': audio.patch_norm,
            'enable_fusion': bool(model.audio.get('fusion', False)),
            'aff_block_r': audio.fusion_reduction,
            'projection_dim': model.embed_dim,
        },
        'text_config': {
            'model_type': 'clap_text_model',
            'hidden_size': text.width,
            'num_hidden_layers': text.depth,
            'num_attention_heads': text.heads,
            'intermediate_size': text.mlp_width or 4 * text.width,
            'vocab_size': text.vocabulary,
            'max_position_embeddings': rows,
            'type_vocab_size': text.types,
            'layer_norm_eps': text.norm_epsilon,
            'hidden_act': _ACTIVATIONS[text.activation],
            'pad_token_id': tokenizer.pad_id,
            'projection_dim': model.embed_dim,
        },
    }


def _preprocessor(config: ConfigDict) -> dict[str, Any]:
    front_end = PRESETS[config.front_end.preset]
    if front_end.mel != 'slaney' or front_end.log != 'db':
        raise ConfigError(
            "ClapFeatureExtractor makes dB log-mel on Slaney's scale: config.front_end.preset "
            f'clap, not {front_end.name}.'
        )
    seconds = config.front_end.seconds
    if seconds != int(seconds):
        raise ConfigError(
            f'ClapFeatureExtractor has windows of whole seconds; front_end.seconds is {seconds}.'
        )
    return {
        'feature_extractor_type': 'ClapFeatureExtractor',
        'processor_class': 'ClapProcessor',
        'feature_size': front_end.n_mels,
        'sampling_rate': front_end.sampling_rate,
        'hop_length': front_end.hop_length,
        'fft_window_size': front_end.n_fft,
        'frequency_min': front_end.f_min,
        'frequency_max': front_end.f_max,
        'max_length_s': int(seconds),
        'truncation': 'rand_trunc',
        'padding': 'pad',
        'padding_value': 0.0,
        'return_attention_mask': False,
    }


def _text_size(config: ConfigDict) -> bert.Size:
    return _variant(config.model.text, bert.VARIANTS, bert.Bert.variant)


def _variant(options: Mapping[str, Any], table: Mapping[str, Any], default: str) -> Any:
    name = options.get('variant', default)
    return config_lib.choose(table, name, where='model.*.variant')


def _shifted(rows: np.ndarray, shift: int) -> np.ndarray:
    """Rows moved down, or up over the first ones, which no token uses."""
    if shift >= 0:
        return np.concatenate([np.zeros((shift, rows.shape[1]), rows.dtype), rows])
    return rows[-shift:]


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + '\n')
