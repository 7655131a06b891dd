"""CTranslate2 Whisper folders, such as faster-whisper's, as folders of transformers.

model = from_pretrained(ctranslate2_folder.cached('faster-whisper-tiny.en'))
"""

import hashlib
import mmap
import os
import pathlib
import re
from collections.abc import Mapping

import numpy as np
import tokenizers

from alm_jax.data import location
from alm_jax.interop import converted, tensor_files
from alm_jax.interop.ctranslate2 import CTranslate2Error, read_variables

FORMAT = 1  # of the cache; raise it when what is written changes
NEEDED = ('model.bin', 'config.json', 'tokenizer.json')
FEATURES = 'preprocessor_config.json'
HEAD_DIM = 64  # of all published sizes; before revision 3 the number of heads is not stored
ENGLISH_VOCABULARY = 51864  # any larger one is multilingual
GELU = 3  # among their activations, the exact one
START, END = '<|startoftranscript|>', '<|endoftext|>'
TASKS = ('transcribe', 'translate')
NO_TIMESTAMPS, PREVIOUS = '<|notimestamps|>', '<|startofprev|>'

# Their linear layers -> transformers'; of fused ones, the parts in order.
_SELF = {'linear_0': ('q_proj', 'k_proj', 'v_proj'), 'linear_1': ('out_proj',)}
_CROSS = {'linear_0': ('q_proj',), 'linear_1': ('k_proj', 'v_proj'), 'linear_2': ('out_proj',)}
_ATTENTIONS = {'self_attention': ('self_attn', _SELF), 'attention': ('encoder_attn', _CROSS)}
_NORM = {'gamma': 'weight', 'beta': 'bias'}
_PLAIN = {
    'layer_norm': 'layer_norm',
    'embeddings': 'embed_tokens',
    'conv1': 'conv1',
    'conv2': 'conv2',
}
# What describes the model instead of being a part of it, and the head, which is tied.
_DESCRIPTION = re.compile(
    r'(encoder|decoder)/(num_heads|activation|alibi|alignment_heads|alignment_layer|pre_norm'
    r'|scale_embeddings|start_from_zero_embedding|projection/weight|layernorm_embedding)'
)


def to_transformers(
    variables: Mapping[str, np.ndarray], file: str = 'model.bin'
) -> dict[str, np.ndarray]:
    """The tensors under the names of transformers' WhisperForConditionalGeneration.

    Raises:
      CTranslate2Error: a variable that has no place there, or a bias on keys that is not zero.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, value in variables.items():
        if _DESCRIPTION.fullmatch(name):
            continue
        names = transformers_names(name)
        if not names or not value.ndim or len(value) % len(names):
            raise CTranslate2Error(f'{file}: {name} {value.shape} has no place in Whisper.')
        for their, part in zip(names, np.split(value, len(names))):
            if not their.endswith('k_proj.bias'):
                tensors[their] = np.ascontiguousarray(part)
            elif np.any(part):
                raise CTranslate2Error(f'{file}: {name} has a bias on keys, which Whisper has not.')
    return tensors


def transformers_names(name: str) -> list[str]:
    """'encoder/layer_0/ffn/linear_0/weight' -> ['model.encoder.layers.0.fc1.weight'].

    Of a fused layer the parts in order; [] for what has no place there.
    """
    if '/' not in name:
        return []
    part, *middle, leaf = name.split('/')
    head = f'model.{part}.'
    leaf = _NORM.get(leaf, leaf)
    if middle == ['position_encodings'] and leaf == 'encodings':
        return [f'{head}embed_positions.weight']
    if len(middle) == 1 and middle[0] in _PLAIN:
        return [f'{head}{_PLAIN[middle[0]]}.{leaf}']
    if len(middle) != 3 or not (layer := re.fullmatch(r'layer_(\d+)', middle[0])):
        return []
    head, (_, kind, layer_part) = f'{head}layers.{layer[1]}.', middle
    if kind == 'ffn':
        known = {'layer_norm': 'final_layer_norm', 'linear_0': 'fc1', 'linear_1': 'fc2'}
        return [f'{head}{known[layer_part]}.{leaf}'] if layer_part in known else []
    if kind not in _ATTENTIONS:
        return []
    theirs, linears = _ATTENTIONS[kind]
    if layer_part == 'layer_norm':
        return [f'{head}{theirs}_layer_norm.{leaf}']
    return [f'{head}{theirs}.{one}.{leaf}' for one in linears.get(layer_part, ())]


def to_folder(
    data: bytes | mmap.mmap, config: Mapping, tokenizer: bytes, file: str = 'model.bin'
) -> converted.Content:
    """(tensors, files) of the folder that transformers would have for a model.

    Args:
      data: content of model.bin.
      config: of CTranslate2's config.json: 'suppress_ids', 'suppress_ids_begin',
        'alignment_heads'.
      tokenizer: content of tokenizer.json.
      file: for messages.

    Raises:
      CTranslate2Error: see ``read_variables`` and ``to_transformers``; no tokenizer.json.
    """
    variables = read_variables(data, file)
    tensors = to_transformers(variables, file)
    ids = _special_ids(tokenizer, file)
    written = {
        'config.json': _config(variables, tensors, ids, file),
        'generation_config.json': _generation_config(config, tensors, ids),
        FEATURES: {
            'feature_extractor_type': 'WhisperFeatureExtractor',
            'feature_size': tensors['model.encoder.conv1.weight'].shape[1],
            'sampling_rate': 16_000,
            'n_fft': 400,
            'hop_length': 160,
            'chunk_length': 30,
        },
    }
    files = {name: converted.json_bytes(content) for name, content in written.items()}
    return tensors, {**files, 'tokenizer.json': tokenizer}


def _special_ids(tokenizer: bytes, file: str) -> dict[str, int]:
    """'<|en|>' and its kind -> id."""
    try:
        vocabulary = tokenizers.Tokenizer.from_buffer(tokenizer).get_vocab()
    except Exception as error:  # the library raises bare Exception
        raise CTranslate2Error(f'{file}: its tokenizer.json cannot be read: {error}.') from error
    ids = {token: i for token, i in vocabulary.items() if re.fullmatch(r'<\|\w+\|>', token)}
    for token in (END, START, NO_TIMESTAMPS, PREVIOUS, *(f'<|{task}|>' for task in TASKS)):
        if token not in ids:
            raise CTranslate2Error(f'{file}: its tokenizer.json has no {token}.')
    return ids


def _config(variables, tensors, ids, file) -> dict:
    def shape(part, name, axes=2):
        key = f'model.{part}.{name}'
        if key not in tensors or tensors[key].ndim != axes:
            raise CTranslate2Error(
                f'{file}: there is no {key} of {axes} axes, as transformers calls it.'
            )
        return tensors[key].shape

    def number(name, default):
        value = np.asarray(variables.get(name, default))
        if value.size != 1:
            raise CTranslate2Error(f'{file}: {name} {value.shape} is no number.')
        return int(value.item())

    activation = number('decoder/activation', GELU)
    if activation != GELU:
        raise CTranslate2Error(f'{file}: decoder/activation is {activation}, not {GELU} (GELU).')
    width, mel_bins, _ = shape('encoder', 'conv1.weight', 3)
    vocabulary = shape('decoder', 'embed_tokens.weight')[0]
    config = {
        'architectures': ['WhisperForConditionalGeneration'],
        'model_type': 'whisper',
        'activation_function': 'gelu',
        'd_model': width,
        'num_mel_bins': mel_bins,
        'vocab_size': vocabulary,
        'max_source_positions': shape('encoder', 'embed_positions.weight')[0],
        'max_target_positions': shape('decoder', 'embed_positions.weight')[0],
        **_ends(ids),
    }
    for part in ('encoder', 'decoder'):
        layers = {name.split('.')[3] for name in tensors if name.startswith(f'model.{part}.layers')}
        heads = number(f'{part}/num_heads', width // HEAD_DIM)
        config |= {f'{part}_layers': len(layers), f'{part}_attention_heads': heads}
        config[f'{part}_ffn_dim'] = shape(part, 'layers.0.fc1.weight')[0]
    return config


def _ends(ids: Mapping[str, int]) -> dict[str, int]:
    start, end = ids[START], ids[END]
    ends = {'eos_token_id': end, 'pad_token_id': end}
    return {**ends, 'bos_token_id': start, 'decoder_start_token_id': start}


def _generation_config(config, tensors, ids) -> dict:
    """As OpenAI's checkpoints have it in transformers."""
    generation = {
        **_ends(ids),
        'is_multilingual': False,
        'max_initial_timestamp_index': 50,
        'max_length': tensors['model.decoder.embed_positions.weight'].shape[0],
        'no_timestamps_token_id': ids[NO_TIMESTAMPS],
        'prev_sot_token_id': ids[PREVIOUS],
        'suppress_tokens': config.get('suppress_ids') or [],
        'begin_suppress_tokens': config.get('suppress_ids_begin') or [],
        'alignment_heads': config.get('alignment_heads') or [],
    }
    if len(tensors['model.decoder.embed_tokens.weight']) > ENGLISH_VOCABULARY:
        languages = {t: i for t, i in ids.items() if re.fullmatch(r'<\|[a-z]{2,3}\|>', t)}
        tasks = {task: ids[f'<|{task}|>'] for task in TASKS}
        generation |= {'is_multilingual': True, 'lang_to_id': languages, 'task_to_id': tasks}
    return generation


def cached(path: str | os.PathLike, data_dir: str | os.PathLike = '') -> pathlib.Path:
    """The folder, for ``from_pretrained`` and transformers, of a CTranslate2 Whisper folder.

    It is made on first use under ``weights/ctranslate2/`` of ``data_dir`` (see data.location); the
    source is known by its path, size and time of change.

    Args:
      path: a folder with model.bin, config.json and tokenizer.json, as faster-whisper has them.

    Raises:
      CTranslate2Error: a file that is missing, or see ``to_folder``.
    """
    source = _complete(path)
    model, status = source / 'model.bin', (source / 'model.bin').stat()
    known = {'format': FORMAT, 'path': str(model), 'size': status.st_size}
    known['changed'] = status.st_mtime_ns
    key = hashlib.sha256(converted.json_bytes(known)).hexdigest()[:16]
    parent = location.data_dir(str(data_dir)) / 'weights' / 'ctranslate2'
    folder = parent / f'{source.name}-{key}'
    converted.folder(folder, known, lambda: read(source))
    return folder


def read(path: str | os.PathLike) -> converted.Content:
    """``to_folder`` of a CTranslate2 Whisper folder. Raises CTranslate2Error as ``cached``."""
    source = _complete(path)
    model, tokenizer = source / 'model.bin', source / 'tokenizer.json'
    config = tensor_files.read_config(source)
    tensors, files = to_folder(mapped(model), config, tokenizer.read_bytes(), str(model))
    if (source / FEATURES).is_file():
        files = {**files, FEATURES: (source / FEATURES).read_bytes()}
    return tensors, files


def _complete(path: str | os.PathLike) -> pathlib.Path:
    source = pathlib.Path(path).expanduser().absolute()
    for name in NEEDED:
        if not (source / name).is_file():
            raise CTranslate2Error(f'{source} has no {name}.')
    return source


def mapped(path: pathlib.Path) -> mmap.mmap | bytes:
    """The content of a file, of which only what is looked at is read."""
    with path.open('rb') as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return b''
