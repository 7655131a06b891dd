"""One device and four give the same losses, and the test would see a shard's negatives missing."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name('small_run.py')
TOLERANCE = 1e-5


def _run(out, devices):
    # The lower optimisation level halves the compilation, which is nearly all of the time.
    flags = f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=1'
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


def test_four_devices_give_the_losses_of_one(runs):
    one, four = runs
    assert one['whole'].shape == (20,)
    assert one['whole'][-1] < one['whole'][0] - 0.2  # it does train
    np.testing.assert_allclose(four['whole'], one['whole'], rtol=0, atol=TOLERANCE)


def test_missing_negatives_would_be_seen(runs):
    one, four = runs
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(four['dropped'], one['whole'], rtol=0, atol=TOLERANCE)
    assert np.abs(four['dropped'] - one['whole']).min() > 0.1


def test_a_clip_embeds_to_the_same_bits_on_four_devices(runs):
    _, four = runs
    assert four['many'].tobytes() == four['one'].tobytes()
    assert len(np.unique(four['many'], axis=0)) == 100
