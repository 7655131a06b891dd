"""Parameter trees filled from tensor files, one tensor at a time, straight onto the devices.

Beside the destination arrays, at most the tensor being read and its turned copy are in memory: a
stacked leaf is filled layer by layer in place.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from alm_jax.config import ConfigError
from alm_jax.interop.names import Entry
from alm_jax.training.param_names import locations, unflatten_locations

Shardings = Callable[[str], Sharding | None]


def fill(
    shapes: Any,
    tensors: Mapping[str, np.ndarray],
    entries: Sequence[Entry],
    *,
    dtype: Any = jnp.float32,
    sharding: Sharding | None = None,
) -> Any:
    """The tree of ``shapes`` with their tensors.

    Args:
      shapes: tree of ShapeDtypeStruct; a struct's own ``sharding`` says where it goes.
      tensors: theirs by name, read one at a time.
      entries: from ``names.match`` over the canonical names of ``shapes``.
      dtype: of floating-point leaves; None keeps that of the file.
      sharding: of leaves whose struct names none.

    Raises:
      ConfigError: a tensor of another shape than the model's, naming both.
    """
    places = locations(shapes)
    leaves: dict[tuple[str, ...], jax.Array] = {}
    for entry in entries:
        arrays = entry.rule.read([tensors[name] for name in entry.theirs])
        for name, array in zip(entry.ours, arrays):
            path, index, leaf = places[name]
            expected = leaf.shape[len(index) :]
            if array.shape != expected:
                raise ConfigError(
                    f'{" + ".join(entry.theirs)} has shape {array.shape} (as {name}); the model '
                    f'that config.json describes has {expected}.'
                )
            kind = array.dtype if dtype is None else dtype
            array = array.astype(kind, copy=False)
            where = leaf.sharding or sharding
            if not index:
                leaves[path] = _put(array, where)
                continue
            if path not in leaves:
                leaves[path] = _zeros(leaf.shape, kind, where)
            leaves[path] = _set(
                leaves[path], _put(array, _without_layers(where, len(index))), index
            )
        del arrays
    return unflatten_locations(shapes, leaves)


def _put(array: np.ndarray, sharding: Sharding | None) -> jax.Array:
    if sharding is None:
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _zeros(shape: tuple[int, ...], dtype: Any, sharding: Sharding | None) -> jax.Array:
    return jax.jit(functools.partial(jnp.zeros, shape, dtype), out_shardings=sharding)()


def _without_layers(sharding: Sharding | None, depth: int) -> Sharding | None:
    """The sharding of one layer of a stacked leaf."""
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[depth:]))
    return sharding


@functools.partial(jax.jit, donate_argnums=0)
def _set(stacked: jax.Array, layer: jax.Array, index: tuple[int, ...]) -> jax.Array:
    return stacked.at[tuple(index)].set(layer)
