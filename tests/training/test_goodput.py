"""Goodput of runs whose seconds are known."""

import json
import time

import pytest

from alm_jax.training import goodput, step_clock

SLEEPS = {'start_up': 0.1, 'compile': 0.05, 'data_wait': 0.02, 'steps': 0.1, 'evaluation': 0.2}


def kept(workdir):
    return json.loads((workdir / goodput.FILE).read_text())


def run(workdir, restored, steps):
    """A command of ``steps`` steps: the seconds that it slept, by phase, and all that it took."""
    began = time.perf_counter()
    usage = goodput.Goodput(workdir)
    time.sleep(SLEEPS['start_up'])
    with usage.phase('compile'):
        time.sleep(SLEEPS['compile'])
    startup = usage.started(restored)
    assert startup['compile_seconds'] >= SLEEPS['compile']
    assert startup['start_up_seconds'] >= SLEEPS['start_up']
    clock = step_clock.StepClock(1, usage)
    for _ in range(steps):
        with clock.waiting():
            time.sleep(SLEEPS['data_wait'])
        time.sleep(SLEEPS['steps'])
    assert 0 < clock.rates()['goodput'] < 1
    with clock.excluded('evaluation'):
        time.sleep(SLEEPS['evaluation'])
    slept = {**SLEEPS, **{name: steps * SLEEPS[name] for name in ('data_wait', 'steps')}}
    return slept, time.perf_counter() - began


def check(found, slept, wall):
    """Seconds are what was slept and, on a busy machine, at most what nobody else slept."""
    spare = wall - sum(slept.values())
    assert spare >= 0
    for name, seconds in found['seconds'].items():
        assert slept.get(name, 0) <= seconds <= slept.get(name, 0) + spare, name
    assert sum(found['seconds'].values()) == pytest.approx(found['wall_seconds'])
    assert wall - spare <= found['wall_seconds'] <= wall
    assert found['goodput'] == found['seconds']['steps'] / found['wall_seconds']


def test_goodput_is_the_share_of_steps_that_are_kept_over_all_commands(tmp_path):
    slept, wall = run(tmp_path, restored=0, steps=4)
    first = kept(tmp_path)
    check(first, slept, wall)
    assert (first['step'], first['steps'], first['commands']) == (4, 4, 1)

    time.sleep(0.3)  # no command runs
    again, longer = run(tmp_path, restored=3, steps=2)  # one step of four was lost
    second = kept(tmp_path)
    both = {name: slept[name] + again[name] for name in slept}
    both |= {'steps': slept['steps'] * 3 / 4 + again['steps'], 'lost': slept['steps'] / 4}
    check(second, both, wall + longer)
    assert second['seconds']['lost'] == pytest.approx(first['seconds']['steps'] / 4)
    assert (second['step'], second['steps'], second['commands']) == (5, 5, 2)


def test_a_phase_that_fails_is_booked_and_a_run_of_another_workdir_loses_nothing(tmp_path):
    usage = goodput.Goodput(tmp_path)
    usage.started(100)  # restored from elsewhere
    usage.book(goodput.STEPS, 1.0, 10)
    with pytest.raises(KeyboardInterrupt), usage.phase('checkpoint'):
        raise KeyboardInterrupt
    assert kept(tmp_path)['seconds']['checkpoint'] >= 0
    goodput.Goodput(tmp_path).started(100)  # all ten were lost, and no more
    found = kept(tmp_path)
    assert found['seconds']['lost'] == 1.0
    assert found['seconds']['steps'] == 0
    assert found['steps'] == 0
