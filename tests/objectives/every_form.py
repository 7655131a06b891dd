"""Every form of the contrastive objectives on 1, 2, 4 and 8 devices, against the dense one.

Run by test_blockwise.py in a process of its own, as the number of devices is one a process.
Prints the largest relative error of each case.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alm_jax.objectives import blockwise, contrastive

ROWS, WIDTH = 24, 5
MESHES = {'1': (1, 1), '2': (2, 1), '4': (4, 1), '8': (2, 4)}
CASES = [('chunked', 5), ('ring', 5), ('ring', 100)]  # 24, 12, 6 and 3 rows a device


def inputs():
    rng = np.random.default_rng(0)
    za, zt = rng.normal(size=(2, ROWS, WIDTH)).astype(np.float32)
    za, zt = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (za, zt))
    groups = rng.integers(0, 10, (2, ROWS)).astype(np.int32)
    return za, zt, *groups


def objectives(groups, **form):
    own = jnp.arange(ROWS)
    module = blockwise if form else contrastive
    infonce = functools.partial(blockwise.multi_positive, **form) if form else None
    return {
        'infonce': lambda za, zt, scale, bias: (
            infonce(za, zt, scale, own, own) if form else contrastive.infonce(za, zt, scale)
        ),
        'multi_positive': lambda za, zt, scale, bias: module.multi_positive(
            za, zt, scale, *groups, **form
        ),
        'sigmoid': lambda za, zt, scale, bias: module.sigmoid(za, zt, scale, bias, *groups, **form),
    }


def values_and_gradients(objectives, za, zt):
    """By name: (value, gradients) of three times each objective, a cotangent that is not one."""

    def both(objective, *arguments):
        def tripled(*arguments):
            return 3 * objective(*arguments)

        return jax.value_and_grad(tripled, argnums=(0, 1, 2, 3))(*arguments)

    def all_of_them(*arguments):
        return {name: both(objective, *arguments) for name, objective in objectives.items()}

    return jax.jit(all_of_them)(za, zt, 9.0, -3.0)


def error(ours, dense):
    scale = np.abs(dense).max()
    return float(np.abs(np.asarray(ours) - np.asarray(dense)).max() / max(scale, 1e-30))


def main():
    za, zt, *groups = inputs()
    dense = values_and_gradients(objectives(groups), za, zt)
    for mesh_name, shape in MESHES.items():
        devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
        mesh = Mesh(devices, ('data', 'fsdp'))
        rows = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
        sharded = [jax.device_put(x, rows) for x in (za, zt, *groups)]
        for form, chunk in CASES:
            options = {'form': form, 'chunk': chunk, 'mesh': mesh, 'axes': ('data', 'fsdp')}
            found = values_and_gradients(objectives(sharded[2:], **options), *sharded[:2])
            for name, errors in jax.tree.map(error, found, dense).items():
                worst = max(jax.tree.leaves(errors))
                print(f'{name}, {form} of {chunk}, {mesh_name} devices: {worst:.2e}', flush=True)


if __name__ == '__main__':
    main()
