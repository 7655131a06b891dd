"""Signals in the process that hears them; jobs of several are in tests/multihost."""

import os
import signal
import subprocess
import sys
import time

import pytest

from alm_jax.training import preemption

# Its main thread is in C for ever, as in a collective or a compilation, and runs no handler.
HELD_UP = """
import ctypes
from alm_jax.training import preemption

with preemption.Signals() as signals:
    signals.reached()
    print('ready', flush=True)
    mutex = ctypes.create_string_buffer(64)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)
"""


def signalled(number):
    with preemption.Signals():
        os.kill(os.getpid(), number)
        time.sleep(1)


def heard(signals, number):
    """Sends itself a signal; whether the run would end at the next step."""
    os.kill(os.getpid(), number)
    deadline = time.monotonic() + 10
    while not signals.heard and time.monotonic() < deadline:
        time.sleep(0.001)
    return signals.reached()


@pytest.mark.parametrize('number', preemption.SIGNALS)
def test_a_signal_is_heard_at_the_end_of_a_step(number, capfd):
    before = signal.getsignal(number)
    with preemption.Signals() as signals:
        assert not signals.reached()
        assert signals.heard is None
        assert heard(signals, number)
        assert signals.heard == number
        os.kill(os.getpid(), number)  # of a launcher that passes it on as well
        time.sleep(preemption.TOGETHER / 2)
        assert signals.reached()
    assert f'{signal.Signals(number).name}: saves after this step' in capfd.readouterr().err
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)]
)
def test_before_the_first_step_there_is_nothing_to_save(number, code):
    with pytest.raises(KeyboardInterrupt) as ended:
        signalled(number)
    assert getattr(ended.value, 'exit_code', 130) == code == preemption.exit_code(number)


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_a_process_wherever_it_is(number, code):
    process = subprocess.Popen(
        [sys.executable, '-c', HELD_UP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(number)
        assert 'saves after this step' in [process.stderr.readline() for _ in range(2)][1]
        time.sleep(2 * preemption.TOGETHER)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(5) == code
        assert 'came a second time' in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
