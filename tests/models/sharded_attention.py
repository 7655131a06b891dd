"""Attention split over data 2 x tensor 2: run here against the whole, or compiled ahead as HLO."""

import os
import sys

os.environ['TPU_SKIP_MDS_QUERY'] = '1'
os.environ['JAX_PLATFORMS'] = 'cpu'

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from alm_jax.models.layers import attention_kernels, attention_tpu
from alm_jax.models.layers.placement import activation_axes
from alm_jax.training import sharding
from alm_jax.training.perf import topology

SIZES = {'data': 2, 'fsdp': 1, 'tensor': 2, 'sequence': 1, 'dcn': -1}
AXES = {'batch': ('data', 'fsdp'), 'length': ('sequence',), 'heads': ('tensor',)}


def loss(attend, mesh, query, key, value, mask):
    """A number that differs for every element of the result, and the result."""
    with activation_axes(mesh, AXES):
        out = attend(query, key, value, mask).astype(jnp.float32)
    return (out * jnp.sin(jnp.arange(out.size)).reshape(out.shape)).sum(), out


def here():
    """One device and four give the same result and gradients; so do two that share the queries."""
    keys = jax.random.split(jax.random.key(0), 4)
    query = jax.random.normal(keys[0], (2, 260, 4, 16))
    key, value = (jax.random.normal(k, (2, 300, 2, 16)) for k in keys[1:3])
    mask = jax.random.bernoulli(keys[3], 0.8, (2, 300)).at[1].set(False)
    kernel = functools.partial(attention_tpu.attend, interpret=True)
    of_tpus = functools.partial(
        attention_kernels._fused, kernel, scale=None, causal=False, window=None
    )

    def run(attend, mesh):
        f = jax.value_and_grad(functools.partial(loss, attend, mesh), (0, 1, 2), has_aux=True)
        (_, out), gradients = jax.jit(f)(query, key, value, mask)
        return [np.asarray(x) for x in (out, *gradients)]

    for attend in (of_tpus, attention_kernels.attend):  # the latter takes that of CPUs here
        whole = run(attend, None)
        for sizes in (SIZES, SIZES | {'tensor': 1, 'sequence': 2}):
            for one, other in zip(run(attend, sharding.make_mesh(sizes, jax.devices())), whole):
                assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max(), (attend, sizes)


def ahead(name):
    """Prints the HLO of the attention and its gradient for the devices of a topology."""
    where = topology.describe(name)
    mesh = sharding.make_mesh(SIZES, where.devices)
    rows = ('data', 'fsdp')

    def shaped(shape, dtype, *spec):
        where = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=where)

    x = shaped((4, 512, 4, 64), jnp.bfloat16, rows, None, 'tensor')
    mask = shaped((4, 512), bool, rows)
    f = jax.value_and_grad(
        functools.partial(loss, attention_kernels.attend, mesh), (0, 1, 2), has_aux=True
    )
    compiled = jax.jit(f).lower(x, x, x, mask).compile(dict(where.compiler_options))
    print(compiled.as_text())


if __name__ == '__main__':
    if sys.argv[1:]:
        ahead(sys.argv[1])
    else:
        here()
