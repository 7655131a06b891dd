"""Learned prompts and prefixes of a decoder as the PEFT library stores them, in and out.

prompt = read(model, 'my-prompt')        # an array for adapters.prompts.with_prompt
prefix = read(model, 'my-prefix')        # {'key', 'value'} for adapters.prompts.with_prefix
write(model, prompt, 'mine')
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from alm_jax.config import ConfigError
from alm_jax.interop import tensor_files
from alm_jax.interop.family import Pretrained
from alm_jax.interop.peft import CONFIG, WEIGHTS

TENSOR = 'prompt_embeddings'
PROMPT, PREFIX = 'PROMPT_TUNING', 'PREFIX_TUNING'
NAMES = ('key', 'value')


def read(model: Pretrained, path: str | os.PathLike) -> Any:
    """float32 [n, d] of a prompt, or {'key', 'value'} [l, n, kv_heads, head_dim] of a prefix.

    Raises:
      ConfigError: another kind of adapter, or one of another size; names the file and the key.
    """
    folder = pathlib.Path(path).expanduser()
    kind = tensor_files.read_config(folder, CONFIG).get('peft_type')
    if kind not in (PROMPT, PREFIX):
        raise ConfigError(
            f'{folder / CONFIG}: peft_type {kind!r} is not read; {PROMPT!r} and {PREFIX!r} are.'
        )
    files = tensor_files.TensorFiles(folder / WEIGHTS)
    if list(files) != [TENSOR]:
        raise ConfigError(f'{folder / WEIGHTS} has {", ".join(files)}; expected {TENSOR}.')
    stored = np.asarray(files[TENSOR], np.float32)
    layers, kv_heads, head_dim = _slots(model)
    width = model.module.size.width if kind == PROMPT else layers * 2 * kv_heads * head_dim
    if stored.ndim != 2 or stored.shape[1] != width:
        raise ConfigError(
            f'{folder / WEIGHTS}: {TENSOR} has shape {stored.shape}; expected (n, {width}).'
        )
    if kind == PROMPT:
        return jnp.asarray(stored)
    rows = stored.reshape(-1, layers, 2, kv_heads, head_dim)
    return {name: jnp.asarray(rows[:, :, i].swapaxes(0, 1)) for i, name in enumerate(NAMES)}


def write(model: Pretrained, learned: Any, path: str | os.PathLike) -> None:
    """Writes a folder that PEFT loads onto the same model.

    Args:
      learned: as ``read`` gives it.

    Raises:
      ConfigError: the folder is not empty.
    """
    folder = pathlib.Path(path).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f'{folder} is not empty; give a new folder.')
    layers, kv_heads, head_dim = _slots(model)
    config = {
        'peft_type': PROMPT,
        'task_type': 'CAUSAL_LM',
        'base_model_name_or_path': str(model.folder),
        'inference_mode': True,
        'num_layers': layers,
        'num_transformer_submodules': 1,
        'num_attention_heads': model.module.size.heads,
        'token_dim': model.module.size.width,
    }
    if isinstance(learned, Mapping):
        rows = np.stack([np.asarray(learned[name]).swapaxes(0, 1) for name in NAMES], axis=2)
        stored = rows.reshape(len(rows), -1)
        config |= {'peft_type': PREFIX, 'prefix_projection': False}
        # Grouped queries: PEFT counts the heads of keys and values, and their sizes.
        config |= {'num_attention_heads': kv_heads, 'token_dim': kv_heads * head_dim}
    else:
        stored = np.asarray(learned)
        config['prompt_tuning_init'] = 'RANDOM'
    config['num_virtual_tokens'] = len(stored)
    tensor_files.write(folder, {TENSOR: stored})
    os.replace(folder / tensor_files.WEIGHTS, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + '\n')


def _slots(model: Pretrained) -> tuple[int, int, int]:
    """Layers, heads of keys and values, and their size."""
    size = model.module.size
    return size.depth, size.kv_heads or size.heads, size.head_dim or size.width // size.heads
