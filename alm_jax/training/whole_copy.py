"""Parameters that lie in parts on several devices or processes, whole: on each device, or as numpy.

Both are collective where an array spans processes: all of them must call it, with the same tree.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alm_jax.training import sharding


def local_mesh(mesh: Mesh) -> Mesh:
    """The devices of ``mesh`` that are of this process, all on the axis 'data'."""
    mine = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    return Mesh(np.asarray(mine).reshape(-1, 1, 1, 1), sharding.AXES, axis_types=mesh.axis_types)


def on_devices(tree: Any, mesh: Mesh) -> Any:
    """A copy of every array on each device of ``mesh``, which is of this process alone.

    Args:
      tree: of numpy arrays, or of jax arrays over this or all processes.
      mesh: from ``local_mesh``.
    """
    leaves, structure = jax.tree.flatten(tree)
    split = [_is_split(leaf) for leaf in leaves]
    gathered = iter(_gathered([leaf for leaf, is_split in zip(leaves, split) if is_split]))
    where = sharding.replicated(mesh)
    leaves = [next(gathered) if is_split else leaf for leaf, is_split in zip(leaves, split)]
    return jax.tree.unflatten(structure, [_placed(leaf, where) for leaf in leaves])


def fetch(array: Any, index: tuple[int, ...] = ()) -> np.ndarray:
    """``array[index]`` on the host; of a large array no more than that is copied anywhere."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)[index]
    if not array.is_fully_replicated:
        take = jax.jit(_take, out_shardings=_replicated_like(array))
        return np.asarray(take(array, index).addressable_data(0))
    here = array.addressable_data(0)
    return np.asarray(here[index] if index else here)


def _is_split(leaf: Any) -> bool:
    """Whether it takes other processes to have it whole."""
    return isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    )


def _gathered(leaves: list[jax.Array]) -> list[jax.Array]:
    if not leaves:
        return []
    return jax.jit(list, out_shardings=[_replicated_like(leaf) for leaf in leaves])(leaves)


def _placed(leaf: Any, where: NamedSharding) -> jax.Array:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return jax.device_put(leaf, where)
    shards = {shard.device: shard.data for shard in leaf.addressable_shards}
    here = [shards[device] for device in where.mesh.devices.flat]
    return jax.make_array_from_single_device_arrays(leaf.shape, where, here)


def _take(array: jax.Array, index: tuple[jax.Array, ...]) -> jax.Array:
    return array[index]


def _replicated_like(array: jax.Array) -> NamedSharding:
    return NamedSharding(array.sharding.mesh, PartitionSpec())
