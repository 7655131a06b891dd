"""A checkpoint's model run on inputs from a fixed seed: every named intermediate, in order."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from alm_jax import config as config_lib
from alm_jax.interop import pretrained, sources
from alm_jax.tasks import build_task
from alm_jax.training import checkpoint
from alm_jax.training.param_names import LAYERS

SEED = 0
HIDDEN = 'hidden'  # the outputs of all layers of a stack, see models.layers.transformer
_TOKENS = 32  # ids stay below it and below every vocabulary of the config


@dataclasses.dataclass(frozen=True)
class Runnable:
    """A module with its variables and inputs."""

    module: nn.Module
    variables: Mapping[str, Any]
    inputs: Sequence[Any]

    def shapes(self) -> list[tuple[int, ...]]:
        """Of the inputs."""
        return [np.shape(leaf) for leaf in jax.tree.leaves(self.inputs)]


class Program:
    """Runs a module, compiled once, and names what it makes on the way."""

    def __init__(self, module: nn.Module):
        """Of models with this module."""
        self._module = module
        self._made: list[tuple[str, Any]] = []
        self._apply = jax.jit(self._intermediates)

    def __call__(self, model: Runnable) -> dict[str, np.ndarray]:
        """Name -> array in the order in which the forward pass makes them.

        Names are paths of modules and, of a dict, the key: 'audio/stage_0', 'text/hidden/3' for the
        fourth layer of a stack, 'audio_embedding'. What a module hands on has the outermost name.
        """
        values = self._apply(model.variables, model.inputs)
        found: dict[str, np.ndarray] = {}
        for name in _in_order(self._made):
            if name in values:  # of what is made inside a scan, only its 'hidden' is there
                found |= _layers(name, np.asarray(values[name]))
        return found

    def _intermediates(self, variables, inputs):
        def note(call, args, kwargs, context):
            outputs = call(*args, **kwargs)
            self._made.extend(_named('/'.join(context.module.path), outputs))
            return outputs

        self._made.clear()
        with nn.intercept_methods(note):
            outputs, state = self._module.apply(
                variables, *inputs, capture_intermediates=True, mutable=['intermediates']
            )
        captured = dict(_captured('', state.get('intermediates', {})))
        return {**captured, **dict(_named('', outputs))}


def _in_order(made: Sequence[tuple[str, Any]]) -> list[str]:
    """Outermost names of what modules gave, by when it was first given."""
    first: dict[int, float] = {}
    names: dict[int, str] = {}
    for number, (name, array) in enumerate(made):
        first.setdefault(id(array), number)
        names[id(array)] = name
    for key, name in names.items():
        if name.rpartition('/')[2] == HIDDEN:  # a scan's, seen only when its parent is done
            layers = name.removesuffix(HIDDEN) + LAYERS
            inside = [i for i, (n, _) in enumerate(made) if (n + '/').startswith(layers + '/')]
            first[key] = max(inside, default=first[key]) + 0.5
    return [names[key] for key in sorted(names, key=first.get)]


def load(source: sources.Source) -> Runnable:
    """The model of a source. Raises ConfigError as ``from_pretrained``."""
    if source.kind == sources.RUN:
        return _run(source)
    model = pretrained.from_tensors(source.path, source.config, source.tensors)
    inputs = source.family.inputs(source.config)
    variables = {'params': model.params, **model.extra}
    return Runnable(model.module, variables, drawn(inputs, _vocabulary(source.config)))


def _run(source: sources.Source) -> Runnable:
    workdir = source.path.parent.parent
    file = workdir / sources.CONFIG
    config = config_lib.from_json(file.read_bytes(), str(file))
    task = build_task(config)
    params, extra = checkpoint.load_params(source.path)
    mel = jnp.zeros((1, task.front_end.num_frames(task.window_samples), task.front_end.n_mels))
    frames = jnp.full((1,), mel.shape[1], jnp.int32)
    tokens = jnp.zeros((1, 8), jnp.int32)
    inputs = (mel, frames, tokens, jnp.ones((1, 8), bool))
    return Runnable(task.model, {'params': params, **extra}, drawn(inputs, _TOKENS))


def drawn(inputs: Any, vocabulary: int) -> Any:
    """Inputs of the same shapes: normal numbers, token ids that count up; lengths and masks stay.

    Args:
      inputs: of ``Family.inputs``.
      vocabulary: ids stay below it.
    """
    generator = np.random.default_rng(SEED)

    def draw(leaf):
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype)
        if jnp.issubdtype(leaf.dtype, jnp.integer) and leaf.ndim >= 2:
            ids = 3 + np.arange(leaf.size).reshape(leaf.shape)
            return jnp.asarray(ids % vocabulary, leaf.dtype)
        return leaf

    return jax.tree.map(draw, inputs)


def _vocabulary(config: Mapping[str, Any]) -> int:
    sizes = [value for key, value in config.items() if key in ('vocab_size', 'codebook_size')]
    inner = [_vocabulary(value) for value in config.values() if isinstance(value, Mapping)]
    return min([_TOKENS, *(size for size in sizes if isinstance(size, int)), *inner])


def _named(path: str, outputs: Any) -> Iterator[tuple[str, jax.Array]]:
    """(name, array) of the arrays that a module gives."""
    if isinstance(outputs, Mapping):
        for key, value in outputs.items():
            yield from _named(f'{path}/{key}' if path else str(key), value)
    elif isinstance(outputs, tuple | list):
        for i, value in enumerate(outputs):
            yield from _named(f'{path}/{i}' if path else str(i), value)
    elif isinstance(outputs, jax.Array) and outputs.dtype != bool:
        yield path or 'output', outputs


def _captured(path: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, jax.Array]]:
    """As ``_named``, of flax's collection 'intermediates'."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _captured(f'{path}/{key}' if path else key, value)
        elif path:  # the model's own outputs are at hand
            yield from _named(path, value[-1])


def _layers(name: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """The layers of a stack apart."""
    if name.rpartition('/')[2] == HIDDEN and value.ndim >= 3:
        return {f'{name}/{i}': layer for i, layer in enumerate(value)}
    return {name: value}
