"""Which kernels of a parameter tree an adapter is for, layer by layer of a stack."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from alm_jax.config import ConfigError
from alm_jax.training import param_names

KERNEL = 'kernel'
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A leaf whose matrices, or some of them, are adapted.

    Attributes:
      shape: (in, out) of one matrix.
      layers: index arrays of the adapted layers along the leaf's layer axes; () outside a stack.
      whole: whether these are all of them.
    """

    shape: tuple[int, int]
    layers: tuple[np.ndarray, ...]
    whole: bool

    @property
    def count(self) -> tuple[int, ...]:
        """Leading axes of an adapter's arrays: (adapted layers,), or () outside a stack."""
        return (len(self.layers[0]),) if self.layers else ()

    def take(self, leaf: jax.Array) -> jax.Array:
        """The adapted matrices, [*count, in, out]."""
        if not self.layers:
            return leaf
        return leaf.reshape(*self.count, *self.shape) if self.whole else leaf[self.layers]

    def put(self, leaf: jax.Array, matrices: jax.Array) -> jax.Array:
        """The leaf with other matrices in their place."""
        matrices = matrices.astype(leaf.dtype)
        if not self.layers or self.whole:
            return matrices.reshape(leaf.shape)
        return leaf.at[self.layers].set(matrices)

    def names(self, path: Path) -> list[str]:
        """Canonical names of the adapted matrices, in the order of ``take``."""
        named = []
        for index in zip(*self.layers) if self.layers else [()]:
            numbers = iter(index)
            parts = [f'{p}/{next(numbers)}' if p == param_names.LAYERS else p for p in path]
            named.append('/'.join(parts))
        return named


def kernels(params: Any, targets: Sequence[str]) -> dict[Path, Kernel]:
    """The matrices that regexes choose.

    Args:
      params: parameter tree, concrete, traced or abstract.
      targets: searched in canonical names such as 'layers/3/attn/query/kernel'; what they match
        beside kernels (a bias, say) is passed over.

    Returns:
      path of the leaf -> its adapted matrices.

    Raises:
      ConfigError: a regex that matches nothing, or no kernel at all, or one that is no matrix.
    """
    masks = traverse_util.flatten_dict(param_names.match(params, targets, where='adapters.targets'))
    leaves = traverse_util.flatten_dict(params)
    found = {}
    for path, mask in masks.items():
        if path[-1] != KERNEL or not mask.any():
            continue
        shape = tuple(leaves[path].shape[mask.ndim :])
        if len(shape) != 2:
            name = '/'.join(path)
            raise ConfigError(
                f'config.adapters.targets: {name} is a kernel of shape {shape}, no matrix.'
            )
        found[path] = Kernel(shape, np.nonzero(mask) if mask.ndim else (), bool(mask.all()))
    if not found:
        raise ConfigError(f'config.adapters.targets: {", ".join(targets)} match no kernel.')
    return found


def by_leaf(flat: Mapping[Path, Any]) -> dict[str, Any]:
    """A nested tree of what is said of each kernel's layer."""
    return traverse_util.unflatten_dict({path[:-1]: value for path, value in flat.items()})


def of_leaf(tree: Mapping[str, Any], path: Path) -> Any:
    """What ``by_leaf`` put there."""
    for key in path[:-1]:
        tree = tree[key]
    return tree
