"""A short soak: nothing grows over real steps, and while they go ``status`` tells of them."""

import dataclasses
import os
import signal

import pytest

from alm_jax import status
from tests.faults import soak

pytestmark = pytest.mark.slow_local

STEPS = 200
STOPPED_AT = 40  # in the quarter that is not looked at


@pytest.fixture(scope='module')
def soaked(tmp_path_factory, packaged_tiny):
    """(workdir, samples, what status said of it: while it went, stopped, and at its end)."""
    folder, told = tmp_path_factory.mktemp('soak'), []

    def stop(sample, process):
        if sample.step < STOPPED_AT or told:
            return
        told.append(status.read(folder / 'run'))
        os.kill(process.pid, signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            told.append(status.read(folder / 'run'))
        finally:
            os.kill(process.pid, signal.SIGCONT)

    code, samples = soak.run(folder, STEPS, 0.2, stop)
    assert code == 0, (folder / 'output.txt').read_text()
    told.append(status.read(folder / 'run'))
    return folder / 'run', samples, told


@pytest.fixture(scope='module')
def quarters(soaked):
    return soak.quarters(soaked[1], soak.metrics(soaked[0]), STEPS)


def test_nothing_grows(quarters):
    second, last = quarters
    assert second.processes >= 3  # with two data workers
    assert second.files > 10
    assert second.pss > 1e8
    assert not soak.growth(second, last, timed=False), soak.table(quarters)


@pytest.mark.parametrize(
    ('name', 'amount'), [('files', 1), ('threads', 1), ('processes', 1), ('pss', 10**6)]
)
def test_what_leaks_with_every_step_is_found(soaked, name, amount):
    leaky = [
        dataclasses.replace(each, **{name: getattr(each, name) + amount * each.step})
        for each in soaked[1]
    ]
    second, last = soak.quarters(leaky, soak.metrics(soaked[0]), STEPS)
    (grown,) = soak.growth(second, last, timed=False)
    assert grown.startswith(f'{name} grew from')


def test_slower_steps_are_found(quarters):
    second = quarters[0]
    slower = dataclasses.replace(second, cpu=1.2 * second.cpu, wall=1.4 * second.wall)
    assert [line.partition(' ')[0] for line in soak.growth(second, slower)] == ['cpu', 'wall']


def test_status_of_a_run_that_goes_is_stopped_and_finishes(soaked):
    running, stopped, finished = soaked[2]
    assert (running.state, running.steps, running.notes) == ('running', STEPS, [])
    assert running.step_seconds > 0
    assert running.checkpoint in (20, 40)
    assert running.checkpoint_age < 600
    assert 0 < running.goodput < 1
    assert running.seconds_left > 0
    assert stopped.state == 'stopped'
    assert 'is stopped by a signal in the phase' in stopped.notes[0]
    assert (finished.state, finished.step, finished.checkpoint) == ('finished', STEPS, STEPS)
    assert finished.seconds_left == 0
