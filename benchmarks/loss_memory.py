"""Bytes that the contrastive losses hold beside their inputs, from the TPU compiler's own analysis.

COMMAND: python benchmarks/loss_memory.py
  --topology v5e:16x16 --rows 4096,32768,262144,1048576 --width 512 --chunk 128
  --objectives infonce,sigmoid --forms dense,chunked,ring

Compiles value and gradient of each loss, rows over all devices, and prints the temporaries of a
device in MiB. Nothing is run and no device is needed, but for libtpu (extra [tpu]). Then verdicts:

- ring: at the most rows under 256 MiB, and for each further row of a device a few vectors more,
  however many there are (small ones stay in the on-chip memory, which is not counted);
- chunked: what it holds beyond the gathered texts and their gradient is a number of blocks of
  chunk x rows, the same for all rows.

Exits with 1 when one fails.
"""

import os

os.environ['TPU_SKIP_MDS_QUERY'] = '1'  # before jax is imported: nothing here asks for a TPU
os.environ['JAX_PLATFORMS'] = 'cpu'

import argparse
import itertools
import sys
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alm_jax.objectives import blockwise, contrastive
from alm_jax.training import sharding
from alm_jax.training.perf import topology

MIB = 2**20
RING_LIMIT = 256 * MIB
MOST_VECTORS = 4  # of the embeddings' width, that the ring form may hold for a row
MOST_BLOCKS = 8  # of chunk x rows in float32, that the chunked form may hold


def loss(objective: str, form: str, chunk: int, mesh: Mesh):
    """(za, zt, groups) -> scalar; infonce takes every pair for a group of its own."""

    def dense(za, zt, groups):
        if objective == 'infonce':
            return contrastive.infonce(za, zt, 10.0)
        return contrastive.sigmoid(za, zt, 10.0, -10.0, groups, groups)

    def blocks(za, zt, groups):
        options = {'form': form, 'chunk': chunk, 'mesh': mesh, 'axes': sharding.batch_axes(mesh)}
        if objective == 'infonce':
            return blockwise.multi_positive(za, zt, 10.0, groups, groups, **options)
        return blockwise.sigmoid(za, zt, 10.0, -10.0, groups, groups, **options)

    return dense if form == 'dense' else blocks


def temporaries(objective: str, form: str, rows: int, width: int, chunk: int, mesh: Mesh) -> int:
    """Bytes a device of value and gradient, without arguments and results; -1: too large."""
    split = NamedSharding(mesh, PartitionSpec(sharding.batch_axes(mesh)))
    z = jax.ShapeDtypeStruct((rows, width), jnp.float32, sharding=split)
    groups = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=split)
    gradient = jax.value_and_grad(loss(objective, form, chunk, mesh), (0, 1))
    try:
        compiled = jax.jit(gradient, out_shardings=(None, (split, split))).lower(z, z, groups)
        return compiled.compile().memory_analysis().temp_size_in_bytes
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return -1


def ring_verdict(found: dict[int, int], width: int, chunk: int, devices: int) -> tuple[str, bool]:
    """Whether bytes by rows are under the limit and linear in the rows of a device."""
    rows = sorted(found)
    slopes = [
        (found[more] - found[less]) * devices / (more - less)
        for less, more in itertools.pairwise(rows)
    ]
    most = found[rows[-1]]
    # Blocks of all rows of a device with all of another's would be thousands of numbers a row.
    linear = all(slope <= (MOST_VECTORS * width + chunk) * 4 for slope in slopes)
    told = ', '.join(f'{slope:.0f}' for slope in slopes)
    limit = f'{most / MIB:.1f} MiB at {rows[-1]} rows (limit {RING_LIMIT // MIB})'
    passed = 0 <= most < RING_LIMIT and linear
    return f'{limit}; bytes more for each row of a device: {told}', passed


def chunked_verdict(found: dict[int, int], width: int, chunk: int) -> tuple[str, bool]:
    """How many blocks of chunk x rows there are beyond the gathered texts and their gradient."""
    fitting = {rows: size for rows, size in found.items() if size >= 0}
    blocks = [
        max(0, size - 2 * rows * width * 4) / (chunk * rows * 4) for rows, size in fitting.items()
    ]
    told = ', '.join(f'{count:.2f}' for count in blocks)
    return f'blocks of chunk x rows: {told}', max(blocks) <= MOST_BLOCKS


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument('--topology', default='v5e:16x16')
    parser.add_argument('--rows', default='4096,32768,262144,1048576')
    parser.add_argument('--width', type=int, default=512)
    parser.add_argument('--chunk', type=int, default=128)
    parser.add_argument('--objectives', default='infonce,sigmoid')
    parser.add_argument('--forms', default='dense,chunked,ring')
    args = parser.parse_args()
    mesh = sharding.make_mesh({'data': -1}, topology.describe(args.topology).devices)
    rows = [int(count) for count in args.rows.split(',')]
    print(f'MiB a device on {args.topology}, embeddings x {args.width}, chunks of {args.chunk}')
    print(f'{"objective":10}{"form":9}' + ''.join(f'{count:>12,}' for count in rows))
    failed = False
    for objective in args.objectives.split(','):
        found = {}
        for form in args.forms.split(','):
            began = time.monotonic()
            sizes = [
                temporaries(objective, form, count, args.width, args.chunk, mesh) for count in rows
            ]
            found[form] = dict(zip(rows, sizes))
            cells = (f'{size / MIB:.1f}' if size >= 0 else 'too large' for size in sizes)
            line = f'{objective:10}{form:9}' + ''.join(f'{cell:>12}' for cell in cells)
            print(f'{line}  compiled in {time.monotonic() - began:.0f} s', flush=True)
        verdicts = {
            'ring': lambda sizes: ring_verdict(sizes, args.width, args.chunk, mesh.size),
            'chunked': lambda sizes: chunked_verdict(sizes, args.width, args.chunk),
        }
        for form in verdicts.keys() & found.keys():
            told, passed = verdicts[form](found[form])
            failed |= not passed
            print(f'{"PASS" if passed else "FAIL"} {objective} {form}: {told}')
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
