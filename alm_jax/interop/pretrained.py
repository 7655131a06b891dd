"""Other people's checkpoints in and out: Hugging Face folders, without torch or transformers.

model = from_pretrained('clap-htsat-unfused')     # config.json, safetensors, tokenizer.json
save_pretrained(model, 'mine')                    # a folder that transformers loads
"""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from alm_jax.config import ConfigError
from alm_jax.interop import families, filling, gguf_folder, names, tensor_files
from alm_jax.interop.family import Pretrained
from alm_jax.training.param_names import flatten_canonical

Placement = Callable[[str, jax.ShapeDtypeStruct], Sharding]
COLLECTIONS = ('batch_stats',)
# What stands beside the weights and belongs to the model.
_COMPANIONS = ('*token*.json', 'vocab*', 'merges.txt', 'preprocessor_config.json')
_COMPANIONS += ('processor_config.json', 'generation_config.json', 'chat_template*', '*.model')
_COMPANIONS += ('tekken.json',)


def from_pretrained(
    path: str | os.PathLike,
    *,
    dtype: Any = jnp.float32,
    sharding: Sharding | Placement | None = None,
    unused: Sequence[str] = (),
) -> Pretrained:
    """Reads a folder with config.json, safetensors (one file or shards) and a tokenizer.

    Args:
      path: the folder, or a .gguf file, which is converted once into the data folder.
      dtype: of the parameters; None keeps that of the files.
      sharding: where parameters go, all of them or each by its path in the tree
        ('layers/attn/query/kernel', with a leading axis of layers) and shape; by default to the
        first device. Each process reads the files and fills its own part.
      unused: regexes of tensors that may be left aside, beside those the family names.

    Raises:
      ConfigError: no such folder, an unknown architecture, a missing or damaged shard, a tensor
        without a place or of another shape: names the file and the key.
    """
    folder = pathlib.Path(path).expanduser()
    if folder.suffix == '.gguf' and folder.is_file():
        folder = gguf_folder.cached(folder)
    if not folder.is_dir():
        raise ConfigError(f'{folder} is not a folder with config.json and safetensors.')
    config = tensor_files.read_config(folder)
    families.find(str(config.get('model_type', '')), str(folder / 'config.json'))
    tensors = tensor_files.TensorFiles(folder)
    return from_tensors(folder, config, tensors, dtype=dtype, sharding=sharding, unused=unused)


def from_tensors(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    dtype: Any = jnp.float32,
    sharding: Sharding | Placement | None = None,
    unused: Sequence[str] = (),
) -> Pretrained:
    """``from_pretrained`` of tensors by their family's names, read one at a time.

    Args:
      folder: where what stands beside the weights is, such as a tokenizer; for messages.
      config: content of config.json.
      tensors: a mapping that may read them when asked.
      dtype, sharding, unused: see ``from_pretrained``.
    """
    family = families.find(str(config.get('model_type', '')), str(folder / 'config.json'))
    try:
        module, shapes = family.shapes(config)
        if sharding is not None and not isinstance(sharding, Sharding):
            shapes, sharding = _placed(shapes, sharding), None
        ours = flatten_canonical(shapes)
        entries = names.match(family.table(config), tensors, ours, unused=(*family.unused, *unused))
        tree = filling.fill(shapes, tensors, entries, dtype=dtype, sharding=sharding)
    except ConfigError as error:
        raise ConfigError(f'{folder} ({family.name}): {error}') from error
    extra = {name: tree.pop(name) for name in COLLECTIONS if name in tree}
    return family.model(folder, config, module, tree, extra)


def _placed(shapes: Any, placement: Placement) -> Any:
    def place(path, leaf):
        name = '/'.join(str(key.key) for key in path)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement(name, leaf))

    return jax.tree_util.tree_map_with_path(place, shapes)


def save_pretrained(model: Pretrained, path: str | os.PathLike) -> None:
    """Writes a folder that the original library, and ``from_pretrained``, load.

    Raises:
      ConfigError: the folder holds something else already.
    """
    folder = pathlib.Path(path).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f'{folder} is not empty; give a new folder.')
    family = families.find(model.config['model_type'], 'the model')
    arrays = flatten_canonical({**model.params, **model.extra})
    tensor_files.write(folder, names.their_arrays(family.table(model.config), arrays))
    text = json.dumps(dict(model.config), indent=2, sort_keys=True)
    (folder / 'config.json').write_text(text + '\n')
    for pattern in _COMPANIONS:
        for file in model.folder.glob(pattern):
            shutil.copyfile(file, folder / file.name)
