"""launch/local.sh with small shell programs in place of training."""

import pathlib
import signal
import subprocess
import time

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
LOCAL = REPOSITORY / 'launch' / 'local.sh'


def start(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [LOCAL, *arguments], capture_output=True, text=True, timeout=60, cwd=REPOSITORY, **options
    )


def test_every_process_is_told_its_place_and_its_lines_bear_its_number():
    done = start(
        '--processes', '3', '--devices=2', '--', 'bash', '-c', 'echo "$XLA_FLAGS" "$@"', ''
    )
    assert done.returncode == 0
    lines = sorted(done.stdout.splitlines())
    assert [line[:4] for line in lines] == ['[0] ', '[1] ', '[2] ']
    ports = {line.split('localhost:')[1].split()[0] for line in lines}
    assert len(ports) == 1
    for process, line in enumerate(lines):
        assert '--xla_force_host_platform_device_count=2' in line
        assert line.endswith(f'--num_processes=3 --process_id={process}')


def test_the_first_failure_ends_all_and_its_code_is_passed_on(tmp_path):
    program = 'case "$*" in *--process_id=1) echo last words; exit 7 ;; esac; exec sleep 60'
    begun = time.monotonic()
    done = start('--', 'bash', '-c', program, '')
    assert (done.returncode, time.monotonic() - begun < 20) == (7, True)
    assert '[1] last words' in done.stdout
    assert 'failed with exit code 7' in done.stderr


def test_one_that_does_not_hear_is_killed(monkeypatch):
    monkeypatch.setenv('GRACE', '1')
    program = 'trap "" TERM; case "$*" in *--process_id=1) exit 3 ;; esac; sleep 60; sleep 60'
    begun = time.monotonic()
    assert start('--', 'bash', '-c', program, '').returncode == 3
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_goes_to_all(number, code):
    program = (
        f'trap "echo heard; exit 1" {number.name[3:]}; echo ready; while :; do sleep 0.1; done'
    )
    process = subprocess.Popen(
        [LOCAL, '--', 'bash', '-c', program, ''], stdout=subprocess.PIPE, text=True
    )
    for _ in range(2):
        assert process.stdout.readline().endswith('ready\n')
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    heard = [line[4:] for line in output.splitlines() if 'heard' in line]
    assert (process.returncode, heard) == (code, ['heard', 'heard'])


def test_a_second_signal_goes_to_all_as_well():
    counts = "n=0; trap 'echo heard; n=$((n + 1)); [ $n -lt 2 ] || exit 1' INT"
    program = f'{counts}; echo ready; while :; do sleep 0.1; done'
    process = subprocess.Popen(
        [LOCAL, '--', 'bash', '-c', program, ''], stdout=subprocess.PIPE, text=True
    )
    for said in ('ready', 'heard'):
        for _ in range(2):
            assert process.stdout.readline().endswith(f'{said}\n')
        process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdout.close()


def test_a_dry_run_prints_commands_and_starts_nothing(tmp_path):
    done = start('--dry_run', '--', '--config', 'a b', '--workdir', tmp_path / 'run')
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert len(lines) == 2
    assert r'python -m alm_jax.train --config a\ b --workdir' in lines[1]
    assert lines[1].endswith('--num_processes=2 --process_id=1')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['--processes', '0', '--', 'true'], "--processes is '0'"),
        (['--devices'], "--devices is ''"),
        (['--proceses', '2'], "'--proceses' is not an option"),
        (['--processes', '2', '--'], 'nothing to run'),
    ],
)
def test_a_mistake_is_told(arguments, told):
    done = start(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
