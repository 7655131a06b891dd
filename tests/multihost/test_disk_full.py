"""A process that cannot write its part of a checkpoint: all stop, or all go on, and soon."""

import pathlib
import time

import pytest

from alm_jax.training import manifest

PROGRAM = pathlib.Path(__file__).with_name('disk_full.py')


@pytest.mark.parametrize(('which', 'on_error'), [(1, 'go_on'), (0, 'stop')])
def test_all_do_the_same(jobs, which, on_error):
    workdir = jobs.folder / on_error
    begun = time.monotonic()
    job = jobs.start(2, 1, PROGRAM, workdir, which, on_error)
    codes = job.wait()
    assert time.monotonic() - begun < 100
    left = sorted(path.name for path in (workdir / 'checkpoints').iterdir())
    assert f'checkpoint {workdir}/checkpoints/2 cannot be saved: ' in job.output(0)
    assert 'File too large' in job.output(0)
    assert 'Traceback' not in job.output(0) + job.output(1)
    if on_error == 'stop':
        assert codes == [2, 2]
        assert left == ['1']
    else:
        assert codes == [0, 0], job.output(0) + job.output(1)
        assert left == ['1', '2', '3']
        assert 'went on' in job.output(1)
    assert manifest.damage(manifest.latest_complete(workdir)) is None
