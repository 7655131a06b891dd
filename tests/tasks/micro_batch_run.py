"""The small run in micro-batches and on several meshes; run as a program on 4 forced devices.

``python micro_batch_run.py OUT.npz`` writes for every case the losses of a few steps, the gradient
of the first as one vector, the program's temporary bytes and what of its rows it moved.
"""

import functools
import re
import sys

import jax
import jax.flatten_util
import numpy as np
import small_run

from alm_jax.models.text import bert
from alm_jax.tasks import build_task
from alm_jax.training import optimizer as optimizer_lib
from alm_jax.training import param_sharding, sharding, state, step

STEPS = 4
# name -> (mesh, micro-batches, forms of the objective, of which the mean is taken)
RUNS = {
    'whole': ({'data': 1}, 1, ('dense',)),
    'one': ({'data': 1}, 8, ('dense',)),
    'two': ({'data': 2}, 4, ('chunked',)),
    'four': ({'data': 2, 'fsdp': 2}, 4, ('dense', 'chunked', 'ring')),
}


def make_config():
    """Gain, shift, noise, SpecAugment and dropout on; gradients as they are."""
    config = small_run.make_config()
    config.augment.noise_snr_db = (5.0, 20.0)
    size = bert.Size(64, 2, 2, vocabulary=2048, positions=small_run.TOKENS)
    config.model.text = {'name': 'bert', 'variant': size, 'dropout': 0.1}
    config.task.chunk = 3
    config.optimizer.clip_norm = 1e9
    return config


def mean_of(forms, config, mesh):
    """The objective as the mean of forms, which are all the same number."""
    objectives = []
    for config.task.form in forms:
        objectives.append(build_task(config, mesh=mesh)._objective)
    return lambda out, batch: sum(form(out, batch) for form in objectives) / len(objectives)


def moved_rows(program):
    """Lines of the compiled program that send waveforms, or frames, from device to device."""
    kinds = 'all-to-all|all-gather|collective-permute|all-reduce|reduce-scatter'
    sent = [line for line in program.splitlines() if re.search(rf' ({kinds})(-start)?\(', line)]
    assert any('all-reduce' in line for line in sent)
    frames = small_run.SAMPLES // 160
    rows = re.compile(rf'all-to-all|s16\[|\b{small_run.SAMPLES}\b|,{frames},|,{frames + 1},')
    return [line for line in sent if rows.search(line.split(' = ')[1].split('metadata')[0])]


def run(name):
    """{what: value} of a case."""
    axes, count, forms = RUNS[name]
    config = make_config()
    devices = int(np.prod(list(axes.values())))
    mesh = sharding.make_mesh(axes, jax.devices()[:devices])
    task = build_task(config, mesh=mesh)
    task._objective = mean_of(forms, config, mesh)

    def init():
        return task.init(jax.random.key(config.seed), small_run.batch(0))

    optimizer = optimizer_lib.make_optimizer(config, jax.eval_shape(init)[0])
    planned = state.abstract(init, optimizer)
    placement = param_sharding.of_state(planned, mesh, config.sharding.params)
    jitted = step.make_train_step(
        task, optimizer, seed=config.seed, mesh=mesh, placement=placement, micro_batches=count
    )
    current = jax.device_put(first_state(), placement)
    program = jitted.lower(current, sharding.put_batch(small_run.batch(0), mesh)).compile()
    found = {
        'temporary': program.memory_analysis().temp_size_in_bytes,
        'moved': moved_rows(program.as_text()) if devices > 1 else [],
        'losses': [],
    }
    for data_step in range(STEPS):
        batch = sharding.put_batch(small_run.batch(data_step), mesh)
        current, metrics = program(current, batch)
        found['losses'].append(jax.device_get(metrics['loss']))
        if not data_step:  # Adam's first moment is the gradient times 1 - b1
            first = jax.device_get(current.opt_state['transform'][1].mu)
            vector = jax.flatten_util.ravel_pytree(first)[0] / (1 - config.optimizer.b1)
            found['gradient'] = np.asarray(vector)
    return found


@functools.cache
def first_state():
    """The same for every case."""
    config = make_config()
    task = build_task(config)

    def init():
        return task.init(jax.random.key(config.seed), small_run.batch(0))

    optimizer = optimizer_lib.make_optimizer(config, jax.eval_shape(init)[0])
    return jax.device_get(jax.jit(lambda: state.create(*init(), optimizer))())


def main(out):
    found = {}
    for name in RUNS:
        found |= {f'{what}_{name}': value for what, value in run(name).items()}
    np.savez(out, **found)


if __name__ == '__main__':
    main(sys.argv[1])
