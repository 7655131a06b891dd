"""What is wrong with a run, found before any minute is spent.

That is before data is opened, weights are fetched or read, and anything is compiled; of the last
check it is before weights are read. A value that is wrong by itself is ``config.validate``'s; here
is what depends on the devices, on files and on the shapes of the model.
"""

import itertools
import math
import pathlib
import shutil
from collections.abc import Sequence

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alm_jax.audio import presets
from alm_jax.config import ConfigError, choose
from alm_jax.data import dialogue_rows, transforms
from alm_jax.evals.build import EVALUATORS
from alm_jax.interop import init_from, packaged_weights
from alm_jax.run_setup import Prepared
from alm_jax.tasks import TASKS
from alm_jax.training import sharding
from alm_jax.training import stages as stages_lib
from alm_jax.training.stages import Stage


def names(stages: Sequence[Stage], mesh: Mesh) -> None:
    """Raises ConfigError for a batch that does not divide over ``mesh``, or a name of nothing."""
    for stage in stages:
        config = stage.config
        with stages_lib.named(stage.name):
            sharding.check_batch_size(config.batch_size, mesh, micro_batches=config.micro_batches)
            choose(presets.PRESETS, config.front_end.preset, where='front_end.preset')
            choose(TASKS, config.task.name, where='task.name')
            for name, entry in config.evals.items():
                choose(EVALUATORS, entry['evaluator'], where=f'evals.{name}.evaluator')


def sources(config: ConfigDict) -> None:
    """Raises ConfigError for a tokenizer or weights of a new run that are nowhere to be found."""
    known = {'text.tokenizer': config.text.tokenizer}
    known |= {f'init_from.{part}': source for part, source in config.init_from.items()}
    for key, source in known.items():
        kind, colon, name = source.partition(':')
        if source == init_from.IDENTITY:
            continue
        if colon and f'{kind}:' in (init_from.PACKAGED, init_from.CLASS_NAMES):
            choose(packaged_weights.PACKAGES, name, where=key)
        elif not pathlib.Path(source).expanduser().exists():
            raise ConfigError(
                f'config.{key} is {source!r}, which does not exist. Name a file or folder, or '
                f'packaged:NAME of {", ".join(packaged_weights.PACKAGES)}.'
            )


def planned(
    workdir: pathlib.Path, config: ConfigDict, prepared: Sequence[Prepared], step: int
) -> None:
    """Raises ConfigError for what the shapes of a run tell.

    Args:
      workdir: of the run.
      config: of the run; ``init_from`` is read by a new run only.
      prepared: its stages.
      step: from which it goes on; 0 is a new run.
    """
    if not step:
        init_from.check_parts(prepared[0].planned.params, config.init_from)
    for one in prepared:
        with stages_lib.named(one.stage.name):
            _check_rows(one)
    size = max(checkpoint_bytes(one.planned) for one in prepared)
    check_disk(workdir, config, size, step)


def _check_rows(one: Prepared) -> None:
    """Builds what makes rows of records, and forgets it."""
    if not one.stage.config.data.text.dialogue:
        transforms.build(one.stage.config, **one.front_end)
        return
    dialogue_rows.build(
        one.stage.config,
        **one.front_end,
        tokenizer=one.task.predictors.tokenizer,
        vectors_of_frames=getattr(one.task, 'vectors_of_frames', None),
    )


def checkpoint_bytes(state: object) -> int:
    """Of a checkpoint of a state, concrete or as shapes; what Orbax adds is little."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def check_disk(workdir: pathlib.Path, config: ConfigDict, size: int, step: int) -> None:
    """Raises ConfigError when the disk of ``workdir`` cannot hold the checkpoints to come.

    An old one goes only when the new one is complete, so that there is one more than are kept.

    Args:
      workdir: of the run.
      config: reads ``checkpoint``, ``steps`` and ``stages``.
      size: bytes of a checkpoint.
      step: from which the run goes on.
    """
    count = checkpoints_to_come(
        config, step, len(list(workdir.glob('checkpoints/*/manifest.json')))
    )
    free = shutil.disk_usage(workdir).free
    if count * size <= free:
        return
    keep, short = config.checkpoint.keep, _bytes(count * size - free)
    needed = f'for one checkpoint, {_bytes(size)}'
    if count > 1:
        needed = f'for {count} checkpoints of {_bytes(size)}, {_bytes(count * size)} in all'
    raise ConfigError(
        f'the disk of workdir {workdir} has {_bytes(free)} free, too little {needed} '
        f'(config.checkpoint.keep is {keep}, and one more is there while it is written). Free '
        f'{short}, choose another --workdir, or keep fewer.'
    )


def checkpoints_to_come(config: ConfigDict, step: int, existing: int) -> int:
    """By how many more than now there will be at a time, from ``step`` on."""
    if step >= config.steps:
        return 0

    def multiples(every: int) -> int:
        return config.steps // every - step // every

    options = config.checkpoint
    stops = itertools.accumulate(stage['steps'] for stage in config.stages)
    kept = sum(stop > step for stop in stops)
    saves = multiples(options.every) + bool(config.steps % options.every) + kept
    kept += multiples(math.lcm(options.every, options.keep_every)) if options.keep_every else 0
    passing = options.keep + bool(options.best) + 1
    return min(saves, kept + max(passing - existing, 1))


def _bytes(count: int) -> str:
    """'1.5 GB', '20 MB'."""
    for unit, size in (('TB', 1e12), ('GB', 1e9), ('MB', 1e6)):
        if count >= size:
            return f'{count / size:.3g} {unit}'
    return f'{count / 1e3:.3g} kB'
