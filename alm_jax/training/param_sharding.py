"""Where parameters, moments and other state live on the mesh: a table of rules in the config.

A rule is (regex, spec). The first whose regex is found in a parameter's canonical name
(``audio/layers/3/attn/query/kernel``) gives one entry for each dimension of that parameter: a mesh
axis, a tuple of them, or None for a dimension that stays whole; dimensions beyond the spec stay
whole, and so does what no rule matches. The layer axes of stacked leaves are never split. Moments
and whatever else has a parameter's name and shape live where the parameter does.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from alm_jax.config import PARAM_RULES, ConfigError, did_you_mean
from alm_jax.training import param_names, sharding

WHERE = 'config.sharding.params'
Rules = Sequence[tuple[str, Sequence[Any]]]


def specs(
    params: Any, mesh: Mesh | AbstractMesh, rules: Rules
) -> dict[tuple[str, ...], PartitionSpec]:
    """Path of a leaf -> how it is split.

    Args:
      params: a parameter tree, concrete or abstract.
      mesh: with the axes that the rules name.
      rules: ``config.sharding.params``.

    Raises:
      ConfigError: a regex is malformed or, unless it is of the default table, matches nothing; a
        spec names an unknown axis, one twice, or more dimensions than there are; a dimension does
        not divide over its axes; or layers of one stack differ. The message says what would work.
    """
    patterns = [_checked(rule, mesh) for rule in rules]
    locations = param_names.locations(params)
    for pattern, spec in patterns:
        default = (pattern.pattern, spec) in PARAM_RULES
        if not default and not any(map(pattern.search, locations)):
            hint = did_you_mean(pattern.pattern, list(locations)[:200])
            raise ConfigError(f'{WHERE}: the regex {pattern.pattern!r} matches nothing. {hint}')
    found: dict[tuple[str, ...], tuple[str, PartitionSpec]] = {}
    for name, (path, index, leaf) in locations.items():
        spec = _spec(name, leaf.shape[len(index) :], patterns, mesh)
        whole = PartitionSpec(*(None for _ in index), *spec) if any(spec) else PartitionSpec()
        other, before = found.setdefault(path, (name, whole))
        if before != whole:
            raise ConfigError(
                f'{WHERE} splits {other} as {before} and {name} as {whole}, which are layers of '
                r'one array. Write the rule for all of them, with layers/\d+/ in its regex.'
            )
    return {path: spec for path, (_, spec) in found.items()}


def of_state(state: Any, mesh: Mesh, rules: Rules) -> Any:
    """The sharding of every leaf of a TrainState.

    Args:
      state: with ``params``; arrays or their shapes.
      mesh, rules: see ``specs``.

    Returns:
      A tree like ``state`` of NamedSharding.
    """
    shapes = {path: leaf.shape for path, _, leaf in param_names.locations(state.params).values()}
    by_path = specs(state.params, mesh, rules)

    def place(key_path, leaf):
        path = tuple(jax.tree_util.keystr(key_path, simple=True, separator='/').split('/'))
        for start in range(len(path)):
            name = path[start:]
            if shapes.get(name) == leaf.shape:
                return NamedSharding(mesh, by_path[name])
        return sharding.replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, state)


def table(state: Any, placement: Any) -> str:
    """Every parameter's shape, dtype, split and bytes on each device, as text.

    Args:
      state: a TrainState; arrays or their shapes.
      placement: from ``of_state``.
    """
    mesh = jax.tree.leaves(placement)[0].mesh
    rows = [('parameter', 'shape', 'dtype', 'spec', 'bytes a device')]
    leaves = jax.tree_util.tree_flatten_with_path(state.params)[0]
    for (key_path, leaf), where in zip(leaves, jax.tree.leaves(placement.params), strict=True):
        name = jax.tree_util.keystr(key_path, simple=True, separator='/')
        split = ', '.join(map(_entry, where.spec)) or 'replicated'
        rows.append((name, str(list(leaf.shape)), str(leaf.dtype), split, _bytes(leaf, where)))
    for part in ('params', 'opt_state', 'extra'):
        trees = getattr(state, part), getattr(placement, part)
        size = sum(jax.tree.leaves(jax.tree.map(_bytes, *trees)))
        rows.append((f'total of {part}', '', '', '', size))
    rows = [(*row[:-1], f'{row[-1]:,}' if isinstance(row[-1], int) else row[-1]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        '  '.join([*map(str.ljust, row[:-1], widths), row[-1].rjust(widths[-1])]) for row in rows
    ]
    axes = ', '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
    return '\n'.join([f'mesh: {axes}', *lines]) + '\n'


def _bytes(leaf: Any, where: NamedSharding) -> int:
    return math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _entry(entry: Any) -> str:
    return '+'.join(entry) if isinstance(entry, tuple) else str(entry or '-')


def _checked(rule: Any, mesh: Mesh | AbstractMesh) -> tuple[re.Pattern, tuple]:
    """A rule with its regex compiled and its axes known to the mesh."""
    try:
        regex, spec = rule
        entries = tuple(tuple(e) if isinstance(e, list | tuple) else e or None for e in spec)
        pattern = re.compile(regex)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{WHERE}: {rule!r} is no rule; write ('up/kernel$', ('fsdp', 'tensor'))."
        ) from error
    except re.error as error:
        raise ConfigError(f'{WHERE}: {regex!r} is not a regex: {error}.') from error
    axes = [axis for entry in entries for axis in _axes(entry)]
    for axis in axes:
        if axis not in mesh.shape:
            hint = did_you_mean(str(axis), list(mesh.shape))
            raise ConfigError(f'{WHERE}: {regex!r} names {axis!r}, no axis of the mesh. {hint}')
    if len(set(axes)) < len(axes):
        raise ConfigError(f'{WHERE}: {regex!r} names an axis twice: {entries}. Name it once.')
    return pattern, entries


def _axes(entry: Any) -> tuple[str, ...]:
    return entry if isinstance(entry, tuple) else (entry,) if entry else ()


def _spec(name: str, shape: tuple[int, ...], patterns: Sequence, mesh: Any) -> tuple[Any, ...]:
    """The spec of the first pattern found in ``name``, checked against ``shape``."""
    first = next((rule for rule in patterns if rule[0].search(name)), None)
    if first is None:
        return ()
    pattern, spec = first
    whence = f'{WHERE}: {pattern.pattern!r} gives {name}, of shape {list(shape)}, the spec {spec}'
    if len(spec) > len(shape):
        raise ConfigError(f'{whence}: at most {len(shape)} entries would fit. Narrow the regex.')
    for dimension, entry in enumerate(spec):
        parts = math.prod(mesh.shape[axis] for axis in _axes(entry))
        size = shape[dimension]
        if size % parts:
            rule = (f'^{name}$', (*spec[:dimension], None, *spec[dimension + 1 :]))
            fitting = ', '.join(str(n) for n in range(1, parts) if size % n == 0)
            raise ConfigError(
                f'{whence}: dimension {dimension} of {size} does not divide over {parts} devices '
                f'of {_entry(entry)}. Of the smaller sizes {fitting} would; or put {rule} before '
                'that rule, which leaves the dimension whole.'
            )
    return spec


def abstract(state: Any, placement: Any) -> Any:
    """The shapes of ``state`` with the shardings of ``placement``: what a restore fills."""

    def placed(leaf: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(placed, state, placement)


def logical_axes(rules: Rules, mesh: Mesh | AbstractMesh) -> Mapping[str, tuple[str, ...]]:
    """``config.sharding.activations`` as name -> mesh axes.

    Raises:
      ConfigError: a rule names an axis that the mesh lacks.
    """
    found = {}
    for name, entry in rules:
        found[name] = _axes(tuple(entry) if isinstance(entry, list | tuple) else entry)
        for axis in found[name]:
            if axis not in mesh.shape:
                hint = did_you_mean(str(axis), list(mesh.shape))
                raise ConfigError(
                    f'config.sharding.activations: {name!r} names {axis!r}, no axis of the mesh. '
                    f'{hint}'
                )
    return found
