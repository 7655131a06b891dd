"""Prints, for the configs named as arguments, what their step takes, as JSON; compiles nothing.

An argument is the path of a config, or PATH@STAGE.

A topology's devices are stood in for by as many forced ones of this machine. With 'compile' as the
first argument they are its own, and the report and the arguments of the compiled step come beside.
"""

import json
import math
import re
import sys

import jax

from alm_jax import compile as compile_lib
from alm_jax import config as config_lib
from alm_jax.training import sharding, stages
from alm_jax.training.perf import hlo_text, report, topology


def number(name):
    """Devices of 'v5e:16x16*2'."""
    return math.prod(map(int, re.findall(r'\d+', name.partition(':')[2])))


def local(tree):
    """[shape, dtype] of every leaf as one device holds it."""
    leaves = jax.tree.leaves(tree)
    return [[leaf.sharding.shard_shape(leaf.shape), str(leaf.dtype)] for leaf in leaves]


def compiled(planned, where):
    lowered = planned.train_step.lower(planned.state, planned.batch)
    program = lowered.compile(dict(where.compiler_options))
    module = hlo_text.parse(program.as_text())
    entry = module.computations[module.entry]
    taken = [i.arrays[0].dims for i in entry.instructions if i.opcode == 'parameter']
    return {'report': report.of_program(program, planned.flops, where, 0.0), 'taken': taken}


def plan(argument, with_compiler):
    path, _, name = argument.partition('@')
    whole = config_lib.experiment(path).get_config()
    (config,) = (stage.config for stage in stages.of(whole) if stage.name == name)
    where = topology.describe(config.topology) if with_compiler else None
    devices = where.devices if where else jax.devices()[: number(config.topology)]
    planned = compile_lib.program(config, sharding.make_mesh(config.mesh, devices))
    state, metrics = jax.eval_shape(planned.train_step, planned.state, planned.batch)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, planned.state)]
    return {
        'name': config.name,
        'batch_size': config.batch_size,
        'devices': len(devices),
        'batch': {name: [x.shape, str(x.dtype)] for name, x in planned.batch.items()},
        'local_batch': local(planned.batch),
        'local_state': local(planned.state),
        'metrics': sorted(metrics),
        'state_stays_as_it_is': shapes[0] == shapes[1],
        'model_flops': planned.flops.model,
        'uncounted': planned.flops.uncounted,
        'table': planned.table,
        **(compiled(planned, where) if where else {}),
    }


with_compiler = sys.argv[1] == 'compile'
paths = sys.argv[1 + with_compiler :]
print(json.dumps({path: plan(path, with_compiler) for path in paths}))
