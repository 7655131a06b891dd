"""GradCache on the real task: losses and gradient of the whole batch, on any devices."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name('micro_batch_run.py')
PARTS = ('one', 'two', 'four')


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp('micro_batches') / 'found.npz'
    # Without optimisation compilation, which is nearly all of the time, is shortest.
    flags = '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, SCRIPT, out], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as arrays:
        return dict(arrays)


@pytest.mark.parametrize('case', PARTS)
def test_the_gradient_is_that_of_the_whole_batch(found, case):
    """With dropout, gain, shift, noise and SpecAugment on, in every form of the objective."""
    whole, parts = found['gradient_whole'], found[f'gradient_{case}']
    assert np.linalg.norm(parts - whole) < 1e-5 * np.linalg.norm(whole)


@pytest.mark.parametrize('case', PARTS)
def test_a_run_has_the_losses_of_whole_batches(found, case):
    assert np.ptp(found['losses_whole']) > 0.02  # it does train
    np.testing.assert_allclose(found[f'losses_{case}'], found['losses_whole'], rtol=1e-5)


@pytest.mark.parametrize('case', ['two', 'four'])
def test_rows_stay_on_their_device(found, case):
    assert found[f'moved_{case}'].tolist() == []


def test_micro_batches_take_less_memory(found):
    assert found['temporary_one'] < found['temporary_whole'] / 2
