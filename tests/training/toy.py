"""A small regression task with a stacked layer, dropout and statistics in ``extra``."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax.training import optimizer as optimizer_lib
from alm_jax.training import sharding, state

WIDTH, DEPTH = 4, 3


class ToyTask:
    def init(self, rng):
        keys = jax.random.split(rng, 3)
        params = {
            'tower': {
                'layers': {
                    'kernel': jax.random.normal(keys[0], (DEPTH, WIDTH, WIDTH)) / 2,
                    'bias': jnp.zeros((DEPTH, WIDTH)),
                },
                'patches': {'kernel': jax.random.normal(keys[1], (WIDTH, WIDTH)) / 2},
            },
            'head': {'kernel': jax.random.normal(keys[2], (WIDTH, 1))},
        }
        return params, {'seen': {'mean': jnp.zeros(())}}

    def loss(self, params, extra, batch, rng):
        x = batch['x'] @ params['tower']['patches']['kernel'].astype(jnp.float32)
        for i in range(DEPTH):
            layer = jax.tree.map(lambda a, i=i: a[i], params['tower']['layers'])
            x = jnp.tanh(x @ layer['kernel'] + layer['bias'])
        x = x * jax.random.bernoulli(rng, 0.9, x.shape)
        y = (x @ params['head']['kernel'])[:, 0]
        loss = jnp.mean((y - batch['y']) ** 2)
        return loss, ({'mean_y': jnp.mean(y)}, {'seen': {'mean': jnp.mean(batch['x'])}})

    def after_update(self, params, extra, step):
        return extra


def batch(data_step, rows=8):
    rng = np.random.default_rng(data_step)
    x = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    return {'x': x, 'y': np.sin(x.sum(axis=1))}


def make_config(**changes) -> ConfigDict:
    config = config_lib.base()
    config.steps = 40
    config.optimizer.learning_rate = 0.01
    config.optimizer.no_decay = (r'bias$',)
    for key, value in changes.items():
        group, _, name = key.rpartition('__')
        (config[group] if group else config)[name or key] = value
    return config


def make(config):
    """(task, optimizer, mesh, state) of a fresh run."""
    task, mesh = ToyTask(), sharding.make_mesh(config.mesh)
    rng = jax.random.key(config.seed)
    abstract_params, _ = jax.eval_shape(task.init, rng)
    optimizer = optimizer_lib.make_optimizer(config, abstract_params)
    fresh = jax.jit(
        lambda rng: state.create(*task.init(rng), optimizer),
        out_shardings=sharding.replicated(mesh),
    )(rng)
    return task, optimizer, mesh, fresh
