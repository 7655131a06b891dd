"""Of two processes one hangs: the watchdogs say which, and where; then Ctrl-C in one ends both."""

import os
import pathlib
import signal
import time

import pytest

from alm_jax.text.tokenizer import Tokenizer

SECONDS = 2


@pytest.fixture(scope='module')
def job(jobs, recordings, request):
    """Trains without end, with one decode process in each."""
    Tokenizer.train(['The sound of a door.']).save(recordings / 'tokenizer')
    config = f'{request.path.with_name("small.py")}:{recordings}'
    started = jobs.start(
        *(2, 1, '-m', 'alm_jax.train', '--config', config, '--workdir', jobs.folder / 'run'),
        *('--config.steps=100000', '--config.checkpoint.every=5', '--config.evals={}'),
        *('--config.data.workers=1', '--config.data.prefetch=1', '--config.freeze=()'),
        f'--config.watchdog_seconds={SECONDS}',
    )
    manifest = jobs.folder / 'run' / 'checkpoints'
    deadline = time.monotonic() + 200
    while not list(manifest.glob('*/manifest.json')):
        assert time.monotonic() < deadline, started.output(0)
        time.sleep(0.1)
    return started


def test_one_that_waits_for_data_and_one_that_waits_for_it(job):
    (worker,) = workers(job.processes[1].pid)
    said = [len(job.output(process)) for process in (0, 1)]
    os.kill(worker, signal.SIGSTOP)
    try:
        waits = job.until("in the phase 'data wait'", 1, after=said[1])
        assert 'watchdog: process 1 of 2 on ' in waits
        assert 'batch = next(batches)' in waits  # the stack
        assert 'watchdog: process 0 of 2 on ' in job.until("in the phase 'step'", 0, after=said[0])
    finally:
        os.kill(worker, signal.SIGCONT)


def test_one_that_is_stopped_is_silent_and_the_other_is_in_its_step(job):
    said = [len(job.output(process)) for process in (0, 1)]
    job.processes[1].send_signal(signal.SIGSTOP)
    try:
        job.until("in the phase 'step'", 0, after=said[0])
        assert 'watchdog' not in job.output(1)[said[1] :]
    finally:
        job.processes[1].send_signal(signal.SIGCONT)


def test_ctrl_c_in_one_ends_both(job):
    job.processes[1].send_signal(signal.SIGINT)
    assert job.wait() == [130, 130]
    assert 'The same command goes on from step ' in job.output(0)
    assert 'process 1 on ' in job.output(0)


def workers(pid: int) -> list[int]:
    """The decode processes of a process."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            parent = int((path / 'stat').read_text().rpartition(')')[2].split()[1])
            command = (path / 'cmdline').read_bytes()
        except OSError:
            continue
        if parent == pid and b'workers.main(' in command:
            found.append(int(path.name))
    return found
