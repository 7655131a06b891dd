"""A few steps of small captioning towers on 1 and on 4 of 4 forced devices; run as a program.

``python captioning_run.py OUT.npz`` writes the losses, 'one' and 'four'.
"""

import sys

import jax
import numpy as np
import small_run

from alm_jax.models.text import bert
from alm_jax.tasks import build_task
from alm_jax.training import optimizer as optimizer_lib
from alm_jax.training import param_sharding, sharding, state, step

STEPS = 6
WEIGHTS = {'contrastive': 1.0, 'captioning': 2.0, 'matching': 0.5}
MESHES = {'one': {'data': 1}, 'four': {'data': 2, 'fsdp': 2}}


def make_config(plain=False):
    """All three losses; with ``plain`` neither dropout nor augmentation."""
    config = small_run.make_config()
    dropout = 0.0 if plain else 0.1
    size = bert.Size(32, 1, 2, vocabulary=2048, positions=small_run.TOKENS)
    config.model.family = 'captioning_towers'
    config.model.text = {'name': 'bert', 'variant': size, 'dropout': dropout}
    config.model.decoder = {'width': 32, 'depth': 1, 'heads': 2, 'vocabulary': 2048}
    config.model.decoder.dropout = dropout
    config.task.name = 'contrastive_captioning'
    config.task.weights = WEIGHTS
    config.task.token_chunk = 5
    if plain:
        config.augment = {**config.augment, 'gain_db': 0.0, 'shift_seconds': 0.0}
        config.augment.time_masks = config.augment.freq_masks = 0
        config.model.audio.dropout = config.model.dropout = 0.0
    return config


def losses(name):
    """float32 [STEPS] on one of the meshes."""
    config, axes = make_config(), MESHES[name]
    mesh = sharding.make_mesh(axes, jax.devices()[: np.prod(list(axes.values()))])
    task = build_task(config, mesh=mesh)

    def init():
        return task.init(jax.random.key(config.seed), small_run.batch(0))

    optimizer = optimizer_lib.make_optimizer(config, jax.eval_shape(init)[0])
    planned = state.abstract(init, optimizer)
    placement = param_sharding.of_state(planned, mesh, config.sharding.params)
    current = jax.jit(lambda: state.create(*init(), optimizer), out_shardings=placement)()
    train_step = step.make_train_step(
        task, optimizer, seed=config.seed, mesh=mesh, placement=placement
    )
    found = []
    for data_step in range(STEPS):
        current, metrics = train_step(current, sharding.put_batch(small_run.batch(data_step), mesh))
        found.append(jax.device_get(metrics['loss']))
    return found


def main(out):
    np.savez(out, **{name: losses(name) for name in MESHES})


if __name__ == '__main__':
    main(sys.argv[1])
