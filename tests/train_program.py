"""python -m alm_jax.train as a user runs it, each run its own process.

Runs share XLA flags and a compilation cache, so that equality to the last bit is between runs of
one program.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SECONDS = 300  # limit of a run
SPEEDS = ('clips_per_s', 'tokens_per_s', 'model_tflops_per_s', 'step_seconds', 'data_wait')
TIMINGS = {f'train/{name}' for name in (*SPEEDS, 'goodput', 'start_up_seconds', 'compile_seconds')}


class Program:
    """Starts ``python -m alm_jax...`` where torch is not installed, as at a user's."""

    def __init__(self, folder: pathlib.Path, data_dir: pathlib.Path, config: str):
        self.folder = folder
        (folder / 'small.py').write_text(config)
        for name in ('torch', 'tensorflow', 'transformers', 'librosa', 'sklearn'):
            (folder / 'hidden' / name).mkdir(parents=True)
            hide = f'raise ImportError("{name} is for tests alone")\n'
            (folder / 'hidden' / name / '__init__.py').write_text(hide)
        self.environment = {
            **os.environ,
            'ALM_JAX_DATA': str(data_dir),
            'PYTHONPATH': str(folder / 'hidden'),
            'XLA_FLAGS': '--xla_backend_optimization_level=0',
            'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
        }

    def start(self, name: str, *arguments, **environment: str) -> subprocess.Popen:
        program = (name,) if name.endswith('.py') else ('-m', f'alm_jax.{name}')
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, *arguments, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(name, *arguments, **environment)
        try:
            output = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, *output)

    def train(self, workdir, *arguments, **environment: str) -> subprocess.CompletedProcess:
        config = () if '--config' in arguments else ('--config', 'small.py')
        return self.run('train', *config, '--workdir', workdir, *arguments, **environment)

    def interrupt(self, workdir: pathlib.Path, at: int, how: signal.Signals, saving: bool = False):
        """A run that gets a signal as soon as checkpoint ``at`` is complete: (rc, stderr).

        With ``saving`` it comes when that has just begun to be written.
        """
        awaited = f'{at}*' if saving else f'{at}/manifest.json'
        return self.signalled(workdir, how, lambda: list((workdir / 'checkpoints').glob(awaited)))

    def signalled(self, workdir: pathlib.Path, how: signal.Signals, due: Callable[[], Any]):
        """A run that gets a signal as soon as ``due``: (rc, stderr)."""
        process = self.start('train', '--config', 'small.py', '--workdir', workdir)
        try:
            deadline = time.monotonic() + SECONDS
            while not due():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.002)
            process.send_signal(how)
            stderr = process.communicate(timeout=SECONDS)[1]
            return process.returncode, stderr
        finally:
            process.kill()


def numbers(workdir, after=0):
    """{(step, name): value} of metrics.jsonl, without timings. JSON keeps every bit of a float."""
    found = {}
    for line in (workdir / 'metrics.jsonl').read_text().splitlines():
        values = json.loads(line)
        step, _ = values.pop('step'), values.pop('stage', '')
        for name, value in values.items():
            assert (step, name) not in found  # no step twice
            if step > after and name not in TIMINGS:
                found[step, name] = value
    return found
