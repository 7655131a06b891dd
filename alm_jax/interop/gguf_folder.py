"""GGUF files as Hugging Face folders: converted once, then as fast to load as any other.

folder = gguf_folder.cached('SmolLM2-135M-Instruct.Q4_1.gguf')   # float32
model = from_pretrained(folder)                                  # or of the .gguf itself
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.data import location
from alm_jax.interop import converted, gguf_config, gguf_tokenizer
from alm_jax.interop.gguf import GgufFile

FORMAT = 1  # of the cache; raise it when what is written changes

# Their names but for '.weight' and '.bias' -> Hugging Face's.
_LAYER = 'model.layers.{}.'
_NAMES = {
    'token_embd': 'model.embed_tokens',
    'output_norm': 'model.norm',
    'output': 'lm_head',
    'blk.{}.attn_norm': _LAYER + 'input_layernorm',
    'blk.{}.attn_q': _LAYER + 'self_attn.q_proj',
    'blk.{}.attn_k': _LAYER + 'self_attn.k_proj',
    'blk.{}.attn_v': _LAYER + 'self_attn.v_proj',
    'blk.{}.attn_output': _LAYER + 'self_attn.o_proj',
    'blk.{}.attn_q_norm': _LAYER + 'self_attn.q_norm',
    'blk.{}.attn_k_norm': _LAYER + 'self_attn.k_norm',
    'blk.{}.ffn_norm': _LAYER + 'post_attention_layernorm',
    'blk.{}.ffn_gate': _LAYER + 'mlp.gate_proj',
    'blk.{}.ffn_up': _LAYER + 'mlp.up_proj',
    'blk.{}.ffn_down': _LAYER + 'mlp.down_proj',
}
_GEMMA_NAMES = {
    **_NAMES,
    'blk.{}.post_attention_norm': _LAYER + 'post_attention_layernorm',
    'blk.{}.ffn_norm': _LAYER + 'pre_feedforward_layernorm',
    'blk.{}.post_ffw_norm': _LAYER + 'post_feedforward_layernorm',
}
_LAYER = 'transformer.h.{}.'
_GPT2_NAMES = {
    'token_embd': 'transformer.wte',
    'position_embd': 'transformer.wpe',
    'output_norm': 'transformer.ln_f',
    'blk.{}.attn_norm': _LAYER + 'ln_1',
    'blk.{}.attn_qkv': _LAYER + 'attn.c_attn',
    'blk.{}.attn_output': _LAYER + 'attn.c_proj',
    'blk.{}.ffn_norm': _LAYER + 'ln_2',
    'blk.{}.ffn_up': _LAYER + 'mlp.c_fc',
    'blk.{}.ffn_down': _LAYER + 'mlp.c_proj',
}
_SPECIAL = {'bos_token': 'bos', 'eos_token': 'eos', 'pad_token': 'padding'}


def cached(path: str | os.PathLike, data_dir: str | os.PathLike = '') -> pathlib.Path:
    """The folder of a GGUF file, converted on first use.

    The file is known by its header, size and time of change. The folder lies under
    ``weights/gguf/`` of ``data_dir`` (see data.location) and appears there only when complete.

    Raises:
      ConfigError: see ``GgufFile``, ``files`` and ``Tensors``.
    """
    path = pathlib.Path(path)
    gguf = GgufFile(path)
    status = path.stat()
    key = hashlib.sha256(gguf.header())
    key.update(f'{status.st_size} {status.st_mtime_ns}'.encode())
    parent = location.data_dir(str(data_dir)) / 'weights' / 'gguf'
    folder = parent / f'{path.stem}-{key.hexdigest()[:16]}'
    source = {'format': FORMAT, 'file': path.name}
    converted.folder(folder, source, lambda: (Tensors(gguf), files(gguf)))
    return folder


def files(gguf: GgufFile) -> dict[str, bytes]:
    """What stands beside the weights: config.json, tokenizer.json and so on.

    Raises:
      ConfigError: an architecture or tokenizer that is not read, a missing key; names them.
    """
    config = gguf_config.config(gguf)
    tokenizer = gguf_tokenizer.build(gguf.metadata, gguf.name)
    ids = gguf_tokenizer.special_ids(gguf.metadata)
    known = {name: ids[key] for name, key in _SPECIAL.items() if key in ids}
    named = {name: tokenizer.id_to_token(token) for name, token in known.items()}
    ends: dict[str, Any] = {f'{name}_id': token for name, token in known.items()}
    if 'eot' in ids and 'eos' in ids:
        ends['eos_token_id'] = sorted({ids['eos'], ids['eot']})
    settings = {'tokenizer_class': 'PreTrainedTokenizerFast', **named}
    made = {
        'config.json': converted.json_bytes({**config, **ends}),
        'generation_config.json': converted.json_bytes(ends),
        'tokenizer.json': tokenizer.to_str().encode(),
        'tokenizer_config.json': converted.json_bytes(settings),
    }
    template = gguf.metadata.get('tokenizer.chat_template')
    if isinstance(template, str):
        made['chat_template.jinja'] = template.encode()
    return made


class Tensors(Mapping):
    """A file's tensors by Hugging Face's names and in its layout, made when asked for."""

    def __init__(self, gguf: GgufFile):
        """Raises ConfigError for a tensor that has no place in the architecture."""
        self._gguf = gguf
        self._kind = gguf_config.architecture(gguf)
        special = {'gpt2': _GPT2_NAMES, 'gemma2': _GEMMA_NAMES, 'gemma3': _GEMMA_NAMES}
        table = special.get(self._kind, _NAMES)
        # Frequencies are in the config; GPT-2's head is its embedding table.
        aside = {'rope_freqs.weight', *(['output.weight'] if self._kind == 'gpt2' else [])}
        self._theirs: dict[str, str] = {}
        for name in set(gguf) - aside:
            stem, _, leaf = name.rpartition('.')
            layer = re.match(r'blk\.(\d+)\.', stem)
            pattern = f'blk.{{}}.{stem[layer.end() :]}' if layer else stem
            if pattern not in table or leaf not in ('weight', 'bias'):
                raise ConfigError(f'{gguf.name}: tensor {name} has no place in a {self._kind}.')
            number = layer.groups() if layer else ()
            self._theirs[f'{table[pattern].format(*number)}.{leaf}'] = name

    def __getitem__(self, name: str) -> np.ndarray:
        theirs = self._theirs[name]
        array = self._gguf[theirs]
        if self._kind == 'llama' and '.attn_q.' in theirs:
            return self._halves(theirs, array, self._heads())
        if self._kind == 'llama' and '.attn_k.' in theirs:
            heads = gguf_config.count(self._gguf, 'attention.head_count_kv', self._heads())
            return self._halves(theirs, array, heads)
        if self._kind.startswith('gemma') and theirs.endswith('norm.weight'):
            return array - 1  # stored as what it multiplies by
        kernel = self._kind == 'gpt2' and array.ndim == 2 and theirs.startswith('blk.')
        return array.T if kernel else array

    def __contains__(self, name: object) -> bool:
        return name in self._theirs

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._theirs))

    def __len__(self) -> int:
        return len(self._theirs)

    def stored_as(self, name: str) -> str:
        """What the file calls the tensor of a Hugging Face name."""
        return self._theirs[name]

    def _heads(self) -> int:
        return gguf_config.count(self._gguf, 'attention.head_count')

    def _halves(self, name: str, array: np.ndarray, heads: int) -> np.ndarray:
        """Rows of each head from neighbouring pairs, as llama.cpp rotates, to halves."""
        if array.ndim == 0 or array.shape[0] % (2 * heads):
            raise ConfigError(f'{self._gguf.name}: {name} {array.shape} is not of {heads} heads.')
        pairs = array.reshape(heads, -1, 2, *array.shape[1:])
        return pairs.swapaxes(1, 2).reshape(array.shape)
