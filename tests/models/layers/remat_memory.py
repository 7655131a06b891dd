"""Bytes of a stack's gradient by remat policy, for a topology whose compiler this Python has.

``python remat_memory.py TOPOLOGY`` prints {policy: [temporaries of a device, of its host]} as JSON.
"""

import os

os.environ['TPU_SKIP_MDS_QUERY'] = '1'  # before jax is imported: nothing here asks for a TPU
os.environ['JAX_PLATFORMS'] = 'cpu'

import json
import sys

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from alm_jax.models.layers.transformer import transformer_stack
from alm_jax.training import sharding
from alm_jax.training.perf import report, topology

DEPTH, ROWS, LENGTH, WIDTH = 12, 16, 128, 256  # rows of a device


class Stack(nn.Module):
    remat: str

    @nn.compact
    def __call__(self, x):
        block = {'heads': 4, 'mlp_width': 4 * WIDTH, 'dtype': jnp.bfloat16}
        return transformer_stack(DEPTH, remat=self.remat, **block)(x)[0]


def memory(remat: str, where: topology.Topology) -> dict[str, int]:
    """Of value and gradient, rows over all devices."""
    mesh = sharding.make_mesh({'data': -1}, where.devices)
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows = NamedSharding(mesh, PartitionSpec(sharding.batch_axes(mesh)))
    shape = (ROWS * len(where.devices), LENGTH, WIDTH)
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=rows)
    stack = Stack(remat)

    def loss(params, x):
        return jnp.sum(jnp.sin(stack.apply(params, x).astype(jnp.float32)))

    gradient = jax.jit(jax.value_and_grad(loss), in_shardings=(everywhere, rows))
    lowered = gradient.lower(jax.eval_shape(stack.init, jax.random.key(0), x), x)
    return report.memory_of(lowered.compile(dict(where.compiler_options)))


def main(name):
    where = topology.describe(name)
    found = {remat: memory(remat, where) for remat in ('none', 'dots', 'offload')}
    print(json.dumps(found))


if __name__ == '__main__':
    main(sys.argv[1])
