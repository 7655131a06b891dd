"""Compiles a config's training step for devices that are not there, and says what it will cost.

  python -m alm_jax.compile --config configs/clap/htsat_roberta_large_batch.py
  python -m alm_jax.compile --config FILE --topology h100:8 --out DIR --max_batch
  python -m alm_jax.compile --config FILE --topology v5p:4x4x4 --out DIR --sweep

The topology is the config's own where none is given, and DIR runs/plan/NAME of the experiment.
Writes DIR/compile/report.json and prints it as a table. Of a config with stages each is compiled,
for DIR/STAGE/compile/report.json, and the report in DIR is of the one that takes most memory. What
is compiled is the step that ``alm_jax.train`` runs: its task, optimizer, shardings and donation,
with shapes for arrays. Needs the compiler of the topology, the extras [tpu] or [cuda], and neither
a device nor data.
"""

import os
import sys

os.environ['TPU_SKIP_MDS_QUERY'] = '1'  # before jax is imported: nothing here asks for a TPU
os.environ['JAX_PLATFORMS'] = 'cpu'

import dataclasses
import itertools
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax import run_setup
from alm_jax.config import ConfigError
from alm_jax.training import param_sharding, sharding, stages, state, step
from alm_jax.training.perf import model_flops, report, topology

SWEEP_MESHES = ({'data': -1}, {'data': -1, 'fsdp': 16}, {'data': 1, 'fsdp': -1})
SWEEP_BATCHES = (1, 2, 4)  # times the config's
SWEEP_REMAT = ('none', 'dots', 'block')
PRECISION = 16  # --max_batch is found to a sixteenth


@dataclasses.dataclass(frozen=True)
class Program:
    """A training step before compilation.

    Attributes:
      train_step: from ``step.make_train_step``.
      state: its first argument, shapes with shardings.
      batch: its second.
      flops: of the model, over the global batch.
      table: where every parameter lies, see ``param_sharding.table``.
    """

    train_step: Any
    state: state.TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    flops: model_flops.ModelFlops
    table: str


def program(config: ConfigDict, mesh: Mesh) -> Program:
    """The step that ``train(config)`` would run on ``mesh``, for its largest kind of batch.

    Args:
      config: of a run without stages, or of one stage (``stages.of``).
      mesh: of the devices.

    Raises:
      ConfigError: as ``train`` does.
    """
    config_lib.validate(config)
    (one,) = stages.of(config)
    one = run_setup.prepare(one, mesh)
    spec = max(one.specs, key=lambda spec: sum(math.prod(array.shape) for array in spec.values()))
    rows = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows)
        for name, array in spec.items()
    }
    return Program(
        train_step=step.make_train_step(
            one.task,
            one.optimizer,
            seed=config.seed,
            mesh=mesh,
            placement=one.placement,
            micro_batches=config.micro_batches,
        ),
        state=param_sharding.abstract(one.planned, one.placement),
        batch=batch,
        flops=model_flops.of_step(one.task, one.optimizer, one.planned, batch),
        table=param_sharding.table(one.planned, one.placement),
    )


def compile_for(config: ConfigDict, where: topology.Topology) -> tuple[dict[str, Any], str]:
    """The step of ``config`` compiled for ``where``: its report and the table of parameters.

    A step that the compiler finds too large for the memory gives a report as well.

    Raises:
      ConfigError: what the user can mend.
    """
    planned = program(config, sharding.make_mesh(config.mesh, where.devices))
    began = time.monotonic()
    try:
        lowered = planned.train_step.lower(planned.state, planned.batch)
        compiled = lowered.compile(dict(where.compiler_options))
    except jax.errors.JaxRuntimeError as error:
        found = report.of_failure(error, where, time.monotonic() - began)
        found['model_flops'] = planned.flops.model
    else:
        seconds = time.monotonic() - began
        found = report.of_program(compiled, planned.flops, where, seconds)
    return found, planned.table


def largest_batch(fits: Callable[[int], bool], start: int, unit: int) -> int:
    """The largest multiple of ``unit`` that fits, found to 1 / PRECISION; 0 when none does.

    Args:
      fits: whether a batch does; asked about twice the logarithm of their number.
      start: the first that is tried.
      unit: what a batch is a multiple of.
    """
    low, high = 0, max(1, start // unit)
    while fits(high * unit):
        low, high = high, 2 * high
    while high - low > max(1, low // PRECISION):
        middle = (low + high) // 2
        if fits(middle * unit):
            low = middle
        else:
            high = middle
    return low * unit


def find_max_batch(config: ConfigDict, where: topology.Topology) -> dict[str, Any]:
    """The report of the largest batch that fits, with 'max_batch' and the batches tried.

    Raises:
      ConfigError: not even the smallest fits.
    """
    mesh = sharding.make_mesh(config.mesh, where.devices)
    unit = sharding.batch_devices(mesh) * config.micro_batches
    tried: dict[int, dict[str, Any]] = {}

    def fits(batch_size: int) -> bool:
        tried[batch_size], _ = compile_for(changed(config, batch_size=batch_size), where)
        say(f'batch {batch_size}: {verdict(tried[batch_size])}')
        return tried[batch_size]['fits']

    found = largest_batch(fits, config.batch_size, unit)
    if not found:
        raise ConfigError(
            f'not even a batch of {unit} fits {where.name}. Set config.remat, share parameters '
            'through config.mesh.fsdp, or take a larger topology.'
        )
    return {**tried[found], 'max_batch': found, 'tried': sorted(tried)}


def sweep(
    config: ConfigDict,
    where: topology.Topology,
    meshes: Sequence[dict[str, int]] = SWEEP_MESHES,
    batches: Sequence[int] = SWEEP_BATCHES,
    policies: Sequence[str] = SWEEP_REMAT,
) -> list[dict[str, Any]]:
    """Reports for meshes, batches and remat policies, each printed as a row when it is done.

    Args:
      config: of which the rest is taken.
      where: what it is compiled for.
      meshes: values of ``config.mesh``.
      batches: times ``config.batch_size``.
      policies: values of ``config.remat``.
    """
    say(f'{"mesh":24}{"batch":>9}  {"remat":6}  verdict')
    rows = []
    for mesh, times, remat in itertools.product(meshes, batches, policies):
        case = {'mesh': mesh, 'batch_size': times * config.batch_size, 'remat': remat}
        try:
            found, _ = compile_for(changed(config, **case), where)
        except ConfigError as error:
            found = {'error': str(error)}
        rows.append({**case, **found})
        axes = ','.join(f'{axis}={size}' for axis, size in mesh.items())
        say(f'{axes:24}{case["batch_size"]:9}  {remat:6}  {verdict(found)}')
    return rows


def changed(config: ConfigDict, **values: Any) -> ConfigDict:
    """A copy of ``config`` with other values at its top level."""
    copy = config.copy_and_resolve_references()
    with copy.ignore_type(), copy.unlocked():
        for key, value in values.items():
            copy[key] = ConfigDict(value) if isinstance(value, dict) else value
    return copy


def verdict(found: dict[str, Any]) -> str:
    """Memory, time and whether it fits, in one line."""
    if 'topology' not in found:
        return found['error']
    if 'error' in found:
        return 'OUT OF MEMORY'
    share = found['peak_bytes_per_device'] / found['capacity_bytes']
    seconds, mfu = found['roofline_seconds'], found['roofline_mfu']
    fits = 'fits' if found['fits'] else 'OUT OF MEMORY'
    return f'{fits}: {share:.1%} of memory, {seconds * 1e3:.2f} ms a step, MFU {mfu:.1%}'


def write(folder: pathlib.Path, name: str, content: Any) -> None:
    """``content`` as text, or as JSON, to folder/compile/name."""
    path = folder / 'compile' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, indent=1) + '\n'
    path.write_text(text)


def say(text: str) -> None:
    """One line to the user."""
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int | None:
    del argv
    config = flags.FLAGS.config
    if config is None:
        raise ConfigError('give --config FILE[:args], such as configs/clap/vit_b_h100.py.')
    name = flags.FLAGS.topology or config.topology
    if not name:
        raise ConfigError(f'give --topology, such as {topology.EXAMPLES}, or set config.topology.')
    out = pathlib.Path(flags.FLAGS.out or f'runs/plan/{config.name}')
    where = topology.describe(name)
    config_lib.validate(config)
    chosen = {stage.name: stage.config for stage in stages.of(config)}
    if wanted := flags.FLAGS.stage:
        chosen = {wanted: config_lib.choose(chosen, wanted, where='stages, by --stage')}
    found = {}
    for stage, own in chosen.items():
        with stages.named(stage):
            found[stage] = {'stage': stage, **plan(own, where, out / stage)}
    if flags.FLAGS.sweep:
        return None
    most = max(found.values(), key=lambda one: one['peak_bytes_per_device'])
    write_report(out, most)
    return None if most['fits'] else 1


def plan(config: ConfigDict, where: topology.Topology, out: pathlib.Path) -> dict[str, Any]:
    """What the flags ask for of one stage, written under ``out``; a report, but of a sweep."""
    if flags.FLAGS.sweep:
        write(out, 'sweep.json', sweep(config, where))
        return {}
    if flags.FLAGS.max_batch:
        found = find_max_batch(config, where)
        say(f'largest batch that fits, to a sixteenth: {found["max_batch"]}')
    else:
        found, parameters = compile_for(config, where)
        write(out, 'sharding.txt', parameters)
    write_report(out, found)
    print(report.table(found), end='')
    return found


def write_report(out: pathlib.Path, found: dict[str, Any]) -> None:
    """compile/report.json and report.txt under ``out``."""
    write(out, 'report.json', found)
    write(out, 'report.txt', report.table(found))


if __name__ == '__main__':
    config_lib.define_config_flag()
    flags.DEFINE_string('topology', '', 'What to compile for, such as v5e:16x16 or h100:8.')
    flags.DEFINE_string('stage', '', 'Of config.stages; each is compiled where none is named.')
    flags.DEFINE_string('out', '', 'Folder; the report goes to compile/ in it.')
    flags.DEFINE_bool('max_batch', False, 'Find the largest batch that fits.')
    flags.DEFINE_bool('sweep', False, 'Compile for several meshes, batches and remat policies.')
    config_lib.run(main)
