"""One compiled program over a fixed number of rows on each device, the last batch padded.

What a row gives then depends on that row alone, to the bit: neither on the rows beside it nor on
the number of devices.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from alm_jax.training import sharding, whole_copy


def program(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """``function(params, extra, *arrays)`` jitted, each device on its own rows of the arrays."""
    if mesh is None:
        return jax.jit(function)
    whole, rows = PartitionSpec(), PartitionSpec(sharding.batch_axes(mesh))
    return jax.jit(
        jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(whole, whole, rows, rows),
            out_specs=rows,
            check_vma=False,  # which attention kernels do not pass
        )
    )


def rows_of(mesh: Mesh | None, on_each: int) -> int:
    """Rows of a batch with ``on_each`` on every device."""
    return on_each * (sharding.batch_devices(mesh) if mesh else 1)


def whole(tree: Any, mesh: Mesh | None) -> Any:
    """A copy on every device, made once and not with every batch."""
    return jax.device_put(tree) if mesh is None else whole_copy.on_devices(tree, mesh)


def results(
    run: Callable[..., Any], params: Any, extra: Any, items: Iterator, rows: int
) -> Iterator[tuple[Any, Any]]:
    """(owner, result) of every item (owner, array, array), in order; read as they are needed.

    Args:
      run: from ``program``; its result may be a tree.
      params, extra: from ``whole``.
      items: arrays of one shape.
      rows: of a batch.
    """
    while batch := list(itertools.islice(items, rows)):
        owners, *columns = zip(*batch)
        arrays = [padded(np.stack(column), rows) for column in columns]
        found = jax.device_get(run(params, extra, *arrays))
        for row, owner in enumerate(owners):
            yield owner, jax.tree.map(lambda x, row=row: x[row], found)


def padded(array: np.ndarray, rows: int) -> np.ndarray:
    """``array`` with its first row repeated at the end: a row of zeros could divide by zero."""
    return np.concatenate([array, np.repeat(array[:1], rows - len(array), axis=0)])
