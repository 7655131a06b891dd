"""The device mesh and the batches on it: rows split over 'data' and 'fsdp'.

The mesh always has the four axes of ``AXES``, those that a config leaves out with size 1. Devices
of 'data' hold copies of the parameters, those of 'fsdp' share them (ZeRO-3, Rajbhandari et al.
2020, https://arxiv.org/abs/1910.02054), those of 'tensor' share each product (Shoeybi et al. 2019,
https://arxiv.org/abs/1909.08053) and those of 'sequence' share the positions of a row. What lies
where is in ``param_sharding``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from alm_jax.config import ConfigError, did_you_mean

AXES = ('data', 'fsdp', 'tensor', 'sequence')
BATCH = ('data', 'fsdp')
DCN = 'dcn'


def make_mesh(axes: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of the axes ``AXES`` over all devices of all processes.

    Args:
      axes: ``config.mesh``: axis name -> size, such as ``{'data': -1, 'fsdp': 4}``; one size may be
        -1, which takes the rest, and 'data' is -1 when no size is. 'dcn' is the number of slices
        that 'data' goes across, so that only its traffic is on the slower network: -1, and left
        out, as many as there are; the number of processes where devices have no slices; or 1 for
        devices in the order in which they come, whatever crosses slices then.
      devices: real ones or those of a topology; None is ``jax.devices()``.

    Raises:
      ConfigError: an unknown axis, or sizes that do not fit the devices, or cut an axis of the
        torus of a TPU slice.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _sizes(axes, len(devices))
    found = _granules(devices, 'slice_index')
    across = int(dict(axes).get(DCN, -1))
    across = found if across == -1 else across
    types = (AxisType.Auto,) * len(AXES)
    if across == 1 < found:
        return Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=types)
    by_process = found == 1 and _granules(devices, 'process_index') == across
    if found != across and not by_process:
        raise ConfigError(
            f'config.mesh.{DCN} is {across}, but the devices are {found} slice(s) and '
            f'{_granules(devices, "process_index")} process(es). Use {DCN}=-1.'
        )
    if sizes[0] % across:
        raise ConfigError(
            f'config.mesh is {dict(axes)} over {across} slices, which do not divide data = '
            f'{sizes[0]}. Make data a multiple of {across}, or set {DCN}=1.'
        )
    try:
        if across == 1:
            return jax.make_mesh(sizes, AXES, types, devices=devices)
        placed = mesh_utils.create_hybrid_device_mesh(
            (sizes[0] // across, *sizes[1:]),
            (across, 1, 1, 1),
            devices,
            process_is_granule=by_process,
            allow_split_physical_axes=True,
        )
    except NotImplementedError as error:
        extents = [len(set(axis)) for axis in zip(*(device.coords for device in devices))]
        torus = [extent for extent in extents if extent > 1]
        raise ConfigError(
            f'config.mesh is {dict(axes)}, which cuts an axis of the torus of '
            f'{"x".join(map(str, torus))} chips. Use sizes that are products of whole axes.'
        ) from error
    return Mesh(placed, AXES, axis_types=types)


def batch_axes(mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """The axes of ``mesh`` that share the rows of a batch."""
    return tuple(axis for axis in BATCH if axis in mesh.shape)


def batch_devices(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts the rows of a batch go."""
    return math.prod(mesh.shape[axis] for axis in batch_axes(mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of scalars and of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of batch arrays: leading axis over 'data' and 'fsdp'."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))


def check_batch_size(
    batch_size: int,
    mesh: Mesh | AbstractMesh,
    processes: int | None = None,
    micro_batches: int = 1,
) -> None:
    """Raises ConfigError unless ``batch_size`` rows divide evenly over devices and processes.

    Args:
      micro_batches: each takes as many rows of every device, so they divide those.
      processes: None is ``jax.process_count()``. Each reads rows of its own, so two cannot share
        the parts of a row.
    """
    parts = batch_devices(mesh)
    processes = jax.process_count() if processes is None else processes
    if parts % processes:
        raise ConfigError(
            f'config.mesh is {dict(mesh.shape)}, whose data x fsdp = {parts} parts of a batch do '
            f'not divide over {processes} processes, which read rows of their own. Make it a '
            f'multiple of {processes}, with smaller tensor and sequence.'
        )
    unit = parts
    if batch_size % unit:
        nearest = max(unit, round(batch_size / unit) * unit)
        axes = ' x '.join(f'{axis} {mesh.shape[axis]}' for axis in batch_axes(mesh))
        raise ConfigError(
            f'config.batch_size is {batch_size}, which does not divide over {parts} devices '
            f'({axes}). Use a multiple of {unit}, such as {nearest}.'
        )
    rows = batch_size // parts
    if rows % micro_batches:
        below = max(n for n in range(1, micro_batches) if rows % n == 0)
        raise ConfigError(
            f'config.micro_batches is {micro_batches}, which does not divide the {rows} rows of '
            f'each device. Use {below}, or a batch_size that is a multiple of '
            f'{parts * micro_batches}.'
        )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The global batch on the devices, from the rows this process holds.

    Args:
      batch: numpy arrays with the same number of rows; process p of n holds the p-th block of
        b / n rows of the global batch of b.

    Raises:
      ConfigError: the global rows do not divide over the mesh.
    """
    for value in batch.values():
        check_batch_size(value.shape[0] * jax.process_count(), mesh)
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }


def _sizes(axes: Mapping[str, int], devices: int) -> tuple[int, ...]:
    """The size of every axis of ``AXES``."""
    axes = {axis: int(size) for axis, size in dict(axes).items()}
    for axis in axes:
        if axis not in (*AXES, DCN):
            hint = did_you_mean(axis, [*AXES, DCN])
            raise ConfigError(f'config.mesh is {axes}: {axis!r} is no axis. {hint}')
    sizes = [axes.get(axis, 1) for axis in AXES]
    if 'data' not in axes and -1 not in sizes:
        sizes[0] = -1
    given = (*sizes, axes.get(DCN, -1))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in given):
        raise ConfigError(f'config.mesh is {axes}; sizes are positive, at most one is -1.')
    known = math.prod(size for size in sizes if size != -1)
    if devices % known or (-1 not in sizes and known != devices):
        raise ConfigError(
            f'config.mesh is {axes}, which does not fit {devices} devices. Use data=-1 and other '
            f'sizes whose product divides {devices}; to try a mesh on a CPU, set '
            f'XLA_FLAGS=--xla_force_host_platform_device_count={known}.'
        )
    return tuple(devices // known if size == -1 else size for size in sizes)


def _granules(devices: Sequence[Any], attribute: str) -> int:
    """How many slices or processes the devices are of."""
    return len({getattr(device, attribute, 0) for device in devices})
