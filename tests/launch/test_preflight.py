"""launch/preflight.py: with real processes, one of which differs, and what it makes of answers."""

import pathlib
import shutil
import subprocess
import sys
import threading

from alm_jax.config import experiment

REPOSITORY = pathlib.Path(__file__).parents[2]
preflight = experiment(REPOSITORY / 'launch' / 'preflight.py')
CONFIG = pathlib.Path(__file__).with_name('small.py')

ODD = """#!/usr/bin/env bash
# Process 1 has an edited file, another flag of the compiler and another seed, 2 no workdir.
workdir=$1 other=$2
shift 2
case "$*" in
  *--process_id=1) export PYTHONPATH=$other XLA_FLAGS=--xla_odd=1; set -- --config.seed=7 "$@" ;;
  *--process_id=2) workdir=/dev/null/x ;;
esac
exec "$PYTHON" launch/preflight.py --config "$CONFIG" --workdir "$workdir" "$@"
"""


def start(processes: int, *command) -> subprocess.CompletedProcess:
    launch = [REPOSITORY / 'launch' / 'local.sh', '--processes', str(processes), '--']
    return subprocess.run(
        list(map(str, [*launch, *command])),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_processes_that_agree_pass(tmp_path):
    arguments = ['--config', CONFIG, '--workdir', tmp_path, '--measure_seconds', '0.5']
    done = start(2, sys.executable, 'launch/preflight.py', *arguments, '--step_seconds', '100')
    assert done.returncode == 0, done.stdout + done.stderr
    assert '[0] preflight passes: 2 process(es)' in done.stdout
    assert 'A step of 100 s takes 0.0 rows/s of the loader.' in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line[:5] in ('[0] 0', '[0] 1')]
    assert [row[1] for row in rows] == ['0', '1']
    assert rows[0][3:7] == rows[1][3:7]  # code, config, packages, compiler flags
    assert not list(tmp_path.iterdir())  # nothing is left


def test_the_process_that_differs_is_named_with_what(tmp_path, monkeypatch):
    other = tmp_path / 'other'
    shutil.copytree(
        REPOSITORY / 'alm_jax', other / 'alm_jax', ignore=shutil.ignore_patterns('__pycache__')
    )
    with (other / 'alm_jax' / 'train.py').open('a') as file:
        file.write('# edited\n')
    odd = tmp_path / 'odd.sh'
    odd.write_text(ODD)
    odd.chmod(0o755)
    monkeypatch.setenv('PYTHON', sys.executable)
    monkeypatch.setenv('CONFIG', str(CONFIG))
    done = start(3, odd, tmp_path / 'run', other)
    assert done.returncode == 1, done.stdout + done.stderr
    wrong = [line for line in done.stdout.splitlines() if 'WRONG' in line]
    assert [line.split(' on ')[0] for line in wrong] == [
        f'[0] WRONG: process {process}' for process in (2, 1, 1, 1)
    ]
    assert 'workdir /dev/null/x cannot be written: Not a directory' in wrong[0]
    assert 'code other than on process 0: alm_jax/train.py: here' in wrong[1]
    assert 'config other than on process 0: seed: here 7, there 0' in wrong[2]
    assert 'compiler_flags other than on process 0: XLA_FLAGS: here --xla_odd=1' in wrong[3]
    assert '[0] preflight fails: 3 process(es)' in done.stdout


def answers(count: int) -> list[dict]:
    same = {'host': 'node', 'devices': {'count': '8', 'kind': 'H100'}, 'rows_s': 50.0, 'mb_s': 9.0}
    return [{'process': str(i), **same} for i in range(count)]


def test_the_rare_answer_is_the_wrong_one():
    rows = answers(4)
    assert preflight.judge(rows) == []
    rows[0]['devices'] = {'count': '7', 'kind': 'H100'}
    assert preflight.judge(rows) == [
        'process 0 on node: devices other than on process 1: count: here 7, there 8'
    ]


def test_a_slow_loader_and_a_silent_process_are_named():
    rows = answers(3)
    rows[1] |= {'needed': {'rows_s': 64.0, 'mb_s': 5.0}}
    rows[2] = {'process': '2', 'error': 'no answer within 9 s (stage host)'}
    assert preflight.judge(rows) == [
        'process 2 on an unknown host: no answer within 9 s (stage host)',
        'process 1 on node: rows/s of the loader are 50.0 of 64.0',
    ]


def test_a_workdir_that_is_not_shared_is_told(tmp_path):
    mark = preflight.Mark(tmp_path, 0)
    assert mark.write() == {'workdir': 'written'}
    assert 'not that of process 1: what they wrote is not there' in mark.find(2, 0.2)['error']
    other = preflight.Mark(tmp_path, 1)
    other.write()
    assert mark.find(2) == {'workdir': 'shared'}
    mark.remove()
    other.remove()
    assert not list(tmp_path.iterdir())


def test_a_stage_that_fails_or_hangs_is_an_answer():
    def fail():
        raise ValueError('no\n such file')

    assert preflight.told(lambda: {'a': 1}, 5) == {'a': 1}
    assert preflight.told(fail, 5) == {'error': 'ValueError: no such file'}
    hang = threading.Event()
    found = preflight.told(lambda: {'a': hang.wait(10)}, 0.1)
    hang.set()
    assert found == {'error': 'takes more than 0.1 s'}
