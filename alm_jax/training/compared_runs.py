"""Two runs of one config, compared to the last bit: what they logged, and their last states."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from alm_jax.training import checkpoint, param_names, step_clock

# What depends on the clock, or on how far the loader is ahead.
_OF_THE_MOMENT = {f'train/{name}' for name in (*step_clock.TIMED, 'bad_records')}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as it was when it was read.

    Attributes:
      workdir: its folder.
      logged: step -> all that metrics.jsonl had of it.
      saved: step of the newest complete checkpoint; 0 is none.
    """

    workdir: pathlib.Path
    logged: Mapping[int, Mapping[str, Any]]
    saved: int

    def numbers(self, step: int) -> dict[str, Any]:
        """Of a step, what every run of the config must have logged to the last bit."""
        found = self.logged.get(step, {})
        return {name: value for name, value in found.items() if name not in _OF_THE_MOMENT}


def read(workdir: pathlib.Path) -> Run:
    """A run as it is now, whether it goes on, is over or was killed."""
    newest = checkpoint.latest_complete(workdir)
    return Run(workdir, logged(workdir), int(newest.name) if newest else 0)


def logged(workdir: pathlib.Path) -> dict[int, dict[str, Any]]:
    """Step -> what metrics.jsonl has of it; a last line that a kill cut short is left out."""
    found: dict[int, dict[str, Any]] = {}
    path = workdir / 'metrics.jsonl'
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            found.setdefault(values['step'], {}).update(values)
        except (ValueError, KeyError):
            continue
    return found


def compare(whole: Run, parts: Sequence[Run], steps: int) -> list[str]:
    """How a run that was killed differs from one that was not.

    Args:
      whole: the run that was not.
      parts: the other one: as it was at each kill, and at its end.
      steps: of both.

    Returns:
      Lines to print: the first step that differs, and the first parameter or other part of the
      state; none when every bit is the same.
    """
    return [
        *_begun_anew(parts),
        *_first_step(whole, parts, steps),
        *_first_parameter(*(run.workdir / f'checkpoints/{steps}' for run in (whole, parts[-1]))),
    ]


def _begun_anew(parts: Sequence[Run]) -> Iterator[str]:
    """What was saved is not computed again: its steps keep even their timings."""
    for before, after in itertools.pairwise(parts):
        kept = range(1, before.saved + 1)
        if any(before.logged.get(step) != after.logged.get(step) for step in kept):
            yield f'It did not go on from checkpoint {before.saved}, which was complete.'


def _first_step(whole: Run, parts: Sequence[Run], steps: int) -> Iterator[str]:
    for step in range(1, steps + 1):
        for part in parts:
            if step not in part.logged and part is not parts[-1]:
                continue  # the kill came before it
            expected, found = whole.numbers(step), part.numbers(step)
            names = _unequal(expected, found)
            if not names:
                continue
            name = 'train/loss' if 'train/loss' in names else names[0]
            yield (
                f'The first step that differs is {step}: {name} is {expected.get(name)!r} without '
                f'a kill, {found.get(name)!r} with one; numbers that differ: {len(names)}.'
            )
            if part is parts[0]:
                yield 'That is before the first kill: two such runs differ by themselves.'
            return


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names whose values differ, or that only one has."""
    absent = object()
    names = one.keys() | other.keys()
    return sorted(name for name in names if one.get(name, absent) != other.get(name, absent))


def _first_parameter(whole: pathlib.Path, killed: pathlib.Path) -> Iterator[str]:
    """Leaf by leaf, so that no more than two are in memory."""
    trees = [checkpoint.read_manifest(path)['tree'] for path in (whole, killed)]
    if names := _unequal(*trees):
        yield f'The last states have other leaves: {names[0]} is the first of {len(names)}.'
        return
    # Of parameters first, then of what is made from them.
    order = sorted(trees[0], key=lambda name: (not name.startswith('params/'), name))
    differing = [name for name in order if _bytes(whole, name) != _bytes(killed, name)]
    if differing:
        first = differing[0]
        named, changed, size = _first_differing(first, leaf(whole, first), leaf(killed, first))
        kind = 'parameter' if first.startswith('params/') else 'part of the state'
        yield (
            f'The first {kind} that differs at the end is {named}, in {changed} of {size} values; '
            f'{len(differing)} of {len(order)} arrays of the state differ.'
        )


def _first_differing(name: str, expected: np.ndarray, found: np.ndarray) -> tuple[str, int, int]:
    """(canonical name, values that differ, values) of the first layer of a leaf that differs."""
    trees = [
        param_names.flatten_canonical(traverse_util.unflatten_dict({tuple(name.split('/')): leaf}))
        for leaf in (expected, found)
    ]
    for canonical, value in trees[0].items():
        other = trees[1][canonical]
        if value.tobytes() != other.tobytes():
            bits = [np.frombuffer(v.tobytes(), f'V{v.dtype.itemsize}') for v in (value, other)]
            changed = int((bits[0] != bits[1]).sum())
            return canonical.removeprefix('params/'), changed, value.size
    raise AssertionError(name)


def _bytes(path: pathlib.Path, name: str) -> bytes:
    return leaf(path, name).tobytes()


def leaf(path: pathlib.Path, name: str) -> np.ndarray:
    """One array of a checkpoint, such as 'params/audio/layers/attn/query/kernel'."""
    dtype, shape = checkpoint.read_manifest(path)['tree'][name]
    item, _, inside = name.partition('/')
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    leaf = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=here)
    tree = traverse_util.unflatten_dict({tuple(inside.split('/')): leaf})
    arguments = ocp.args.PyTreeRestore(
        tree,
        restore_args=ocp.checkpoint_utils.construct_restore_args(tree),
        partial_restore=True,
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        (value,) = jax.tree.leaves(orbax.restore(path.absolute() / item, args=arguments))
    return np.asarray(value)
