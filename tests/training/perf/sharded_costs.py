"""Prints the costs of one gradient on one device, and of eight's shares of it, as JSON."""

import json

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from alm_jax.training.perf import hlo_costs


def step(params, x):
    def layer(x, kernels):
        up, down = kernels
        return x + jnp.tanh(x @ up) @ down, None

    def loss(params):
        return jnp.sum(jax.lax.scan(layer, x, params)[0] ** 2)

    return jax.grad(loss)(params)


def costs(params_specs, x_spec, devices):
    mesh = jax.make_mesh((len(devices),), ('d',), (AxisType.Auto,), devices=devices)

    def placed(shape, spec):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))

    params = (
        placed((6, 128, 256), params_specs[0]),
        placed((6, 256, 128), params_specs[1]),
    )
    out = tuple(leaf.sharding for leaf in params)
    lowered = jax.jit(step, out_shardings=out).lower(params, placed((64, 128), x_spec))
    found = hlo_costs.costs(lowered.compile().as_text())
    assert not found.uncounted, found.uncounted
    return {'flops': found.flops, 'collectives': found.collectives()}


whole = P()
tensor = (P(None, None, 'd'), P(None, 'd', None))
print(
    json.dumps(
        {
            'whole': costs((whole, whole), whole, jax.devices()[:1]),
            'data': costs((whole, whole), P('d'), jax.devices()),
            'tensor': costs(tensor, whole, jax.devices()),
        }
    )
)
