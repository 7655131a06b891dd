"""On four devices: a row on the last of them that is not a number skips the update on all."""

import os

os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'

import jax
import numpy as np
import toy

from alm_jax.training import param_sharding, sharding, state, step


def bits(tree):
    """Of every leaf, what each device holds."""
    leaves = jax.tree.leaves(tree)
    return [[np.asarray(s.data).tobytes() for s in leaf.addressable_shards] for leaf in leaves]


for mesh_of in ({'data': 4}, {'data': 1, 'fsdp': 4}):
    config = toy.make_config()
    config.mesh.update(mesh_of)
    task, optimizer, mesh, fresh = toy.make(config)
    shapes = state.abstract(lambda task=task: task.init(jax.random.key(0)), optimizer)
    placement = param_sharding.of_state(shapes, mesh, ((r'kernel$', ('fsdp', None)),))
    current = jax.device_put(fresh, placement)
    split = len({str(s.index) for s in current.params['head']['kernel'].addressable_shards})
    assert split == mesh.shape['fsdp'], split
    take = step.make_train_step(task, optimizer, seed=0, mesh=mesh, placement=placement)
    current, _ = take(current, sharding.put_batch(toy.batch(0), mesh))
    kept = bits((current.params, current.opt_state['transform'], current.extra))
    batch = toy.batch(1)
    batch['x'][-1, 0] = np.nan
    current, _ = take(current, sharding.put_batch(batch, mesh))
    assert bits((current.params, current.opt_state['transform'], current.extra)) == kept
    skipped = [int(s.data) for s in current.opt_state['skipped'].addressable_shards]
    assert skipped == [1, 1, 1, 1], skipped
    current, _ = take(current, sharding.put_batch(toy.batch(2), mesh))
    assert bits(current.params) != kept[: len(jax.tree.leaves(current.params))]
    print('alike')
