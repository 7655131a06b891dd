"""The stages of a run, ``config.stages``: what is trained, on what and for how long, in turn.

A stage is the config with the values of its own for some keys, written with dots.
``step`` counts over all stages, and which of them a step is of follows from it. So does
``data_step``: the batches of a stage are those that its own data would give from there on, so that
no draw of a row, a dropout mask or an augmentation comes twice, and ``data.schedule`` counts over
all. At a boundary the state is saved and kept; then the moments and the schedule begin anew for
what the next stage trains, and everything else goes on by its name.
"""

import bisect
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from flax import traverse_util
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.training import state as state_lib
from alm_jax.training.optimizer import Optimizer

# Keys that a stage may have of its own, with all that is under them, and what of that it may not.
OWN = (
    *('batch_size', 'micro_batches', 'remat', 'freeze', 'optimizer', 'augment', 'data', 'evals'),
    *('task', 'text.lengths', 'model.audio.lora', 'model.text.lora'),
)
NOT_OWN = ('data.dir', 'task.name')


@dataclasses.dataclass(frozen=True)
class Stage:
    """Updates ``start + 1`` to ``stop`` of a run.

    Attributes:
      name: of the stage; '' is a run without stages, which is one.
      start: steps before it.
      stop: its last step.
      config: as if it were the whole run: ``config.steps`` are its own.
    """

    name: str
    start: int
    stop: int
    config: ConfigDict

    def __str__(self) -> str:
        return f'stage {self.name}, steps {self.start + 1} to {self.stop}' if self.name else 'run'


def of(config: ConfigDict) -> list[Stage]:
    """The stages of a run, in order; without ``config.stages`` the run is one.

    Raises:
      ConfigError: a stage lacks a name or steps, has a key that does not exist, that is the same
        for all stages or whose value is of another type, or ``config.steps`` is not the sum.
    """
    if not config.stages:
        return [Stage('', 0, config.steps, config)]
    configs = [_config_of(config, number, stage) for number, stage in enumerate(config.stages)]
    names = [own.name for own in configs]
    if len(set(names)) < len(names):
        raise ConfigError(f'config.stages are named {", ".join(names)}; give each its own name.')
    stops = list(itertools.accumulate(own.steps for own in configs))
    if stops[-1] != config.steps:
        raise ConfigError(
            f'config.steps is {config.steps}, but the steps of config.stages sum to {stops[-1]}.'
        )
    return [Stage(*stage) for stage in zip(names, [0, *stops], stops, configs)]


def _config_of(config: ConfigDict, number: int, stage: Any) -> ConfigDict:
    """``config`` with the keys of a stage, and the stage's name and steps."""
    where = f'config.stages[{number}]'
    if not isinstance(stage, Mapping | ConfigDict):
        raise ConfigError(
            f"{where} is {stage!r:.200}; write {{'name': 'warm_up', 'steps': 100, ...}}."
        )
    own = dict(stage)
    name, steps = own.pop('name', ''), own.pop('steps', 0)
    if not isinstance(name, str) or not name or not isinstance(steps, int) or steps < 1:
        raise ConfigError(
            f'{where} has the name {name!r:.100} and {steps!r:.100} steps; give it both.'
        )
    made = config.copy_and_resolve_references()
    with made.ignore_type(), made.unlocked():
        made.name, made.steps, made.stages, made.profile = name, steps, (), ()
        for key, value in own.items():
            _check_key(key, f'{where} ({name!r})')
            *groups, last = key.split('.')
            group = functools.reduce(lambda group, part: group[part], groups, made)
            group[last] = ConfigDict(value) if isinstance(value, Mapping) else value
    with named(name):
        config_lib.validate(made)
    return made


def _check_key(key: str, where: str) -> None:
    """Raises ConfigError unless a stage may have ``key`` of its own."""
    known = {*_dotted(config_lib.base()), *OWN}

    def owned(key: str) -> bool:
        return any(f'{key}.'.startswith(f'{own}.') for own in OWN) and key not in NOT_OWN

    if key not in known:
        hint = config_lib.did_you_mean(key, sorted(filter(owned, known)))
        raise ConfigError(f'{where}: {key} is not a key of the config. {hint}')
    if not owned(key):
        raise ConfigError(
            f'{where}: {key} is the same in all stages. A stage may have its own '
            f'{", ".join(OWN)} and what is under them, but {" and ".join(NOT_OWN)}.'
        )


def _dotted(config: ConfigDict, prefix: str = '') -> Iterator[str]:
    """'data', 'data.train', ... of every group and key."""
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ConfigDict):
            yield from _dotted(value, f'{prefix}{key}.')


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """A ConfigError from inside tells of which stage it is; '' is a run without stages."""
    try:
        yield
    except ConfigError as error:
        if not name:
            raise
        raise type(error)(f'stage {name!r}: {error}') from error


def number_at(config: ConfigDict, step: int) -> int:
    """Which stage, from 0 on, a state after ``step`` steps is of; at a boundary that before it."""
    stops = [stage.stop for stage in of(config)]
    return min(bisect.bisect_left(stops, step), len(stops) - 1)


def entries(config: ConfigDict, number: int) -> dict[str, Any]:
    """What a checkpoint of a stage tells of it: its name, and the stages up to it as JSON."""
    begun = config_lib.plain(config.stages)[: number + 1]
    return {'stage': begun[-1]['name'] if begun else '', 'stages': begun}


def check_begun(config: ConfigDict, manifest: Mapping[str, Any]) -> None:
    """Stages that have begun stay as they were; those to come may change.

    Args:
      config: of the run that goes on.
      manifest: of the checkpoint from which it does.

    Raises:
      ConfigError: one of them differs, naming it and its keys.
    """
    begun, now = manifest.get('stages', []), config_lib.plain(config.stages)
    if bool(begun) != bool(now):
        was = f'is of stage {begun[-1]["name"]!r}' if begun else 'is of a run without stages'
        raise ConfigError(
            f'The checkpoint at step {manifest["step"]} {was}, but config.stages has {len(now)}. '
            'Put config.stages back, or take a new workdir and config.init_from.'
        )
    for number, (was, stage) in enumerate(zip(begun, [*now, *[{}] * len(begun)])):
        changed = sorted(k for k in was.keys() | stage.keys() if was.get(k) != stage.get(k))
        if changed:
            values = '; '.join(f'{k} was {was.get(k)!r}, is {stage.get(k)!r}' for k in changed)
            raise ConfigError(
                f'config.stages[{number}] ({was["name"]!r}) has begun by step {manifest["step"]} '
                f'and differs: {values}. Put it back, or take a new workdir. Stages that have not '
                'begun may change.'
            )


def check_shapes(*params: Any) -> None:
    """Raises ConfigError when a parameter has another shape than in the stage before.

    Args:
      *params: parameter trees of stages, in order; concrete or abstract.
    """
    for before, after in itertools.pairwise(map(traverse_util.flatten_dict, params)):
        for path in before.keys() & after.keys():
            old, new = before[path].shape, after[path].shape
            if old != new:
                raise ConfigError(
                    f'{"/".join(path)} has shape {new}, and {old} in the stage before. Give both '
                    'stages the same size.'
                )


def hand_off(
    current: state_lib.TrainState,
    init: Callable[[], tuple[Any, Any]],
    optimizer: Optimizer,
    planned: state_lib.TrainState,
    placement: Any,
) -> tuple[state_lib.TrainState, list[str]]:
    """The state with which the next stage begins.

    Parameters and ``extra`` go on by name, in the dtypes of ``planned``: what was frozen in
    bfloat16 and is trained now goes on in float32. Leaves that are new come from ``init``, those
    that the stage does not have go. Moments are new; the count of skipped updates is not.

    Args:
      current: the end of the stage before; its moments are gone afterwards.
      init: of the stage's task.
      optimizer: of the stage.
      planned: shapes and dtypes of its state.
      placement: their shardings.

    Returns:
      (state, names of the new leaves, such as 'text/layers/attn/query/lora_a').
    """
    skipped = current.opt_state['skipped']
    moments = current.opt_state['transform']
    kept = traverse_util.flatten_dict({'params': current.params, 'extra': current.extra})
    wanted = traverse_util.flatten_dict({'params': planned.params, 'extra': planned.extra})

    def make(kept, step, data_step, skipped):
        fresh = traverse_util.flatten_dict(dict(zip(('params', 'extra'), init())))
        leaves = {path: kept.get(path, fresh[path]).astype(wanted[path].dtype) for path in wanted}
        tree = {'params': {}, 'extra': {}, **traverse_util.unflatten_dict(leaves)}
        made = state_lib.create(tree['params'], tree['extra'], optimizer)
        return made.replace(
            step=step, data_step=data_step, opt_state={**made.opt_state, 'skipped': skipped}
        )

    made = jax.jit(make, out_shardings=placement)(kept, current.step, current.data_step, skipped)
    jax.tree.map(lambda leaf: leaf.delete(), moments)
    return made, ['/'.join(path[1:]) for path in wanted if path not in kept]
