"""``--verify_resume``: whether this very config goes on, after kill -9, to the last bit.

The run is shortened to a few steps a stage and trained twice under ``<workdir>/verify_resume``,
each time by ``python -m alm_jax.train`` in processes of their own: once without interruption, and
once killed in every stage and started again. Then every number that was logged and every bit of the
last state are compared. The run that may be in ``workdir`` is not touched.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import jax
import tqdm
from absl import flags
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax import distributed
from alm_jax.config import ConfigError
from alm_jax.training import checkpoint, compared_runs, lock, stages

FOLDER = 'verify_resume'
LENGTH = 6  # steps of a stage
EVERY = 2  # steps between checkpoints: two more saves follow the one after which it is killed
POLL = 0.01  # seconds
CONFIG = '''"""What --verify_resume trains: the config beside this file."""

import pathlib

from alm_jax import config


def get_config(arg=None):
    return config.from_json(pathlib.Path(__file__).with_suffix('.json').read_text())
'''


def verify(config: ConfigDict, workdir: pathlib.Path) -> int:
    """Trains, kills, goes on, compares; prints PASS, or what differs first.

    Args:
      config: of the user, with all overrides.
      workdir: the user's, under which a folder is made; after a PASS it goes.

    Returns:
      The exit code: 0 for PASS, else 1.

    Raises:
      ConfigError: what the user can mend, also when it is a run that finds it.
    """
    _check_alone()
    config_lib.validate(config)
    short = shortened(config)
    points = kill_points(short)
    jax.config.update('jax_platforms', 'cpu')  # the devices are for the runs
    with _ended_by_sigterm(), _folder(workdir) as folder:
        (folder / 'config.json').write_text(config_lib.to_json(short))
        (folder / 'config.py').write_text(CONFIG)
        runs = Runs(folder, short.steps, child_environment(_platform(), os.environ))
        _say(
            f'verify_resume: {short.steps} steps, a checkpoint every {EVERY}, killed behind '
            f'{", ".join(map(str, points))}; without evaluations, under {folder}'
        )
        whole = runs.whole()
        parts = runs.killed(points)
        report = compared_runs.compare(whole, parts, short.steps)
        passed = not report
        if passed:
            print(
                f'PASS: killed {len(points)} time(s), and all numbers of {short.steps} steps and '
                'every bit of the last state are those of the run that was not.'
            )
            shutil.rmtree(folder)
        else:
            print('\n'.join(['FAIL', *report, f'Both runs are under {folder}.']))
    return 0 if passed else 1


def shortened(config: ConfigDict) -> ConfigDict:
    """The config with ``LENGTH`` steps a stage, and nothing else changed that a step depends on.

    The learning rate has the same course over fewer steps. There are no evaluations, and the run
    starts where the user's would without ``config.resume``.
    """
    curriculum = stages.of(config)
    short = config.copy_and_resolve_references()
    steps = [min(stage.stop - stage.start, LENGTH) for stage in curriculum]
    with short.ignore_type(), short.unlocked():
        short.steps, short.log_every, short.profile, short.resume = sum(steps), 1, (), ''
        short.evals = ConfigDict()
        short.checkpoint = config_lib.base().checkpoint
        short.checkpoint.update(every=EVERY, keep=2)
        short.optimizer.warmup_steps = min(config.optimizer.warmup_steps, sum(steps) - 1)
        if config.stages:
            short.stages = tuple(map(_short_stage, config.stages, curriculum, steps))
    return short


def _short_stage(entry: Mapping, stage: stages.Stage, steps: int) -> dict:
    kept = {k: v for k, v in dict(entry).items() if k != 'evals'}
    warmup = min(stage.config.optimizer.warmup_steps, steps - 1)
    return {**kept, 'steps': steps, 'optimizer.warmup_steps': warmup}


def kill_points(config: ConfigDict) -> list[int]:
    """The checkpoints behind which a run is killed: the first one of each stage.

    Raises:
      ConfigError: the run is too short for one.
    """
    points = []
    for stage in stages.of(config):
        first = min(stage.start // EVERY * EVERY + EVERY, stage.stop)
        points += [first] * (first < config.steps)
    if not points:
        raise ConfigError(f'config.steps is {config.steps}; --verify_resume needs {EVERY + 1}.')
    return points


def child_environment(platform: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the runs: on a GPU, only operations that give the same bits each time.

    Args:
      platform: of the devices, as jax calls it.
      environment: of this process.
    """
    if platform not in ('gpu', 'cuda', 'rocm'):
        return dict(environment)
    given = environment.get('XLA_FLAGS', '')
    return {**environment, 'XLA_FLAGS': f'{given} --xla_gpu_deterministic_ops=true'.strip()}


class Runs:
    """The runs of one verification, as processes."""

    def __init__(self, folder: pathlib.Path, steps: int, environment: Mapping[str, str]):
        self._folder = folder
        self._steps = steps
        self._environment = environment

    def whole(self) -> compared_runs.Run:
        """The run that nothing interrupts."""
        workdir = self._folder / 'whole'
        with self._started(workdir, 'not killed') as follow:
            follow()
        return compared_runs.read(workdir)

    def killed(self, points: list[int]) -> list[compared_runs.Run]:
        """The run that is killed behind each of ``points``: what it was each time, and at last."""
        workdir = self._folder / 'killed'
        found = []
        for number, point in enumerate(points):
            with self._started(workdir, f'to be killed ({number + 1} of {len(points)})') as follow:
                follow(kill_behind=point)
            found.append(compared_runs.read(workdir))
        with self._started(workdir, 'going on to the end') as follow:
            follow()
        return [*found, compared_runs.read(workdir)]

    @contextlib.contextmanager
    def _started(self, workdir: pathlib.Path, what: str) -> Iterator:
        """A process that trains in ``workdir``; nothing of it is left afterwards."""
        command = [sys.executable, '-m', 'alm_jax.train']
        command += ['--config', str(self._folder / 'config.py'), '--workdir', str(workdir)]
        log = workdir.with_suffix('.log')
        with log.open('a') as output:
            process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C comes to this process, which ends it
            )
        bar = tqdm.tqdm(total=self._steps, desc=what, unit='step', dynamic_ncols=True)

        def follow(kill_behind: int | None = None) -> None:
            while process.poll() is None:
                done = _last_step(workdir)
                if done > bar.n:
                    bar.update(done - bar.n)
                if kill_behind is not None and done > kill_behind and _saved(workdir, kill_behind):
                    process.kill()
                    process.wait()
                    return
                time.sleep(POLL)
            bar.update(_last_step(workdir) - bar.n)
            _check_ended(process.returncode, log, expected=kill_behind is None)

        try:
            yield follow
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and its decode processes
            process.wait()
            bar.close()


def _last_step(workdir: pathlib.Path) -> int:
    return max(compared_runs.logged(workdir), default=0)


def _saved(workdir: pathlib.Path, step: int) -> bool:
    return (workdir / 'checkpoints' / str(step) / checkpoint.MANIFEST).exists()


def _check_ended(code: int, log: pathlib.Path, expected: bool) -> None:
    """Raises ConfigError unless a run ended well, and was to."""
    lines = log.read_text(errors='replace').splitlines()
    if code == 2:  # its own ConfigError, which may have several lines
        errors = [number for number, line in enumerate(lines) if line.startswith('error: ')]
        raise ConfigError('\n'.join(lines[errors[-1] if errors else -1 :]).removeprefix('error: '))
    if code:
        raise ConfigError(f'a run ended with code {code}; {log} ends:\n' + '\n'.join(lines[-20:]))
    if not expected:
        raise ConfigError('the run was over before it could be killed; give it more config.steps.')


def _check_alone() -> None:
    """Raises ConfigError for one of several processes: who would kill the others?"""
    several = (flags.FLAGS.num_processes or 1) > 1
    if several or distributed.detected(os.environ) is not None:
        raise ConfigError(
            '--verify_resume starts its own runs, each of one process: give the command on one '
            'host without --num_processes (in Slurm: srun --ntasks=1).'
        )
    if flags.FLAGS.profile_steps:
        raise ConfigError('--verify_resume profiles nothing: leave --profile_steps out.')


def _platform() -> str:
    """Of the devices the runs will have, asked of a process that is gone before they begin."""
    program = 'import jax; print(jax.devices()[0].platform)'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f'jax finds no device: {done.stderr.strip().splitlines()[-1]}')
    return done.stdout.split()[-1]


@contextlib.contextmanager
def _folder(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder under ``workdir``; on Ctrl-C it goes, on other errors its logs are of use."""
    folder = workdir / FOLDER
    with lock.held(folder):
        for part in ('whole', 'killed'):  # of a verification before
            shutil.rmtree(folder / part, ignore_errors=True)
            (folder / part).with_suffix('.log').unlink(missing_ok=True)
        try:
            yield folder
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(folder)
            raise


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does, with its runs, and the code a shell would give."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
