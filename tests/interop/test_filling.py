"""Trees filled piece by piece: the same bits for any pieces and devices, in bounded memory."""

import functools
import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from alm_jax.interop import filling, names
from alm_jax.training.param_names import flatten_canonical

BENCHMARK = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'checkpoint_streaming.py'
TABLE = [
    *names.linear('l.{}.up', 'layers/{}/up'),
    *names.fused_linear('l.{}.qkv', [f'layers/{{}}/{n}' for n in 'qkv']),
    *names.embedding('table', 'table'),
    *names.conv('conv', 'conv'),
    *names.array('scale', 'scale'),
]
SHAPES = {
    'layers': {
        'up': {'kernel': (3, 12, 16), 'bias': (3, 16)},
        **{n: {'kernel': (3, 12, 8), 'bias': (3, 8)} for n in 'qkv'},
    },
    'table': {'embedding': (20, 12)},
    'conv': {'kernel': (3, 5, 4, 8), 'bias': (8,)},
    'scale': (),
}


def tensors(dtype):
    generator = np.random.default_rng(0)
    made = {'table.weight': (20, 12), 'conv.weight': (8, 4, 3, 5), 'conv.bias': (8,), 'scale': ()}
    for i in range(3):
        made |= {f'l.{i}.up.weight': (16, 12), f'l.{i}.up.bias': (16,)}
        made |= {f'l.{i}.qkv.weight': (24, 12), f'l.{i}.qkv.bias': (24,)}
    return {name: generator.normal(size=shape).astype(dtype) for name, shape in made.items()}


def filled(given, place=lambda shape: None, **options):
    shapes = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place(shape)),
        SHAPES,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    ours = flatten_canonical(shapes)
    return filling.fill(shapes, given, names.match(TABLE, given, ours), **options)


def check_all_pieces(set_pieces, places, dtypes, sizes):
    """Every size of pieces and place gives what one piece gives."""
    for dtype in dtypes:
        given = tensors(dtype)
        for options in ({}, {'dtype': None}):
            set_pieces(1 << 20)
            whole = filled(given, **options)
            expected = given['l.1.up.weight'].T.astype(np.float32)
            np.testing.assert_array_equal(
                np.asarray(whole['layers']['up']['kernel'][1], np.float32), expected
            )
            for size in sizes:
                set_pieces(size)
                for place in places:
                    again = filled(given, place, **options)
                    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again)):
                        assert (a.dtype, a.shape) == (b.dtype, b.shape)
                        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_pieces_of_any_size_give_the_same_bits(monkeypatch):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    check_all_pieces(
        lambda size: monkeypatch.setattr(filling, 'PIECE_BYTES', size),
        [lambda shape: None, lambda shape: one],
        dtypes=(np.float32, np.float64, ml_dtypes.bfloat16),
        sizes=(32, 300),
    )


def on_four_devices():
    """The same on a mesh of 2 x 2; run by a test in a process of its own."""
    mesh = jax.make_mesh((2, 2), ('a', 'b'))

    def place(*axes):
        def of(shape):
            spec = [
                axis if shape[i] % 4 == 0 else None for i, axis in enumerate(axes[: len(shape)])
            ]
            return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))

        return of

    places = [place(), place(None, 'a', 'b'), place(None, None, ('a', 'b'))]
    set_pieces = functools.partial(setattr, filling, 'PIECE_BYTES')
    check_all_pieces(set_pieces, places, dtypes=(ml_dtypes.bfloat16,), sizes=(300,))
    print('the same')


def test_on_four_devices():
    flags = '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, 'XLA_FLAGS': flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == 'the same\n', done.stderr


@pytest.fixture(scope='module')
def benchmark():
    spec = importlib.util.spec_from_file_location(BENCHMARK.stem, BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow_local
@pytest.mark.skipif(sys.platform != 'linux', reason='anonymous memory is read from /proc')
def test_two_gib_in_many_shards_take_two_tensors_beyond_the_arrays(benchmark, tmp_path):
    assert benchmark.write(tmp_path) >= 2 << 30
    for case in benchmark.CASES:
        figures = benchmark.run(tmp_path, case)
        times = figures['beyond'] / figures['largest']
        print(f'{case}: {times:.2f} of the largest tensor, {figures["seconds"]} s')
        assert times <= benchmark.LIMIT, case


if __name__ == '__main__':
    on_four_devices()
