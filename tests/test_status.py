"""python -m alm_jax.status, from the files of a run; of real runs see test_train and faults."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from alm_jax import status
from alm_jax.config import ConfigError
from alm_jax.training import lock, phase_file
from alm_jax.training.watchdog import Watchdog

NOW = 1_000_000.0
HERE = {'host': socket.gethostname(), 'pid': os.getpid()}


@pytest.fixture
def run(tmp_path):
    """A run at step 40 of 100 that keeps a checkpoint of step 30 and lost two processes' words."""
    config = {'steps': 100, 'watchdog_seconds': 300.0}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    lines = [
        {'step': 40, 'train/loss': 1.0, 'train/step_seconds': 2.0, 'train/clips_per_s': 32.0}
        | {'train/skipped': 3.0},
        {'step': 40, 'zero_shot/top1': 0.5},
    ]
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (tmp_path / 'metrics.jsonl').write_text(text + '{"step": 41, "train/lo')
    usage = {'goodput': 0.75, 'steps': 40, 'seconds': {'checkpoint': 30.0, 'evaluation': 10.0}}
    (tmp_path / 'goodput.json').write_text(json.dumps(usage))
    for step in (20, 30):
        (tmp_path / 'checkpoints' / str(step)).mkdir(parents=True)
        (tmp_path / 'checkpoints' / str(step) / 'manifest.json').write_text('{}')
    os.utime(tmp_path / 'checkpoints' / '30' / 'manifest.json', (NOW - 600, NOW - 600))
    (tmp_path / 'checkpoints' / '40').mkdir()  # not complete
    (tmp_path / 'quarantine.jsonl').write_text('{}\n{}\n')
    (tmp_path / 'quarantine.1.jsonl').write_text('{}\n')
    (tmp_path / 'rollbacks.jsonl').write_text('{}\n')
    (tmp_path / 'bad_numbers.jsonl').write_text('{}\n{}\n')
    return tmp_path


def mark(workdir, process=0, processes=1, **values):
    content = {'phase': 'step', 'since': NOW - 1, 'step': 44, **HERE, 'written': NOW - 1}
    content |= {'process': process, 'processes': processes, **values}
    (workdir / phase_file.file_of(process)).write_text(json.dumps(content))


def test_all_numbers(run):
    mark(run)
    found = status.read(run, NOW)
    assert (found.state, found.step, found.steps) == ('running', 44, 100)
    assert (found.step_seconds, found.clips_per_s) == (2.0, 32.0)
    assert (found.checkpoint, found.checkpoint_age) == (30, 600.0)
    assert (found.skipped_updates, found.skipped_records) == (3, 3)
    assert (found.rollbacks, found.bad_numbers) == (1, 2)
    assert found.goodput == 0.75
    assert found.seconds_left == (100 - 44) * (2.0 + 40 / 40)
    assert not found.notes
    row = status.table([found]).splitlines()[1]
    for cell in ('running', '44 / 100', '2 s/step, 32 clips/s', '30, 10 min ago', '75%', '3 min'):
        assert f'  {cell}' in row
    assert '3 updates, 3 records, 2 bad numbers, 1 rollbacks' in row


@pytest.mark.parametrize(
    ('values', 'state', 'note'),
    [
        ({'since': NOW - 59}, 'running', ''),
        ({'since': NOW - 61}, 'stuck', "is stuck in the phase 'step', which began 61 s ago"),
        ({'phase': 'data wait', 'since': NOW - 90}, 'stuck', "phase 'data wait'"),
        ({'phase': 'evaluation', 'since': NOW - 290}, 'running', ''),
        ({'phase': 'evaluation', 'since': NOW - 310}, 'stuck', "phase 'evaluation'"),
        ({'phase': 'start'}, 'starting', ''),
        ({'written': NOW - 70}, 'silent', 'has been silent for 70 s'),
        ({'pid': 2**22 + 1}, 'killed', "was killed in the phase 'step'"),
        ({'host': 'elsewhere'}, 'killed', 'on elsewhere, was killed'),
        ({'phase': phase_file.ENDED, 'pid': 2**22 + 1}, 'left off', ''),
    ],
)
def test_states(run, values, state, note):
    mark(run, **values)
    found = status.read(run, NOW)
    assert found.state == state
    assert note in ''.join(found.notes)
    assert bool(found.notes) == bool(note)


def test_of_several_processes_the_one_in_trouble_is_named(run):
    mark(run, processes=3)
    mark(run, 1, 3, host='b', phase='data wait', since=NOW - 2400)
    mark(run, 2, 3, host='c')
    mark(run, 3, 4, pid=2**22 + 1)  # of an earlier command with four
    found = status.read(run, NOW)
    assert found.state == 'stuck'
    expected = f"process 1 of 3, pid {os.getpid()} on b, is stuck in the phase 'data wait', which"
    assert found.notes == [f'{expected} began 40 min ago.']


def test_a_command_that_has_just_taken_the_workdir(run):
    mark(run, pid=2**22 + 1)
    with lock.held(run):
        found = status.read(run, NOW)
    assert found.state == 'starting'
    assert f'process {os.getpid()} on {HERE["host"]} has it since' in found.notes[0]
    assert status.read(run, NOW).state == 'killed'


def test_the_watchdog_writes_phases_and_a_last_word(tmp_path, monkeypatch):
    monkeypatch.setattr(phase_file, 'SECONDS', 0.02)

    def seen(phase, step):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            found = phase_file.read_all(tmp_path)
            if found and (found[0]['phase'], found[0]['step']) == (phase, step):
                return found[0]
            time.sleep(0.01)
        raise AssertionError(f'{found} is not {phase} at {step}')

    watch = Watchdog(0, tmp_path)
    assert seen('start', 0)['pid'] == os.getpid()
    watch.at(40)
    watch.stepped()
    since = seen('step', 41)['since']
    assert abs(time.time() - since) < 10
    time.sleep(0.1)
    assert abs(seen('step', 41)['since'] - since) < 0.05  # the phase goes on
    assert status.read(tmp_path).state == 'running'
    with watch.phase('checkpoint'):
        seen('checkpoint', 41)
    watch.close()
    time.sleep(0.1)
    seen(phase_file.ENDED, 41)
    assert status.read(tmp_path).state == 'left off'


def binary(*arguments):
    code = (
        'import runpy, sys\n'
        'try:\n    runpy.run_module("alm_jax.status", run_name="__main__", alter_sys=True)\n'
        'finally:\n    assert "jax" not in sys.modules and "numpy" not in sys.modules\n'
    )
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_binary_tells_of_runs_and_of_what_is_none(run, tmp_path_factory):
    mark(run)
    done = binary(run, tmp_path_factory.mktemp('empty'), 'nowhere')
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines()[0].split() == list(status.COLUMNS)
    assert f'{run}  silent' in done.stdout  # for 1970 is long ago
    assert 'is no run: it has neither config.json nor phase.json' in done.stderr
    assert 'nowhere is no run: it does not exist. Give the --workdir' in done.stderr
    assert 'Traceback' not in done.stderr
    done = binary('--json', run)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]['checkpoint'] == 30
    done = binary()
    assert done.returncode == 2
    assert 'give the workdirs of runs' in done.stderr


def test_a_damaged_file_is_named(run):
    (run / 'goodput.json').write_text('{')
    with pytest.raises(ConfigError, match=r'goodput\.json is not JSON'):
        status.read(pathlib.Path(run))
