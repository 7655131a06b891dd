"""A checkpoint that cannot be written, for real: a file too large, a disk too small, or full."""

import os
import resource
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
import toy

from alm_jax.training import checkpoint

LIMIT = 200_000  # bytes of a file


@pytest.fixture(scope='module')
def state():
    return toy.make(toy.make_config())[3]


@pytest.fixture
def limited():
    """Calling it bounds the size of files, as a quota does; Python ignores the signal of that."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / 'disk'
    path.mkdir()
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=2m', 'none', path], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f'a disk of 2 MB cannot be mounted here: {mounted.stderr}')
    yield path
    subprocess.run(['umount', path], check=True)


def at(state, step, size=0):
    """The state after some steps, with bytes that cannot be compressed."""
    more = np.random.default_rng(step).integers(0, 256, size, np.uint8)
    return state.replace(step=state.step + step, extra={'more': jnp.asarray(more)} if size else {})


def save(saver, state, until=lambda: None):
    with saver:
        saver.save(state)
        until()


def names(workdir):
    return sorted(path.name for path in (workdir / 'checkpoints').iterdir())


def test_by_default_the_run_stops_and_the_older_one_is_whole(tmp_path, state, limited):
    saver = checkpoint.Checkpointer(tmp_path, keep=2)
    saver.save(at(state, 1))
    saver.wait()
    limited()
    told = (
        rf'{tmp_path}/checkpoints/2 cannot be saved: File too large \(it takes up to [0-9,]+ bytes'
        r', [0-9,]+ are free\). Checkpoints that are there: 1\. Make room, and the same command'
    )
    with pytest.raises(checkpoint.CheckpointError, match=told) as error:
        save(saver, at(state, 2, LIMIT + 1), until=saver.wait)
    assert len(str(error.value).splitlines()) == 1
    assert names(tmp_path) == ['1']
    assert checkpoint.damage(tmp_path / 'checkpoints' / '1') is None


def test_the_run_is_told_between_two_saves(tmp_path, state, limited):
    limited()
    saver = checkpoint.Checkpointer(tmp_path, keep=2)
    saver.check()

    def steps():
        while True:
            saver.check()

    with pytest.raises(checkpoint.CheckpointError, match='Checkpoints that are there: none'):
        save(saver, at(state, 2, LIMIT + 1), until=steps)


def test_as_configured_the_run_goes_on(tmp_path, state, limited, capfd):
    with checkpoint.Checkpointer(tmp_path, keep=1, on_error='go_on') as saver:
        saver.save(at(state, 1))
        saver.wait()
        limited()
        saver.save(at(state, 2, LIMIT + 1))
        saver.wait()
        saver.check()
        assert names(tmp_path) == ['1']  # and not none
        saver.save(at(state, 3))
    said = capfd.readouterr().err
    assert said.count('checkpoints/2 cannot be saved: File too large') == 1
    assert 'Training goes on (config.checkpoint.on_error).' in said
    assert 'Traceback' not in said
    assert names(tmp_path) == ['3']


def test_a_run_whose_last_save_fails_does_not_end_well(tmp_path, state, limited):
    limited()
    saver = checkpoint.Checkpointer(tmp_path, keep=1, on_error='go_on')
    with pytest.raises(checkpoint.CheckpointError, match='the last save failed'):
        save(saver, at(state, 1, LIMIT + 1))


@pytest.mark.parametrize('known_before', [True, False])
def test_a_disk_that_is_too_small(small_disk, state, known_before):
    """What is larger than the disk is not begun; what seems to fit and does not fills it."""
    with checkpoint.Checkpointer(small_disk, keep=2, on_error='go_on') as saver:
        saver.save(at(state, 1))
        saver.wait()
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        saver.save(at(state, 2, 3_000_000 if known_before else free - 8_000))
        saver.wait()
        assert 'too little room' in saver._failed or not known_before
        assert 'No space left on device' in saver._failed or known_before
        assert names(small_disk) == ['1']
        assert checkpoint.damage(small_disk / 'checkpoints' / '1') is None
        saver.save(at(state, 3))
    assert names(small_disk) == ['1', '3']
