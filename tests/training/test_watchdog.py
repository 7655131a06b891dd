"""What the watchdog says, when, and that it stops."""

import threading
import time

import pytest

from alm_jax.config import ConfigError
from alm_jax.training.watchdog import Watchdog


def alive():
    return [thread for thread in threading.enumerate() if thread.name == 'watchdog']


def test_a_hang_is_told_with_growing_gaps_until_a_step_completes(capsys):
    watch = Watchdog(0.2)
    with watch.phase('data wait'):
        time.sleep(1.0)  # the hang
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith('watchdog: ')]
    assert len(lines) == 3  # after 0.2, 0.4 and 0.8 s
    assert all('after 0 of this run; for' in line for line in lines)
    assert all("in the phase 'data wait'" in line for line in lines)
    assert 'time.sleep(1.0)  # the hang' in said
    for _ in range(10):
        watch.stepped()
        time.sleep(0.05)
    assert 'watchdog' not in capsys.readouterr().err
    time.sleep(0.4)
    assert "after 10 of this run; for 0 s in the phase 'step'" in capsys.readouterr().err
    watch.close()
    time.sleep(0.3)
    assert not alive()
    assert 'watchdog' not in capsys.readouterr().err


def test_off_and_forgotten():
    Watchdog(0)
    assert not alive()
    watch = Watchdog(0.2)
    assert alive()
    del watch
    time.sleep(0.2)
    assert not alive()


def test_negative_seconds():
    with pytest.raises(ConfigError, match=r'config\.watchdog_seconds is -1'):
        Watchdog(-1)
