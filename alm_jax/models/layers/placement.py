"""Named axes of activations, for whoever knows a mesh: models name them and know no device.

``with activation_axes(mesh, {'batch': ('data', 'fsdp'), 'heads': ('tensor',)}):`` around the
tracing of a model makes ``placed(x, 'batch', None, 'heads', None)`` tell the partitioner where x is
split. Without it ``placed`` gives x back.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_current: contextvars.ContextVar[tuple[Mesh, Mapping[str, tuple[str, ...]]] | None] = (
    contextvars.ContextVar('activation_axes', default=None)
)


@contextlib.contextmanager
def activation_axes(mesh: Mesh | None, axes: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Has an effect while models are traced, on meshes of several devices.

    Args:
      mesh: of the arrays; None is one device.
      axes: name -> mesh axes, such as ``{'mlp': ('tensor',)}``; other names are not split.
    """
    token = _current.set(None if mesh is None or mesh.size == 1 else (mesh, axes))
    try:
        yield
    finally:
        _current.reset(token)


def placed(x: jax.Array, *names: str | None) -> jax.Array:
    """``x``, split along the mesh axes of its named dimensions; values stay as they are.

    Args:
      x: of any shape.
      *names: 'batch', 'length', 'heads', 'mlp' or None for each dimension. One whose size does
        not divide over its axes, such as an odd number of positions, stays whole.
    """
    current = _current.get()
    if current is None:
        return x
    spec = [axes_of(name, size) or None for name, size in zip(names, x.shape, strict=True)]
    return jax.lax.with_sharding_constraint(x, NamedSharding(current[0], PartitionSpec(*spec)))


def axes_of(name: str | None, size: int) -> tuple[str, ...]:
    """The mesh axes that ``placed`` splits a dimension over; () for none.

    Args:
      name: of the dimension.
      size: of it.
    """
    current = _current.get()
    if current is None or name is None:
        return ()
    mesh, axes = current
    own = axes.get(name, ())
    return own if size % math.prod(mesh.shape[axis] for axis in own) == 0 else ()


def current_mesh() -> Mesh | None:
    """The mesh of ``activation_axes``; None without one, or when it is one device."""
    current = _current.get()
    return current and current[0]
