"""Every shell program of launch/ and of these tests passes shellcheck."""

import pathlib
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
FOLDERS = ('launch', 'tests/launch')
PROGRAMS = sorted(
    str(path.relative_to(REPOSITORY))
    for folder in FOLDERS
    for path in (REPOSITORY / folder).iterdir()
    if path.suffix in ('.sh', '.sbatch')
)


@pytest.mark.skipif(not shutil.which('shellcheck'), reason='shellcheck is not installed: [dev]')
def test_shellcheck_finds_nothing():
    assert len(PROGRAMS) > 5
    command = ['shellcheck', '--shell=bash', '--external-sources', *PROGRAMS]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_slurm_sbatch_prints_what_it_would_do_without_slurm():
    command = ['bash', 'launch/slurm.sbatch', '--dry_run', '--config', 'a b.py', '--workdir', 'x']
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert '--signal=B:USR1@180' in done.stdout
    assert r'python -m alm_jax.train --config a\ b.py --workdir x' in done.stdout
    assert 'scontrol requeue' in done.stdout
    alone = subprocess.run([*command[:2], '--config', 'a'], cwd=REPOSITORY, capture_output=True)
    assert alone.returncode == 2
