"""launch/tpu_vm.sh: what it prints, what it refuses, and a slice that is preempted.

No TPU and no account is at hand. Where Google's gcloud is installed, it parses every command that
is printed, which it does before it asks for an account; the preemption is played by a small program
in its place.
"""

import pathlib
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
TPU_VM = REPOSITORY / 'launch' / 'tpu_vm.sh'
JOB = [
    '--name',
    'my-run',
    '--zone',
    'us-west4-a',
    '--topology',
    'v5e:16x16',
    '--nfs',
    '10.0.0.2:/r',
]
RUN = ['--', '--config', 'configs/clap/tiny.py', '--workdir', '/mnt/runs/x']

GCLOUD = r"""#!/usr/bin/env bash
# A slice that is preempted during its first run. The files $STATE and $STATE.* are its memory.
echo "${*//$'\n'/;}" >>"$STATE.log"
now=$(cat "$STATE" 2>/dev/null || echo NONE)
case "$*" in
  *' create '*) echo ACTIVE >"$STATE" ;;
  *' delete '*) rm "$STATE" ;;
  *describe*)
    if [ "$now" = NONE ]; then echo 'ERROR: NOT_FOUND: there is none' >&2; exit 1; fi
    case "$* $now" in
      *tpu-vm*ACTIVE) echo READY ;;
      *tpu-vm*) echo PREEMPTED ;;
      *) echo "$now" ;;
    esac
    ;;
  *alm_jax.train*)
    if [ -e "$STATE.defect" ]; then exit 3; fi
    if [ ! -e "$STATE.once" ]; then touch "$STATE.once"; echo SUSPENDED >"$STATE"; exit 255; fi
    ;;
esac
"""


def start(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([TPU_VM, *arguments], capture_output=True, text=True, timeout=60)


def printed(action, *arguments) -> list[str]:
    done = start(action, '--dry_run', *arguments)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith('gcloud')]


def test_a_dry_run_prints_the_commands_in_turn():
    create, copy, setup, run, delete = printed('train', *JOB, '--spot', *RUN)
    assert create.split()[1:] == [
        *('compute', 'tpus', 'queued-resources', 'create', 'my-run', '--node-id=my-run'),
        *('--zone=us-west4-a', '--accelerator-type=v5litepod-256'),
        *('--runtime-version=v2-alpha-tpuv5-lite', '--spot'),
    ]
    assert 'tpu-vm scp' in copy
    assert '--worker=all' in copy
    assert 'mount -t nfs 10.0.0.2:/r /mnt/runs' in setup
    assert "-e \\'.[tpu]\\'" in setup
    assert r'python\ -m\ alm_jax.train\ --config\ configs/clap/tiny.py' in run
    assert 'queued-resources delete my-run' in delete


@pytest.mark.parametrize(
    ('topology', 'flags'),
    [
        ('v4:4x4x8', '--type=v4 --topology=4x4x8 --runtime-version=tpu-ubuntu2204-base'),
        ('v5p:4x4x8', '--accelerator-type=v5p-256 --runtime-version=v2-alpha-tpuv5'),
        ('v6e:4x8', '--accelerator-type=v6e-32 --runtime-version=v2-alpha-tpuv6e'),
    ],
)
def test_topologies_are_called_as_google_does(topology, flags):
    (line,) = printed('create', '--name', 'a', '--zone', 'z', '--topology', topology)
    assert line.rstrip().endswith(flags)


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        ([], 'give train, create, setup, run or delete'),
        (['start'], "the first argument is 'start'"),
        (['create', '--name', 'a'], 'create needs --zone'),
        (['create', '--zone'], '--zone needs a value'),
        (['create', '--name', 'A', '--zone', 'z', '--topology', 'v5e:4x4'], 'lower-case'),
        (['create', '--name', 'a', '--zone', 'z', '--topology', 'v5e:4x4x4'], 'write one such as'),
        (['create', '--name', 'a', '--zone', 'z', '--topology', 'v5e:4x4*2'], 'jobset.py'),
        (['setup', '--name', 'a', '--zone', 'z', '--nfs', 'share'], 'write HOST:/PATH'),
        (['train', *JOB], 'needs what to run after --'),
        (['delete', '--name', 'a', '--zone', 'z', '--', 'x'], 'runs nothing'),
        (['run', '--name', 'a', 'python'], "'python' is not an option"),
    ],
)
def test_a_mistake_is_told(arguments, told):
    done = start(*arguments)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.fixture
def played(tmp_path, monkeypatch):
    """The folder of a played gcloud, which comes first in the path."""
    (tmp_path / 'gcloud').write_text(GCLOUD)
    (tmp_path / 'gcloud').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    monkeypatch.setenv('STATE', str(tmp_path / 'state'))
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    return tmp_path


def test_a_preempted_slice_is_asked_for_again(played):
    done = start('train', *JOB, *RUN)
    assert done.returncode == 0, done.stderr
    assert 'the slice is PREEMPTED; it is asked for again' in done.stderr
    calls = (played / 'state.log').read_text().splitlines()
    kinds = ('create', 'scp', 'mount', 'alm_jax.train', 'delete')
    done = [
        next(kind for kind in kinds if kind in call) for call in calls if 'describe' not in call
    ]
    assert done == [*kinds[:4], 'delete', *kinds[:4]]


def test_a_program_that_fails_is_not_started_again(played):
    (played / 'state.defect').touch()
    done = start('train', *JOB, *RUN)
    assert done.returncode == 3
    assert 'the program failed with exit code 3; the slice stands' in done.stderr


@pytest.mark.slow_local
def test_google_parses_what_is_printed(tmp_path, monkeypatch):
    if not shutil.which('gcloud'):
        pytest.skip("Google's gcloud is not installed")
    monkeypatch.setenv(
        'CLOUDSDK_CONFIG', str(tmp_path)
    )  # no account, so nothing is asked of Google
    wrong = subprocess.run(
        ['gcloud', 'compute', 'tpus', 'tpu-vm', 'describe', 'a', '--zoone=z'], capture_output=True
    )
    assert wrong.returncode == 2
    for line in printed('train', *JOB, '--project', 'p', '--spot', *RUN):
        done = subprocess.run(['bash', '-c', line], capture_output=True, text=True)
        assert done.returncode == 1
        assert 'do not currently have an active account' in done.stderr
