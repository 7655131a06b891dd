"""Prints what a step of micro-batches gathers on four devices that share parameters, as JSON.

The towers are those of the flagship of large batches, made small: windows that roll, and text.
"""

import json
import math

import jax

from alm_jax import compile as compile_lib
from alm_jax import config as config_lib
from alm_jax.training import sharding
from alm_jax.training.perf import hlo_costs


def gathered(rows):
    """Bytes and parameters of a step of ``rows`` pairs."""
    path = 'configs/clap/htsat_roberta_large_batch.py'
    config = config_lib.experiment(path).get_config('smoke')
    mesh = {'data': 1, 'fsdp': 4}
    config = compile_lib.changed(
        config, mesh=mesh, batch_size=rows, micro_batches=4, compute_dtype='float32'
    )
    planned = compile_lib.program(config, sharding.make_mesh(config.mesh))
    compiled = planned.train_step.lower(planned.state, planned.batch).compile()
    found = hlo_costs.costs(compiled.as_text()).collectives()
    leaves = jax.tree.leaves(planned.state.params)
    return {
        'bytes': sum(row['bytes'] for row in found if row['kind'] == 'all-gather'),
        'parameters': 4 * sum(math.prod(leaf.shape) for leaf in leaves),
        'collectives': found,
    }


print(json.dumps({rows: gathered(rows) for rows in (16, 32)}))
