"""The device mesh and where arrays live on it: batches split over 'data', parameters replicated."""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from alm_jax.config import ConfigError

DATA = 'data'


def make_mesh(axes: Mapping[str, int]) -> Mesh:
    """A mesh over all devices of all processes.

    Args:
      axes: axis name -> size, such as ``{'data': -1}``; one size may be -1, which takes the rest.

    Raises:
      ConfigError: there is no 'data' axis, or the sizes do not multiply to the device count.
    """
    names, sizes = tuple(axes), [int(size) for size in axes.values()]
    devices = jax.device_count()
    if DATA not in names:
        raise ConfigError(f'config.mesh is {dict(axes)}; it needs an axis {DATA!r}.')
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ConfigError(f'config.mesh is {dict(axes)}; sizes are positive, at most one is -1.')
    known = math.prod(size for size in sizes if size != -1)
    if devices % known or (-1 not in sizes and known != devices):
        raise ConfigError(
            f'config.mesh is {dict(axes)}, which does not fit {devices} devices. Use data=-1; to '
            f'try a mesh on a CPU, set XLA_FLAGS=--xla_force_host_platform_device_count={known}.'
        )
    sizes = [devices // known if size == -1 else size for size in sizes]
    return jax.make_mesh(tuple(sizes), names, axis_types=(AxisType.Auto,) * len(sizes))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters, optimizer state and scalars."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of batch arrays: leading axis over 'data'."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ConfigError unless ``batch_size`` rows divide evenly over devices and processes."""
    unit = math.lcm(mesh.shape[DATA], jax.process_count())
    if batch_size % unit:
        nearest = max(unit, round(batch_size / unit) * unit)
        raise ConfigError(
            f'config.batch_size is {batch_size}, which does not divide over {mesh.shape[DATA]} '
            f'devices of the {DATA!r} axis. Use a multiple of {unit}, such as {nearest}.'
        )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch on the devices, from the rows this process holds.

    Args:
      batch: numpy arrays with the same number of rows; process p of n holds the p-th block of
        b / n rows of the global batch of b.

    Raises:
      ConfigError: the global rows do not divide over the 'data' axis.
    """
    for value in batch.values():
        check_batch_size(value.shape[0] * jax.process_count(), mesh)
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }
