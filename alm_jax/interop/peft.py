"""LoRA and DoRA adapters as the PEFT library stores them, in and out.

lora, adapters = read(model, 'my-adapter')         # adapter_config.json, adapter_model.safetensors
adapted = dataclasses.replace(model, params=lora.apply(model.params, adapters))
write(model, lora, adapters, 'mine')               # PeftModel.from_pretrained loads it
"""

import json
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.adapters import selection
from alm_jax.adapters.lora import MAGNITUDE, A, B, Lora
from alm_jax.config import ConfigError
from alm_jax.interop import families, names, tensor_files
from alm_jax.interop.family import Pretrained
from alm_jax.training.param_names import flatten_canonical

CONFIG, WEIGHTS = 'adapter_config.json', 'adapter_model.safetensors'
PREFIX = 'base_model.model.'
# What an adapter_config.json may ask for beside rank and scale, and the values that are read.
_PLAIN = {
    'bias': ('none', None),
    'modules_to_save': ([], None),
    'rank_pattern': ({}, None),
    'alpha_pattern': ({}, None),
    'layer_replication': ([], None),
    'trainable_token_indices': ([], None),
    'alora_invocation_tokens': ([], None),
    'use_qalora': (False, None),
    'lora_bias': (False, None),
}


def read(model: Pretrained, path: str | os.PathLike) -> tuple[Lora, Any]:
    """(what the adapter is, its arrays) of a PEFT folder for this model.

    Raises:
      ConfigError: another kind of adapter, an option that is not read, a tensor without a place or
        of another shape; names the file and the key.
    """
    folder = pathlib.Path(path).expanduser()
    config = tensor_files.read_config(folder, CONFIG)
    kind = config.get('peft_type')
    if kind != 'LORA':
        raise ConfigError(f"{folder / CONFIG}: peft_type {kind!r} is not read; 'LORA' is.")
    for key, values in _PLAIN.items():
        if config.get(key) not in values:
            raise ConfigError(f'{folder / CONFIG}: {key} {config[key]!r} is not read.')
    files = tensor_files.TensorFiles(folder / WEIGHTS)
    by_name = _adapted(model, files, config.get('fan_in_fan_out', False))
    lora = Lora(
        targets=tuple(f'^{re.escape(name)}$' for name in sorted(by_name)),
        rank=config.get('r', 8),
        alpha=config.get('lora_alpha', 8),
        dora=config.get('use_dora', False),
        rank_stabilised=config.get('use_rslora', False),
    )
    shapes = jax.eval_shape(lora.init, jax.random.key(0), model.params)
    made = {}
    for leaf, kernel in selection.kernels(model.params, lora.targets).items():
        made[leaf] = {}
        for part, shape in selection.of_leaf(shapes, leaf).items():
            arrays = []
            for name in kernel.names(leaf):
                array, wanted = by_name[name].get(part), shape.shape[len(kernel.count) :]
                if array is None or array.shape != wanted:
                    shape_of = 'nothing' if array is None else array.shape
                    raise ConfigError(
                        f'{folder / WEIGHTS}: {part} of {name} is {shape_of}; expected {wanted}.'
                    )
                arrays.append(array)
            stacked = np.stack(arrays) if kernel.count else arrays[0]
            made[leaf][part] = jnp.asarray(stacked, jnp.float32)
    return lora, selection.by_leaf(made)


def _adapted(model: Pretrained, files: tensor_files.TensorFiles, turned: bool) -> dict[str, dict]:
    """Canonical kernel name -> {'lora_a', 'lora_b', 'magnitude'} as far as the file has them."""
    entries = _entries(model)
    found: dict[str, dict] = {}
    for key in files:
        module, _, part = key.removeprefix(PREFIX).partition('.lora_')
        entry = entries.get(f'{module}.weight')
        parts = {'A.weight': A, 'B.weight': B, 'magnitude_vector': MAGNITUDE}
        if entry is None or part not in parts:
            raise ConfigError(f'{files.file(key)}: {key} has no place in {model.folder}.')
        array = np.asarray(files[key], np.float32)
        # B and magnitudes have the outputs of the module, which may be those of several of ours.
        if part == 'A.weight':
            arrays = [array.T] * len(entry.ours)
        elif part == 'B.weight':
            arrays = entry.rule.read([array.T if turned else array])
        else:
            column = array.reshape(-1, 1)
            arrays = [a.reshape(-1) for a in entry.rule.read([column.T if turned else column])]
        for name, own in zip(entry.ours, arrays):
            found.setdefault(name, {})[parts[part]] = own
    if not found:
        raise ConfigError(f'{model.folder}: the adapter holds no tensors.')
    return found


def write(model: Pretrained, lora: Lora, adapters: Any, path: str | os.PathLike) -> None:
    """Writes a folder that PEFT loads onto the same model.

    Raises:
      ConfigError: the folder is not empty, or a kernel that is a part of a fused one there.
    """
    folder = pathlib.Path(path).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f'{folder} is not empty; give a new folder.')
    their_names = {name: key for key, entry in _entries(model).items() for name in entry.ours}
    parts_of = {key: entry.ours for key, entry in _entries(model).items()}
    tensors: dict[str, np.ndarray] = {}
    modules = []
    for leaf, kernel in selection.kernels(model.params, lora.targets).items():
        own = {k: np.asarray(v) for k, v in selection.of_leaf(adapters, leaf).items()}
        for number, name in enumerate(kernel.names(leaf)):
            key = their_names[name]
            if len(parts_of[key]) > 1:
                raise ConfigError(
                    f'{name} is a part of {key}, whose other parts PEFT would adapt with it.'
                )
            module = key.removesuffix('.weight')
            modules.append(module)
            one = {k: v[number] if kernel.count else v for k, v in own.items()}
            tensors[f'{PREFIX}{module}.lora_A.weight'] = one[A].T
            tensors[f'{PREFIX}{module}.lora_B.weight'] = one[B].T
            if lora.dora:
                tensors[f'{PREFIX}{module}.lora_magnitude_vector'] = one[MAGNITUDE]
    tensor_files.write(folder, tensors)
    os.replace(folder / tensor_files.WEIGHTS, folder / WEIGHTS)
    alpha = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha
    config = {
        'peft_type': 'LORA',
        'task_type': None,
        'base_model_name_or_path': str(model.folder),
        'r': lora.rank,
        'lora_alpha': alpha,
        'lora_dropout': 0.0,
        'target_modules': sorted(modules),
        'use_dora': lora.dora,
        'use_rslora': lora.rank_stabilised,
        'bias': 'none',
        'fan_in_fan_out': model.config['model_type'] == 'gpt2',
        'inference_mode': True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + '\n')


def _entries(model: Pretrained) -> dict[str, names.Entry]:
    """Their name of a weight -> its entry; of a table with alternatives, what the folder has."""
    family = families.find(model.config['model_type'], 'the model')
    table = family.table(model.config)
    ours = flatten_canonical({**model.params, **model.extra})
    theirs = tensor_files.TensorFiles(model.folder)
    entries, _, _ = names.pair(table, theirs, ours, unused=family.unused)
    return {name: entry for entry in entries for name in entry.theirs}
