"""Checks that all processes of a job agree and work, before minutes of a cluster are burnt.

  launch/local.sh --processes 2 -- python launch/preflight.py --config FILE --workdir DIR
  sbatch launch/slurm.sbatch python launch/preflight.py --config FILE --workdir DIR \\
      --step_seconds 0.4

Start it as the job itself is started. Every process compares its code, config, package versions,
compiler flags and devices with the others, writes to the workdir and looks there for what the
others wrote, adds a number over all devices, reads batches as in training and moves them to its
devices. Process 0 prints a row for each and what is wrong with which; the exit code is 1 when
anything is. A stage that failed is the last, for what comes after it might hang.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from jax._src.distributed import global_state  # before any device is touched; as in distributed.py
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

import alm_jax
from alm_jax import config as config_lib
from alm_jax import distributed, run_setup
from alm_jax.config import ConfigError
from alm_jax.data import loader
from alm_jax.tasks import build_task
from alm_jax.training import sharding

PACKAGES = ('jax', 'jaxlib', 'libtpu', 'jax-cuda12-plugin', 'jax-cuda13-plugin', 'numpy', 'flax')
PACKAGES += ('optax', 'orbax-checkpoint', 'grain', 'soxr', 'soundfile', 'tokenizers')
COMPILER_FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'JAX_ENABLE_X64', 'JAX_DEFAULT_MATMUL_PRECISION')
COMPARED = ('code', 'config', 'packages', 'compiler_flags', 'devices')
RATES = {'rows_s': 'rows/s of the loader', 'mb_s': 'MB/s from host to device'}
COLUMNS = ('process', 'host', *COMPARED, 'workdir', 'sum', 'first_batch', *RATES)
SHOWN = 3  # differences of a kind that are told


def main(argv: list[str]) -> int:
    """The stages in turn; the exit code is the same on all processes."""
    del argv
    config = flags.FLAGS.config
    if config is None:
        raise ConfigError('give --config FILE[:args], such as configs/clap/tiny.py.')
    if flags.FLAGS.data_dir:
        config.data.dir = flags.FLAGS.data_dir
    config_lib.validate(config)
    if not flags.FLAGS.workdir:
        raise ConfigError('give --workdir DIR, the folder of the run.')
    workdir = pathlib.Path(flags.FLAGS.workdir).absolute()
    distributed.initialize()
    job = Job(flags.FLAGS.seconds)
    mark = Mark(workdir, job.process)
    stages = {
        'host': lambda: {'host': socket.gethostname(), **identity(config), **mark.write()},
        'devices': lambda: devices() | mark.find(job.processes),
        'sum': lambda: all_reduce(config),
        'data': lambda: data_rates(config, flags.FLAGS.measure_seconds, flags.FLAGS.step_seconds),
    }
    wrong: list[str] = []
    for name, stage in stages.items():
        if not wrong:
            wrong = job.stage(name, stage)
    mark.remove()
    if job.process == 0:
        print(table(job.rows))
        for rate, least in job.rows[0].get('needed', {}).items():
            print(f'A step of {flags.FLAGS.step_seconds:g} s takes {least:.1f} {RATES[rate]}.')
        for line in wrong:
            print(f'WRONG: {line}')
        reached = 'fails' if wrong else 'passes'
        print(f'preflight {reached}: {job.processes} process(es)', flush=True)
    job.leave(int(bool(wrong)))
    return int(bool(wrong))


class Job:
    """This process among all, through the coordinator's store, which needs no device.

    Attributes:
      process, processes: this one's number, and how many there are.
      rows: on process 0, what each has told so far.
    """

    def __init__(self, seconds: float):
        self._client = global_state.client
        self._seconds = seconds
        self.process, self.processes = global_state.process_id, global_state.num_processes
        self.rows: list[dict[str, Any]] = [{'process': str(i)} for i in range(self.processes)]
        self.mine: dict[str, Any] = {}

    def stage(self, name: str, work: Callable[[], Mapping[str, Any]]) -> list[str]:
        """Does ``work`` on every process; what process 0 finds wrong, on every process."""
        self.mine = told(work, self._seconds)
        self._set(f'{name}/{self.process}', self.mine)
        if self.process:
            found = self._get(f'{name}/wrong', 3 * self._seconds)
            return ['process 0 does not answer'] if found is None else found
        late = time.monotonic() + self._seconds + 5  # ``work`` may have taken all of it
        answers = [self.mine]
        for i in range(1, self.processes):
            answers.append(self._get(f'{name}/{i}', max(0.1, late - time.monotonic())))
        for row, answer in zip(self.rows, answers):
            row.update(answer or {'error': f'no answer within {self._seconds:g} s (stage {name})'})
        wrong = judge(self.rows)
        self._set(f'{name}/wrong', wrong)
        return wrong

    def leave(self, code: int) -> None:
        """Ends the process without jax's own exit, which waits for those that hang."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self._client is None:
            return
        if self.process == 0:  # it holds the store, so it goes last
            for i in range(1, self.processes):
                self._get(f'left/{i}', 5)
            time.sleep(0.5)
        else:
            self._set(f'left/{self.process}', '')
        os._exit(code)

    def _set(self, key: str, value: Any) -> None:
        if self._client is not None:
            self._client.key_value_set(f'alm_jax/preflight/{key}', json.dumps(value))

    def _get(self, key: str, seconds: float) -> Any:
        try:
            full, limit = f'alm_jax/preflight/{key}', int(1000 * seconds)
            return json.loads(self._client.blocking_key_value_get(full, limit))
        except jax.errors.JaxRuntimeError:
            return None


def told(work: Callable[[], Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """What ``work`` gives, or {'error': why}, also when it takes longer than ``seconds``."""
    found: dict[str, Any] = {'error': f'takes more than {seconds:g} s'}

    def run() -> None:
        try:
            result = dict(work())
        except Exception as error:  # whatever it is, process 0 is to tell of it
            result = {'error': ' '.join(f'{type(error).__name__}: {error}'.split())[:500]}
        found.pop('error', None)
        found.update(result)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return dict(found)


def judge(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong, and with which process.

    Args:
      rows: for each process what it told: COMPARED as flat dicts, 'error' where it failed.
    """
    names = [f'process {row["process"]} on {row.get("host", "an unknown host")}' for row in rows]
    wrong = [f'{name}: {row["error"]}' for name, row in zip(names, rows) if 'error' in row]
    for what in COMPARED:
        values = [json.dumps(row[what], sort_keys=True) if what in row else '' for row in rows]
        counts = Counter(filter(None, values))
        if len(counts) < 2:
            continue
        usual = values.index(counts.most_common(1)[0][0])
        for name, row, value in zip(names, rows, values):
            if value and value != values[usual]:
                lines = differences(row[what], rows[usual][what])
                where = f'process {rows[usual]["process"]}'
                wrong.append(f'{name}: {what} other than on {where}: {lines}')
    for name, row in zip(names, rows):
        for rate, least in row.get('needed', {}).items():
            if row[rate] < least:
                wrong.append(f'{name}: {RATES[rate]} are {row[rate]:.1f} of {least:.1f}')
    return wrong


def differences(mine: Mapping[str, str], usual: Mapping[str, str]) -> str:
    """The first entries that differ, 'key: here X, there Y'."""
    keys = [key for key in sorted({*mine, *usual}) if mine.get(key) != usual.get(key)]
    lines = [f'{k}: here {mine.get(k, "none")}, there {usual.get(k, "none")}' for k in keys[:SHOWN]]
    more = [f'and {len(keys) - SHOWN} more'] if len(keys) > SHOWN else []
    return '; '.join([*lines, *more])


def identity(config: ConfigDict) -> dict[str, dict[str, str]]:
    """Code, config, packages and compiler flags of this process, as flat dicts."""
    package = pathlib.Path(alm_jax.__file__).parent
    code = {
        str(path.relative_to(package.parent)): hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        for path in sorted(package.rglob('*.py'))
    }
    packages = {'python': platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    given = {name: os.environ[name] for name in COMPILER_FLAGS if os.environ.get(name)}
    values = {}
    flatten(json.loads(config_lib.to_json(config)), '', values)
    return {'code': code, 'config': values, 'packages': packages, 'compiler_flags': given}


def flatten(value: Any, path: str, into: dict[str, str]) -> None:
    """Puts the leaves of nested dicts into ``into``, 'a.b' -> JSON."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            flatten(item, f'{path}.{key}'.lstrip('.'), into)
    else:
        into[path] = json.dumps(value)


class Mark:
    """A file of this process in the workdir, by which the others see that the folder is shared."""

    def __init__(self, workdir: pathlib.Path, process: int):
        self._folder = workdir / '.preflight'
        self._mine = self._folder / str(process)
        self._seen: set[str] = set()

    def write(self) -> dict[str, str]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._mine.write_text('')
        except OSError as error:
            return {'error': f'workdir {self._folder.parent} cannot be written: {error.strerror}'}
        return {'workdir': 'written'}

    def find(self, processes: int, seconds: float = 15) -> dict[str, str]:
        """Waits, for a network file system shows the files of other hosts late."""
        missing = {str(i) for i in range(processes)}
        deadline = time.monotonic() + seconds
        while missing and time.monotonic() < deadline:
            missing -= {path.name for path in self._folder.iterdir()}
            time.sleep(0.1 * bool(missing))
        if not missing:
            return {'workdir': 'shared'}
        others = ', '.join(sorted(missing, key=int))
        return {
            'error': f'workdir {self._folder.parent} is not that of process {others}: what they '
            'wrote is not there. Use a folder on a file system that all hosts share.'
        }

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._mine.unlink()
            self._folder.rmdir()  # the last process finds it empty


def devices() -> dict[str, dict[str, str]]:
    """How many devices this process has, and of which kind."""
    local = jax.local_devices()
    return {'devices': {'count': str(len(local)), 'kind': local[0].device_kind}}


def all_reduce(config: ConfigDict) -> dict[str, str]:
    """The sum of the numbers of all devices, by a program of which each device has one number.

    Raises:
      ConfigError: the sum is wrong, or config.mesh does not fit the devices.
    """
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.batch_size, mesh)
    count = jax.device_count()
    rows = NamedSharding(Mesh(mesh.devices.reshape(-1), ('all',)), PartitionSpec('all'))
    numbers = np.arange(count, dtype=np.float32)
    x_n = jax.make_array_from_callback((count,), rows, lambda index: numbers[index])
    found = float(jax.jit(lambda x: x.sum(), out_shardings=_everywhere(rows))(x_n))
    if found != numbers.sum():
        raise ConfigError(f'the sum over {count} devices is {found:g}, not {numbers.sum():g}.')
    return {'sum': f'{found:g}'}


def _everywhere(placed: NamedSharding) -> NamedSharding:
    return NamedSharding(placed.mesh, PartitionSpec())


def data_rates(config: ConfigDict, seconds: float, step_seconds: float) -> dict[str, Any]:
    """Seconds to the first batch, rows/s of the loader and MB/s from it to the devices.

    Args:
      config: of the job.
      seconds: to measure for.
      step_seconds: of a training step; 0 where that is not known, and then nothing is needed.
    """
    mesh = sharding.make_mesh(config.mesh)
    opened, _ = loader.open_mixture(config)
    tokenizer = run_setup.make_tokenizer(config, opened, None)
    task = build_task(config, tokenizer=tokenizer, mesh=mesh)
    start = time.monotonic()
    made = loader.batches(
        config,
        sampling_rate=task.sampling_rate,
        window_samples=task.window_samples,
        tokenizer=tokenizer,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with contextlib.closing(made):
        next(made)
        first = time.monotonic() - start
        for _ in range(config.data.prefetch):  # made beside the first; they would flatter the rate
            batch = next(made)
        rows, begun = 0, time.monotonic()
        while (took := time.monotonic() - begun) < seconds or not rows:
            batch = next(made)
            rows += len(batch['pcm'])
        rows_s = rows / took
        size, moved, begun = sum(x.nbytes for x in batch.values()) / 1e6, 0, time.monotonic()
        while (took := time.monotonic() - begun) < seconds / 5 or not moved:
            jax.block_until_ready(sharding.put_batch(batch, mesh))
            moved += size
    needed = {'rows_s': len(batch['pcm']), 'mb_s': size} if step_seconds else {}
    return {
        'first_batch': f'{first:.1f} s',
        'rows_s': rows_s,
        'mb_s': moved / took,
        'needed': {name: amount / step_seconds for name, amount in needed.items()},
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each process. What is compared is shown by a hash: equal looks equal."""

    def cell(name: str, value: Any) -> str:
        if name == 'devices':
            return f'{value["count"]} {value["kind"]}'
        if isinstance(value, dict):
            return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
        return f'{value:.1f}' if isinstance(value, float) else str(value)

    lines = [[name.replace('_s', '/s') if name in RATES else name for name in COLUMNS]]
    lines += [[cell(name, row[name]) if name in row else '-' for name in COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join(
        '  '.join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines
    )


if __name__ == '__main__':
    config_lib.define_config_flag()
    flags.DEFINE_string('workdir', '', 'Folder of the run.')
    flags.DEFINE_string('data_dir', '', 'Where prepared data lies; default $ALM_JAX_DATA.')
    flags.DEFINE_float('step_seconds', 0.0, 'Of a training step: what the data must keep up with.')
    flags.DEFINE_float('measure_seconds', 5.0, 'How long the loader is measured.')
    flags.DEFINE_float('seconds', 120.0, 'After which a process that does not answer is named.')
    distributed.define_flags()
    config_lib.run(main)
