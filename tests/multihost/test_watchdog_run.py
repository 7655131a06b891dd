"""Of two processes one hangs, and the watchdogs say which and where; signals to one end both."""

import contextlib
import json
import os
import pathlib
import re
import signal
import time

import pytest

from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import checkpoint, preemption

SECONDS = 2


@pytest.fixture(scope='module')
def start(jobs, recordings, request):
    """Trains without end, with one decode process in each."""
    Tokenizer.train(['The sound of a door.']).save(recordings / 'tokenizer')
    config = f'{request.path.with_name("small.py")}:{recordings}'
    command = (
        *(2, 1, '-m', 'alm_jax.train', '--config', config, '--workdir', jobs.folder / 'run'),
        *('--config.steps=100000', '--config.checkpoint.every=5', '--config.evals={}'),
        *('--config.data.workers=1', '--config.data.prefetch=1', '--config.freeze=()'),
        f'--config.watchdog_seconds={SECONDS}',
    )
    checkpoints = jobs.folder / 'run' / 'checkpoints'

    def start():
        """Once it has saved."""
        before, started = set(checkpoints.glob('*/manifest.json')), jobs.start(*command)
        deadline = time.monotonic() + 200
        while not set(checkpoints.glob('*/manifest.json')) - before:
            assert time.monotonic() < deadline, started.output(0)
            time.sleep(0.1)
        return started

    return start


@pytest.fixture(scope='module')
def job(start):
    return start()


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


def test_a_signal_to_one_has_both_save_at_one_step_and_end(job, jobs):
    job.processes[1].send_signal(signal.SIGINT)
    assert job.wait() == [130, 130]
    (step,) = re.findall(
        r'Ended by SIGINT. The same command goes on from step (\d+)', job.output(0)
    )
    newest = checkpoint.latest_complete(jobs.folder / 'run')
    assert newest.name == step
    lines = (jobs.folder / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert json.loads(lines[-1])['step'] == int(step)


def test_a_second_signal_ends_both_at_once_and_harms_no_checkpoint(job, start, jobs):
    """Neither comes to the step to save at: one waits for data for ever, the other for it."""
    begun = checkpoint.latest_complete(jobs.folder / 'run')
    job = start()
    assert f'state: {begun}' in job.output(0)
    (worker,) = workers(job.processes[0].pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        job.until("in the phase 'data wait'", 0)
        job.processes[1].send_signal(signal.SIGTERM)
        job.until('SIGTERM: saves after this step', 1)
        time.sleep(2 * preemption.TOGETHER)
        assert job.processes[1].poll() is None
        job.processes[1].send_signal(signal.SIGTERM)
        second = time.monotonic()
        assert job.wait() == [preemption.EXIT_CODE] * 2
        assert time.monotonic() - second < 15
    finally:
        with contextlib.suppress(ProcessLookupError):  # process 0 has ended it
            os.kill(worker, signal.SIGCONT)
    assert 'process 1 on ' in job.output(0)
    saved = checkpoint.latest_complete(jobs.folder / 'run')
    assert int(saved.name) > int(begun.name)


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
