"""Compile time of a tower's train step against its depth, which a scan over the layers keeps flat.

COMMAND: JAX_PLATFORMS=cpu python benchmarks/compile_depth.py
  --depths 6,12,24,48 --remat none --width 256 --topology ''

Compiles value and gradient of a transformer stack in its parameters and prints, for each depth, the
seconds of lowering and compiling, the instructions of the optimised HLO, and both as ratios to the
first depth. Nothing is run. --topology (such as v5e:2x2 or h100:1) takes a device that is not here.
"""

import argparse
import time

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from alm_jax.models.layers.transformer import transformer_stack
from alm_jax.training import sharding
from alm_jax.training.perf import hlo_text, topology

ROWS, LENGTH, HEAD = 8, 128, 64


class Tower(nn.Module):
    """A stack and the mean of its output.

    Attributes:
      depth: blocks.
      remat: see ``transformer_stack``.
    """

    depth: int
    remat: str = 'none'

    @nn.compact
    def __call__(self, x_btd):
        """[b, t, d] -> float32 scalar."""
        width = x_btd.shape[-1]
        block = {'heads': width // HEAD, 'mlp_width': 4 * width}
        return jnp.mean(jnp.sin(transformer_stack(self.depth, remat=self.remat, **block)(x_btd)[0]))


def compiled(depth: int, remat: str, width: int, device=None, options=None):
    """(seconds of lowering and compiling, instructions of the HLO) of value and gradient."""
    tower = Tower(depth, remat)
    x = jax.ShapeDtypeStruct((ROWS, LENGTH, width), jnp.float32)
    params = jax.eval_shape(tower.init, jax.random.key(0), x)
    device = jax.devices()[0] if device is None else device
    here = NamedSharding(sharding.make_mesh({'data': 1}, (device,)), PartitionSpec())
    step = jax.jit(jax.value_and_grad(tower.apply), in_shardings=here)
    began = time.monotonic()
    program = step.lower(params, x).compile(options)
    seconds = time.monotonic() - began
    computations = hlo_text.parse(program.as_text()).computations.values()
    return seconds, sum(len(computation.instructions) for computation in computations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--depths', default='6,12,24,48')
    parser.add_argument('--remat', default='none')
    parser.add_argument('--width', type=int, default=256)
    parser.add_argument('--topology', default='')
    flags = parser.parse_args()
    device, options = None, None
    if flags.topology:
        where = topology.describe(flags.topology)
        device, options = where.devices[0], dict(where.compiler_options)
    compiled(1, flags.remat, HEAD, device, options)  # what is loaded once
    print(f'{"depth":>5}{"seconds":>9}{"ratio":>7}{"instructions":>14}{"ratio":>7}')
    first = None
    for depth in map(int, flags.depths.split(',')):
        seconds, count = compiled(depth, flags.remat, flags.width, device, options)
        first = first or (seconds, count)
        ratios = seconds / first[0], count / first[1]
        print(f'{depth:5}{seconds:9.2f}{ratios[0]:7.2f}{count:14}{ratios[1]:7.3f}', flush=True)


if __name__ == '__main__':
    main()
