"""Canonical parameter names, and the only place that knows how layers are stacked.

A repeated layer is stored once, as a subtree named ``layers`` whose leaves carry a leading layer
axis (``nn.scan``). Its canonical name counts the layers instead: the leaf at
``audio/layers/attn/query/kernel`` of shape [12, d, d] is the twelve names
``audio/layers/0/attn/query/kernel`` ... of shape [d, d]. Nested stacks have one leading axis a
``layers``, outermost first. Regexes of a config (freeze, weight decay, rates) match these names
with ``re.search`` and become masks along the layer axes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.config import ConfigError, did_you_mean

LAYERS = 'layers'


def flatten_canonical(params: Any) -> dict[str, Any]:
    """``{'layers/3/attn/query/kernel': array}`` of a parameter tree, in the tree's order.

    Leaves may be numpy or jax arrays, tracers, or ``jax.ShapeDtypeStruct``. Numpy leaves come out
    as views.
    """
    return {
        name: _take(leaf, index)
        for path, leaf in _leaves(params)
        for index, name in _indexed_names(path, leaf.shape)
    }


def unflatten_canonical(flat: Mapping[str, Any], like: Any) -> Any:
    """The inverse of ``flatten_canonical``: a tree of the structure of ``like``.

    Raises:
      ValueError: a name of ``like`` is missing from ``flat``, a name is left over, or a shape
        differs; the message lists them.
    """
    unused = set(flat)
    problems, leaves = [], []
    for path, leaf in _leaves(like):
        names = _indexed_names(path, leaf.shape)
        parts = {index: flat[name] for index, name in names if name in flat}
        problems += [f'missing {name}' for _, name in names if name not in flat]
        problems += [
            f'{name} has shape {tuple(parts[index].shape)}, not {leaf.shape[len(index) :]}'
            for index, name in names
            if index in parts and tuple(parts[index].shape) != tuple(leaf.shape[len(index) :])
        ]
        unused -= {name for _, name in names}
        if not problems:
            leaves.append(_stack(parts, leaf))
    problems += [f'unknown {name}' for name in sorted(unused)]
    if problems:
        raise ValueError('parameters do not fit the model: ' + '; '.join(problems))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def locations(tree: Any) -> dict[str, tuple[tuple[str, ...], tuple[int, ...], Any]]:
    """Canonical name -> (path of its leaf, index into the leaf's layer axes, the leaf)."""
    return {
        name: (path, index, leaf)
        for path, leaf in _leaves(tree)
        for index, name in _indexed_names(path, leaf.shape)
    }


def unflatten_locations(like: Any, leaves: Mapping[tuple[str, ...], Any]) -> Any:
    """The tree of the structure of ``like`` with leaves by their paths."""
    values = [leaves[path] for path, _ in _leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def match(params: Any, regexes: Sequence[str], *, where: str) -> Any:
    """Which parameters any of ``regexes`` matches.

    Args:
      params: a parameter tree, concrete or abstract.
      regexes: searched (``re.search``) in canonical names.
      where: the config path of ``regexes``, for messages ('freeze').

    Returns:
      A tree like ``params`` of numpy bool arrays whose shape is the leaf's layer axes: () outside
      a stack, [layers] inside one.

    Raises:
      ConfigError: a regex is malformed or matches no name.
    """
    patterns = [_compile(regex, where) for regex in regexes]
    hits = np.zeros(len(patterns), bool)

    def mask(key_path, leaf):
        names = _indexed_names(_path(key_path), leaf.shape)
        found = np.array(
            [[pattern.search(name) is not None for pattern in patterns] for _, name in names], bool
        ).reshape(len(names), len(patterns))
        hits[:] |= found.any(axis=0)
        return found.any(axis=1).reshape(leaf.shape[: _depth(_path(key_path))])

    masks = jax.tree_util.tree_map_with_path(mask, params)
    for regex, hit in zip(regexes, hits):
        if not hit:
            hint = did_you_mean(regex, list(dict.fromkeys(map(_family, flatten_canonical(params)))))
            raise ConfigError(f'config.{where}: the regex {regex!r} matches no parameter. {hint}')
    return masks


def broadcast(mask: np.ndarray, leaf: Any) -> np.ndarray:
    """A mask over layer axes, reshaped to broadcast against its leaf."""
    return np.reshape(mask, mask.shape + (1,) * (len(leaf.shape) - mask.ndim))


def _compile(regex: str, where: str) -> re.Pattern:
    try:
        return re.compile(regex)
    except re.error as error:
        raise ConfigError(f'config.{where}: {regex!r} is not a regex: {error}.') from error


def _family(name: str) -> str:
    return '/'.join(name.split('/')[:2])


def _leaves(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key_path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield _path(key_path), leaf


def _path(key_path) -> tuple[str, ...]:
    return tuple(str(getattr(key, 'key', getattr(key, 'name', key))) for key in key_path)


def _depth(path: tuple[str, ...]) -> int:
    return path.count(LAYERS)


def _indexed_names(
    path: tuple[str, ...], shape: tuple[int, ...]
) -> list[tuple[tuple[int, ...], str]]:
    """(index into the layer axes, canonical name) for every parameter a leaf holds."""
    return [(index, _name(path, index)) for index in np.ndindex(*shape[: _depth(path)])]


def _name(path: tuple[str, ...], index: tuple[int, ...]) -> str:
    numbers = iter(index)
    parts = [f'{part}/{next(numbers)}' if part == LAYERS else part for part in path]
    return '/'.join(parts)


def _take(leaf: Any, index: tuple[int, ...]) -> Any:
    if not index:
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[len(index) :], leaf.dtype)
    return leaf[(*index, ...)]


def _stack(parts: Mapping[tuple[int, ...], Any], like: Any) -> Any:
    depth = len(next(iter(parts), ()))
    values = list(parts.values())
    if depth == 0:
        return values[0]
    if isinstance(values[0], jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(like.shape, values[0].dtype)
    stack = np.stack if all(isinstance(value, np.ndarray) for value in values) else jnp.stack
    return stack(values).reshape(like.shape)
