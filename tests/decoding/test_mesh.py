"""One device and four write the same, the latter with parameters and cache split over a mesh."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name('mesh_run.py')


def _run(out, devices):
    flags = f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, SCRIPT, out], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as found:
        assert found['devices'] == devices
        return dict(found)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    return _run(folder / 'one.npz', 1), _run(folder / 'four.npz', 4)


@pytest.mark.parametrize('way', ['greedy', 'drawn', 'beams'])
def test_four_devices_write_what_one_writes(runs, way):
    one, four = runs
    np.testing.assert_array_equal(four[way], one[way])
    assert len(np.unique(one[way])) > 5


def test_the_cache_is_split_over_rows_and_heads(runs):
    one, four = runs
    rows, heads, slots, size = four['whole']
    assert (rows, heads) == (6, 2)
    assert one['whole'].tolist() == one['shard'].tolist() == [5, 2, slots, size]
    assert four['shard'].tolist() == [3, 1, slots, size]
