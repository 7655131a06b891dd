"""Micro-batches on devices that share parameters: those are gathered, and no activations."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = pathlib.Path(__file__).with_name('gathers_run.py')
MICRO_BATCHES = 4
# Each embeds twice, and the blocks of the second time are computed again before their gradient,
# which needs the parameters as well.
GATHERS = MICRO_BATCHES * (1 + 3)


pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def found():
    fast = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
    flags = f'--xla_force_host_platform_device_count=4 {fast}'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_what_is_gathered_does_not_grow_with_the_batch(found):
    assert found['32']['bytes'] == found['16']['bytes']


def test_it_is_what_shared_parameters_take(found):
    assert 0 < found['32']['bytes'] <= GATHERS * found['32']['parameters']
