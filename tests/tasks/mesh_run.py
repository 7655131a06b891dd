"""The small run on several meshes of 8 forced devices; run as a program.

``python mesh_run.py FOLDER`` writes found.npz: losses by mesh, what was placed where, and how
restores on other meshes and embeddings on one compare.
"""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import small_run

from alm_jax.models.layers.placement import activation_axes, placed
from alm_jax.models.text import bert
from alm_jax.tasks import build_task
from alm_jax.training import checkpoint, param_sharding, sharding, state, step
from alm_jax.training import optimizer as optimizer_lib

STEPS = 10
# name -> (mesh, devices, form of the objective)
RUNS = {
    'one': ({'data': 1}, 1, 'dense'),
    'data': ({'data': 8}, 8, 'dense'),
    'fsdp': ({'data': 2, 'fsdp': 4}, 8, 'ring'),
    'tensor': ({'data': 2, 'fsdp': 2, 'tensor': 2}, 8, 'chunked'),
}


def prepared(name):
    """(config, mesh, task, optimizer, shapes and placement of the state) of a run."""
    axes, devices, form = RUNS[name]
    config = small_run.make_config()
    config.task.form, config.task.chunk = form, 3
    # Eight copies of a whole vocabulary and its moments would take half the time.
    size = bert.Size(64, 2, 2, vocabulary=2048, positions=small_run.TOKENS)
    config.model.text = {'name': 'bert', 'variant': size, 'dropout': 0.1}
    config.freeze = (r'^audio/patch_embedding', r'^text/layers/\d+/mlp')
    mesh = sharding.make_mesh(axes, jax.devices()[:devices])
    task = build_task(config, tokenizer=small_run.tokenizer(), mesh=mesh)

    def init():
        return task.init(jax.random.key(config.seed), small_run.batch(0))

    optimizer = optimizer_lib.make_optimizer(config, jax.eval_shape(init)[0])
    shapes = state.abstract(init, optimizer)
    placement = param_sharding.of_state(shapes, mesh, config.sharding.params)
    fresh = jax.jit(lambda: state.create(*init(), optimizer), out_shardings=placement)
    return config, mesh, task, optimizer, shapes, placement, fresh


def trained(name):
    """(losses float32 [STEPS], last state, its placement)."""
    config, mesh, task, optimizer, _, placement, fresh = prepared(name)
    train_step = step.make_train_step(
        task, optimizer, seed=config.seed, mesh=mesh, placement=placement
    )
    run, losses = fresh(), []
    for data_step in range(STEPS):
        batch = sharding.put_batch(small_run.batch(data_step), mesh)
        run, metrics = train_step(run, batch)
        losses.append(metrics['loss'])
    return np.asarray(jax.device_get(losses)), run, placement


def bytes_on_first_device(tree):
    first = jax.devices()[0]
    shards = [s for leaf in jax.tree.leaves(tree) for s in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == first)


def restores(folder, run):
    """Names of meshes on which the checkpoint of ``run`` differs from it or lies elsewhere."""
    with checkpoint.Checkpointer(folder, keep=1) as saver:
        saver.save(run)
    kept, wrong = jax.device_get(run), []
    for fsdp in (1, 2, 4):
        mesh = sharding.make_mesh({'data': 8 // fsdp, 'fsdp': fsdp})
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), run)
        placement = param_sharding.of_state(shapes, mesh, small_run.make_config().sharding.params)
        wanted = param_sharding.abstract(shapes, placement)
        found = checkpoint.restore(checkpoint.latest_complete(folder), wanted)
        leaves = map(jax.tree.leaves, (found, kept, placement))
        same = all(
            np.asarray(new).tobytes() == old.tobytes() and new.sharding == where
            for new, old, where in zip(*leaves, strict=True)
        )
        wrong += [] if same else [f'fsdp {fsdp}']
    return wrong


def embeddings_differ():
    """Whether clips embed to other bits on a mesh with a tensor axis than on one device."""
    _, _, task, _, _, _, fresh = prepared('tensor')
    start = fresh()
    many = task.predictors
    one = dataclasses.replace(many, mesh=None)
    params, extra = jax.device_get((start.params, start.extra))
    clips = small_run.clips(12)
    on_mesh = many.embed_audio(start.params, start.extra, clips)
    return on_mesh.tobytes() != one.embed_audio(params, extra, clips).tobytes()


def placed_shards():
    """Shapes of a shard of [8, 6, 4] with names; of 7 positions; and without a mesh."""
    mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'sequence': 2})
    rules = small_run.make_config().sharding.activations

    @jax.jit
    def f(x):
        with activation_axes(mesh, param_sharding.logical_axes(rules, mesh)):
            return placed(x, 'batch', 'length', None)

    shapes = [f(jnp.zeros((8, t, 4))).addressable_shards[0].data.shape for t in (6, 7)]
    x = jnp.zeros(3)
    return shapes == [(2, 3, 4), (2, 7, 4)] and placed(x, 'batch') is x


def main(folder):
    folder = pathlib.Path(folder)
    found = {}
    for name in RUNS:
        found[f'losses_{name}'], run, placement = trained(name)
        found[f'params_{name}'] = bytes_on_first_device(run.params)
        found[f'moments_{name}'] = bytes_on_first_device(run.opt_state)
        table = param_sharding.table(run, placement).splitlines()
        totals = [int(line.split()[-1].replace(',', '')) for line in table[-3:-1]]
        found[f'table_{name}'] = totals
        query = run.params['audio']['layers']['attn']['query']['kernel']
        found[f'query_{name}'] = query.addressable_shards[0].data.shape
        if name == 'fsdp':
            found['wrong_restores'] = np.asarray(restores(folder, run), str)
    found['embeddings_differ'] = embeddings_differ()
    found['placed'] = placed_shards()
    np.savez(folder / 'found.npz', **found)


if __name__ == '__main__':
    main(sys.argv[1])
