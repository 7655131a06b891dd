"""Parameter trees filled from tensor files, one tensor at a time, straight onto the devices.

Tensors are views of mapped files (``tensor_files``). Beside the destination arrays there are in
memory a few pieces of ``PIECE_BYTES``, which are cast and turned on the devices, and where several
tensors make one array, that. Of a sharded leaf each device gets its own part alone.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from alm_jax.config import ConfigError
from alm_jax.interop.names import Entry
from alm_jax.interop.tensor_files import TensorFiles
from alm_jax.training.param_names import locations, unflatten_locations

PIECE_BYTES = 16 << 20
Box = tuple[slice, ...]


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
    leaves: dict[tuple[str, ...], _Leaf] = {}
    for entry in entries:
        arrays = list(entry.rule.read([tensors[name] for name in entry.theirs]))
        for name in entry.ours:
            array = arrays.pop(0)
            path, index, leaf = places[name]
            expected = leaf.shape[len(index) :]
            if array.shape != expected:
                raise ConfigError(
                    f'{_named(tensors, entry)} has shape {array.shape} (as {name}); the model '
                    f'that config.json describes has {expected}.'
                )
            if path not in leaves:
                kind = jax.dtypes.canonicalize_dtype(array.dtype if dtype is None else dtype)
                leaves[path] = _Leaf(leaf.shape, kind, leaf.sharding or sharding)
            leaves[path].write(index, array)
            del array
    return unflatten_locations(shapes, {path: leaf.array() for path, leaf in leaves.items()})


class _Leaf:
    """A leaf that is being filled: on the host while it is one piece, else on its devices."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding | None):
        self._shape, self._dtype, self._sharding = shape, dtype, sharding
        self._array: jax.Array | None = None
        self._host: np.ndarray | None = None
        self._missing = math.prod(shape)
        whole = tuple(slice(0, size) for size in shape)
        if self._missing * dtype.itemsize <= PIECE_BYTES:
            self._host = np.empty(shape, dtype)
            return
        if sharding is None:
            self._parts: dict[Any, tuple[Box, jax.Array]] = {None: (whole, jnp.zeros(shape, dtype))}
            return
        self._parts = {}
        for device, box in sharding.addressable_devices_indices_map(shape).items():
            box = tuple(slice(*cut.indices(size)[:2]) for cut, size in zip(box, shape))
            with jax.default_device(device):
                zeros = jnp.zeros([cut.stop - cut.start for cut in box], dtype)
            self._parts[device] = box, jax.device_put(zeros, device)

    def write(self, index: tuple[int, ...], array: np.ndarray) -> None:
        """Puts one layer of the leaf, or with () all of it, in its place."""
        self._missing -= array.size
        if self._host is not None:
            self._host[index] = array
            if not self._missing:
                self._array, self._host = self._placed(self._host), None
            return
        for start, piece in _pieces(array):
            first = (*index, *start)
            piece = piece.reshape((1,) * len(index) + piece.shape)
            for device, (box, part) in self._parts.items():
                cut = _overlap(first, piece.shape, box)
                if cut is not None:
                    within, at = cut
                    value, axes = _as_stored(piece[within])
                    value = jnp.asarray(value) if device is None else jax.device_put(value, device)
                    # Waiting keeps the pieces that are under way from piling up.
                    part = jax.block_until_ready(_set(part, value, at, axes))
                    self._parts[device] = box, part

    def array(self) -> jax.Array:
        """The filled leaf."""
        if self._array is not None:
            return self._array
        if self._sharding is None:
            return self._parts[None][1]
        parts = [part for _, part in self._parts.values()]
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, parts)

    def _placed(self, array: np.ndarray) -> jax.Array:
        if self._sharding is None:
            return jnp.asarray(array)
        return jax.make_array_from_callback(self._shape, self._sharding, lambda box: array[box])


def _pieces(array: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """(where it starts, view) of the parts of an array, cut where its memory is cut."""
    size = array.nbytes
    if size <= PIECE_BYTES:
        yield (0,) * array.ndim, array
        return
    axis = _by_stride(array)[0]
    step = max(1, array.shape[axis] * PIECE_BYTES // size)
    for start in range(0, array.shape[axis], step):
        at = [slice(None)] * array.ndim
        at[axis] = slice(start, start + step)
        yield tuple(start if a == axis else 0 for a in range(array.ndim)), array[tuple(at)]


def _by_stride(array: np.ndarray) -> list[int]:
    """Axes from the one that steps widest through memory."""
    return sorted(range(array.ndim), key=lambda a: (array.shape[a] == 1, -array.strides[a]))


def _as_stored(array: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """(the array in the order of its memory, axes that turn it back), without turning it here.

    Devices turn and cast faster than numpy, whose loops over bfloat16 take an element at a time;
    where a part must be copied out, its bits are.
    """
    order = _by_stride(array)
    bits = array.transpose(order).view(f'u{array.itemsize}')
    back = tuple(order.index(axis) for axis in range(array.ndim))
    return np.ascontiguousarray(bits).view(array.dtype), back


def _overlap(first: tuple[int, ...], shape: tuple[int, ...], box: Box):
    """(what of a piece at ``first`` lies in ``box``, where in it), or None."""
    within, at = [], []
    for start, size, cut in zip(first, shape, box):
        low, high = max(start, cut.start), min(start + size, cut.stop)
        if low >= high:
            return None
        within.append(slice(low - start, high - start))
        at.append(low - cut.start)
    return tuple(within), tuple(at)


def _named(tensors: Mapping[str, np.ndarray], entry: Entry) -> str:
    name = ' + '.join(entry.theirs)
    return f'{tensors.file(entry.theirs[0])}: {name}' if isinstance(tensors, TensorFiles) else name


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _set(
    part: jax.Array, piece: jax.Array, at: tuple[int, ...], axes: tuple[int, ...]
) -> jax.Array:
    piece = piece.transpose(axes).astype(part.dtype)
    return jax.lax.dynamic_update_slice(part, piece, at)
