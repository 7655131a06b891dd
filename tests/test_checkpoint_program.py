"""python -m alm_jax.checkpoint on the checkpoints of a small state."""

import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax import checkpoint as program
from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.training import lock
from alm_jax.training.checkpoint import Checkpointer
from alm_jax.training.retention import Retention
from alm_jax.training.state import TrainState


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Five checkpoints, of which 20 is the best and 30 ends a stage."""
    path = tmp_path_factory.mktemp('program') / 'run'
    with Checkpointer(path, keep=9) as saver:
        for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)):
            numbers = jnp.asarray(np.full(1000, loss, np.float32))
            number = jnp.int32(step)
            params, moments = {'kernel': numbers}, {'mu': numbers}
            state = TrainState(number, number + 5, params, moments, {})
            saver.save(state, kept=step == 30, stage='heads')
            with (path / 'metrics.jsonl').open('a') as file:
                file.write(f'{{"step": {step}, "train/loss": {loss}}}\n')
    config = config_lib.base()
    config.checkpoint.best = '-train/loss'
    (path / 'config.json').write_text(config_lib.to_json(config))
    return path


@pytest.fixture
def workdir(run, tmp_path):
    return shutil.copytree(run, tmp_path / 'run')


def names(workdir):
    return sorted(path.name for path in (workdir / 'checkpoints').iterdir())


def harm(workdir, step, change=lambda data: data[:-1]):
    """Changes the largest file of a checkpoint; returns its name."""
    path = workdir / 'checkpoints' / str(step)
    files = [f for f in path.rglob('*') if f.is_file() and f.name != 'manifest.json']
    file = max(files, key=lambda f: f.stat().st_size)
    file.write_bytes(change(file.read_bytes()))
    return file.relative_to(path).as_posix()


def flip(data):
    return bytes([data[0] ^ 1]) + data[1:]


def test_as_a_user_runs_it(workdir):
    """Without jax, which would take the devices that the run trains on."""
    damaged = harm(workdir, 20, flip)

    def run(*arguments):
        script = (
            'import sys; sys.modules.update(jax=None, flax=None); import runpy\n'
            f'sys.argv = ["checkpoint", *{arguments!r}]\n'
            'runpy.run_module("alm_jax.checkpoint", run_name="__main__")'
        )
        return subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)

    done = run('verify', str(workdir))
    assert done.returncode == 1, done.stderr
    assert f'checkpoints/20: {damaged} differs from its sha256' in done.stdout
    assert done.stdout.endswith('4 of 5 checkpoints are whole.\n')
    done = run('prune', str(workdir), '--keep=1', '--keep_every=20', '--best=')
    assert done.returncode == 0, done.stderr
    assert names(workdir) == ['30', '40', '50']
    done = run('ls', str(workdir / 'nowhere'))
    assert done.returncode == 2
    assert 'nowhere does not exist' in done.stderr


def test_ls(workdir, capsys):
    damaged = harm(workdir, 40)
    (workdir / 'checkpoints' / '60.orbax-checkpoint-tmp').mkdir()
    assert program.listing(workdir) == 0
    rows = capsys.readouterr().out.splitlines()
    steps = [row.split()[0] for row in rows]
    assert steps == ['step', '10', '20', '30', '40', '50', '60.orbax-checkpoint-tmp']
    assert rows[1].split()[1:3] == ['15', 'heads']
    assert 'best train/loss, 1 ' in rows[2]
    assert 'last 2, end of a stage' in rows[3]
    assert f'{damaged} has ' in rows[4]
    assert 'last 2' in rows[5]
    assert 'its writing never finished' in rows[6]
    assert 'last' not in rows[1] + rows[4]
    program.listing(workdir / 'checkpoints' / '10')
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_verify_ends_with_a_code(workdir, capsys):
    assert program.verify(workdir) == 0
    (workdir / 'checkpoints' / '60.orbax-checkpoint-tmp').mkdir()
    assert program.verify(workdir / 'checkpoints') == 0  # a kill is no damage
    assert program.verify(workdir / 'checkpoints' / '50') == 0
    (workdir / 'checkpoints' / '50' / 'manifest.json').unlink()
    assert program.verify(workdir) == 1
    with lock.held(workdir):
        assert program.verify(workdir) == 0
    assert '50: being written by process' in capsys.readouterr().out


def test_prune_never_takes_the_last_whole_one(workdir, capsys):
    """However many newer ones are damaged, which takes reading them to know."""
    damaged = [harm(workdir, step, flip) for step in (30, 40, 50)]
    (workdir / 'checkpoints' / '60.orbax-checkpoint-tmp').mkdir()
    before = names(workdir)
    assert program.prune(workdir, Retention(keep=1), dry_run=True) == 0
    assert names(workdir) == before
    said = capsys.readouterr().out
    assert f'checkpoints/50: {damaged[2]} differs' in said
    assert 'checkpoints/20 stays: last' in said
    assert 'checkpoints/10 would go: ' in said
    assert program.prune(workdir, Retention(keep=1), dry_run=False) == 0
    assert names(workdir) == ['20']
    harm(workdir, 20)
    with pytest.raises(ConfigError, match=r'no checkpoint in .* is whole; nothing is removed'):
        program.prune(workdir, Retention(keep=1), dry_run=False)
    assert names(workdir) == ['20']


def test_prune_by_the_config_of_the_run_and_what_is_given(workdir):
    def choice(**given):
        return program.choice_of(
            workdir, **{'keep': None, 'keep_every': None, 'best': None, **given}
        )

    assert choice() == Retention(keep=2, best='-train/loss')
    assert choice(keep=1, best='') == Retention(keep=1)
    program.prune(workdir, choice(keep=1), dry_run=False)
    assert names(workdir) == ['20', '30', '50']
    (workdir / 'config.json').unlink()
    with pytest.raises(ConfigError, match='give --keep N'):
        choice()


def test_mistakes(workdir, tmp_path):
    with pytest.raises(ConfigError, match=r"does not exist\. Did you mean 'run'"):
        program.find(tmp_path / 'rum')
    with pytest.raises(ConfigError, match=r'holds no checkpoint\. Give a workdir'):
        program.find(tmp_path)
    with pytest.raises(ConfigError, match=r'is one checkpoint\. Give its workdir'):
        program.prune(workdir / 'checkpoints' / '10', Retention(), dry_run=False)
    with lock.held(workdir), pytest.raises(ConfigError, match='is in use by process'):
        program.prune(workdir, Retention(keep=1), dry_run=False)
    assert len(names(workdir)) == 5
