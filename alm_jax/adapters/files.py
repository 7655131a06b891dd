"""Adapters alone as a folder: adapter.safetensors and adapter.json, which says what they are."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors
from flax import traverse_util
from safetensors import numpy as safetensors_numpy

from alm_jax import config as config_lib
from alm_jax import json_text
from alm_jax.adapters.bottleneck import Bottleneck
from alm_jax.adapters.lora import Lora
from alm_jax.config import ConfigError

# What safetensors raises beside its own: TypeError and AttributeError for types numpy has not.
_MALFORMED = (OSError, ValueError, TypeError, AttributeError)
WEIGHTS, SETTINGS = 'adapter.safetensors', 'adapter.json'
KINDS = {'lora': Lora, 'bottleneck': Bottleneck}


def save(adapter: Lora | Bottleneck, adapters: Any, path: str | os.PathLike) -> None:
    """Writes a new folder.

    Raises:
      ConfigError: the folder holds something already.
    """
    folder = pathlib.Path(path).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f'{folder} is not empty; give a new folder.')
    folder.mkdir(parents=True, exist_ok=True)
    flat = traverse_util.flatten_dict(jax.device_get(adapters), sep='/')
    arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
    safetensors_numpy.save_file(arrays, folder / WEIGHTS)
    kind = next(name for name, made in KINDS.items() if isinstance(adapter, made))
    settings = {'kind': kind, **dataclasses.asdict(adapter)}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + '\n')


def load(path: str | os.PathLike) -> tuple[Lora | Bottleneck, Any]:
    """(what it is, its tree of arrays) of a folder that ``save`` wrote.

    Raises:
      ConfigError: a file that is missing or damaged, or of another kind; names it.
    """
    folder = pathlib.Path(path).expanduser()
    try:
        settings = json_text.parse_object((folder / SETTINGS).read_bytes(), SETTINGS)
        flat = safetensors_numpy.load_file(folder / WEIGHTS)
    except (*_MALFORMED, safetensors.SafetensorError) as error:
        raise ConfigError(f'{folder} holds no adapter: {error}.') from error
    kind = config_lib.choose(KINDS, settings.pop('kind', ''), where=f'{SETTINGS}: kind')
    settings['targets'] = tuple(settings.get('targets', ()))
    adapter = config_lib.call_with(kind, settings, where=str(folder / SETTINGS))
    return adapter, traverse_util.unflatten_dict(flat, sep='/')
