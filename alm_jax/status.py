"""Says how runs stand, from the files in their workdirs alone.

python -m alm_jax.status runs/tiny runs/mine [--json]

A row a run: what it is doing, steps, rate, the newest complete checkpoint, what was skipped,
goodput and the time that is left at this rate, checkpoints and evaluations included. Below the
table is what to look at: a process that is stuck, stopped, silent or gone, in which phase and since
when. Ask while runs go on, from any host that sees the folder: it imports no jax and writes
nothing.
"""

import dataclasses
import json
import os
import pathlib
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.training import lock, phase_file

# A process that has not written its phase for so long is no longer able to; seconds.
SILENT = 12 * phase_file.SECONDS
# A step, or waiting for data, that takes longer than this and than so many steps is stuck.
_STEP_SECONDS, _STEPS = 60.0, 20
_WATCHDOG_SECONDS = 1800.0  # of another phase, where config.watchdog_seconds is 0
_TAIL_BYTES = 2**20  # of metrics.jsonl, whose last lines are needed
COLUMNS = ('run', 'state', 'step', 'rate', 'checkpoint', 'skipped', 'goodput', 'left')


@dataclasses.dataclass
class Status:
    """How a run stands; what is not known is None.

    Attributes:
      workdir: of the run.
      state: 'starting', 'running', 'stuck', 'stopped' (by a signal), 'silent', 'killed', 'left off'
        (it ended by itself before its last step), 'finished', or 'unknown'.
      step, steps: taken, and in all.
      step_seconds, clips_per_s: at the last line of metrics.
      checkpoint, checkpoint_age: the newest complete one's step, and seconds since.
      skipped_updates, skipped_records, rollbacks, bad_numbers: counts over the run.
      goodput: 0 to 1, see ``training.goodput``.
      seconds_left: until the last step.
      notes: lines on what to look at.
    """

    workdir: str
    state: str = 'unknown'
    step: int = 0
    steps: int | None = None
    step_seconds: float | None = None
    clips_per_s: float | None = None
    checkpoint: int | None = None
    checkpoint_age: float | None = None
    skipped_updates: int = 0
    skipped_records: int = 0
    rollbacks: int = 0
    bad_numbers: int = 0
    goodput: float | None = None
    seconds_left: float | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


def read(workdir: str | os.PathLike, now: float | None = None) -> Status:
    """How the run in ``workdir`` stands.

    Args:
      workdir: of the run.
      now: seconds of time.time(); None is the present.

    Raises:
      ConfigError: it is no folder of a run.
    """
    path, now = pathlib.Path(workdir), time.time() if now is None else now
    phases = phase_file.read_all(path)
    if not phases and not (path / 'config.json').is_file():
        why = 'has neither config.json nor phase.json' if path.is_dir() else 'does not exist'
        raise ConfigError(f'{path} is no run: it {why}. Give the --workdir of a training.')
    config, usage = _json(path / 'config.json'), _json(path / 'goodput.json')
    metrics = _last_metrics(path / 'metrics.jsonl')
    found = Status(str(workdir), steps=config.get('steps'), goodput=usage.get('goodput'))
    found.step_seconds = metrics.get('train/step_seconds')
    found.clips_per_s = metrics.get('train/clips_per_s')
    found.skipped_updates = int(metrics.get('train/skipped') or 0)
    found.skipped_records = sum(map(_lines, path.glob('quarantine*.jsonl')))
    found.rollbacks = _lines(path / 'rollbacks.jsonl')
    found.bad_numbers = _lines(path / 'bad_numbers.jsonl')
    manifests = {
        int(file.parent.name): file
        for file in path.glob('checkpoints/*/manifest.json')
        if file.parent.name.isdigit()
    }
    if manifests:
        found.checkpoint = max(manifests)
        found.checkpoint_age = now - manifests[found.checkpoint].stat().st_mtime
    found.state, found.notes = _state(phases, lock.holder(path), config, found, now)
    found.step = metrics.get('step', found.checkpoint or 0)
    if phases and found.state in ('running', 'stuck', 'stopped', 'silent'):
        found.step = phases[0]['step']
    found.seconds_left = _seconds_left(found, usage)
    return found


def _state(
    phases: Sequence[Mapping], holder: Mapping | None, config: Mapping, found: Status, now: float
) -> tuple[str, list[str]]:
    """The state of a run and what to look at: that of its process that is worst off."""
    finished = found.steps is not None and found.checkpoint == found.steps
    if holder and (not phases or any(holder.get(k) != phases[0][k] for k in ('host', 'pid'))):
        who = f'process {holder.get("pid")} on {holder.get("host")}'
        return 'starting', [f'{who} has it since {holder.get("began")}.']
    if not phases:
        return ('finished' if finished else 'unknown'), []
    states = [_state_of_process(each, holder, config, found.step_seconds, now) for each in phases]
    order = ('killed', 'stopped', 'silent', 'stuck', 'starting', 'running', 'ended')
    worst = min(states, key=order.index)
    if worst == 'ended':
        return ('finished' if finished else 'left off'), []
    unwell = order[:4]
    notes = [
        f'process {each["process"]} of {phases[0]["processes"]}, pid {each["pid"]} on '
        f'{each["host"]}, {_verb(state, each, now)} in the phase {each["phase"]!r}, which began '
        f'{duration(now - each["since"])} ago.'
        for each, state in zip(phases, states)
        if state in unwell
    ]
    return worst, notes


def _verb(state: str, phase: Mapping, now: float) -> str:
    silent = f'has been silent for {duration(now - phase["written"])}: it hangs or is gone,'
    return {'killed': 'was killed', 'stopped': 'is stopped by a signal', 'silent': silent}.get(
        state, 'is stuck'
    )


def _state_of_process(
    phase: Mapping, holder: Mapping | None, config: Mapping, step_seconds: float | None, now: float
) -> str:
    if phase['phase'] == phase_file.ENDED:
        return 'ended'
    if phase['host'] == socket.gethostname():
        if fate := _fate(phase['pid']):
            return fate
    elif holder is None and not phase['process']:  # the lock is that of process 0
        return 'killed'
    if now - phase['written'] > SILENT:
        return 'silent'
    limit = config.get('watchdog_seconds') or _WATCHDOG_SECONDS
    if phase['phase'] in ('step', 'data wait'):
        limit = min(limit, max(_STEP_SECONDS, _STEPS * (step_seconds or limit)))
    if now - phase['since'] > limit:
        return 'stuck'
    return 'starting' if phase['phase'] == 'start' else 'running'


def _fate(pid: int) -> str:
    """Of a process on this host: 'killed', 'stopped' or '' when it can go on."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 'killed'
    except PermissionError:  # another user's
        return ''
    try:
        stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:  # another system than Linux, or just gone
        return ''
    return {'Z': 'killed', 'T': 'stopped', 't': 'stopped'}.get(
        stat.rpartition(')')[2].split()[0], ''
    )


def _seconds_left(found: Status, usage: Mapping) -> float | None:
    if None in (found.steps, found.step_seconds):
        return None
    seconds, steps = usage.get('seconds', {}), max(usage.get('steps', 0), 1)
    beside = sum(seconds.get(name, 0.0) for name in ('checkpoint', 'evaluation')) / steps
    return max(found.steps - found.step, 0) * (found.step_seconds + beside)


def _json(path: pathlib.Path) -> dict[str, Any]:
    """{} when it is not there; a file that is being replaced is always whole."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f'{path} is not JSON ({error}).') from error


def _last_metrics(path: pathlib.Path) -> dict[str, Any]:
    """The last whole line of training, not of an evaluation, and its step."""
    try:
        with path.open('rb') as file:
            file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            if 'train/loss' in (values := json.loads(line)):
                return values
        except ValueError:  # cut short: it is being written, or the process was killed
            continue
    return {}


def _lines(path: pathlib.Path) -> int:
    try:
        with path.open('rb') as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0


def duration(seconds: float) -> str:
    """'41 s', '12 min', '3.5 h', '2.1 days'."""
    for unit, size, digits in (('days', 86400, 1), ('h', 3600, 1), ('min', 60, 0)):
        if seconds >= 2 * size:
            return f'{seconds / size:.{digits}f} {unit}'
    return f'{max(seconds, 0):.0f} s'


def table(found: Sequence[Status]) -> str:
    """A row for each run, and the notes below."""
    lines = [COLUMNS, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = ['  '.join(t.ljust(w) for t, w in zip(line, widths)).rstrip() for line in lines]
    return '\n'.join(rows + [f'{each.workdir}: {note}' for each in found for note in each.notes])


def _row(found: Status) -> tuple[str, ...]:
    checkpoint = rate = left = goodput = '-'
    if found.checkpoint is not None:
        checkpoint = f'{found.checkpoint}, {duration(found.checkpoint_age)} ago'
    if found.step_seconds is not None:
        rate = f'{found.step_seconds:.3g} s/step, {found.clips_per_s:.0f} clips/s'
    if found.goodput is not None:
        goodput = f'{found.goodput:.0%}'
    if found.seconds_left:
        left = duration(found.seconds_left)
    counts = [(found.skipped_updates, 'updates'), (found.skipped_records, 'records')]
    more = [(found.bad_numbers, 'bad numbers'), (found.rollbacks, 'rollbacks')]
    skipped = ', '.join(f'{n} {what}' for n, what in counts + [each for each in more if each[0]])
    step = f'{found.step} / {"?" if found.steps is None else found.steps}'
    return (found.workdir, found.state, step, rate, checkpoint, skipped, goodput, left)


def main(argv: list[str]) -> int:
    """See the head of this file. The code is 2 when a path is no run; the others are told of."""
    if not argv[1:]:
        raise ConfigError('give the workdirs of runs: python -m alm_jax.status runs/tiny.')
    found, wrong = [], []
    for workdir in argv[1:]:
        try:
            found.append(read(workdir))
        except ConfigError as error:
            wrong.append(f'error: {error}')
    if flags.FLAGS.json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=1))
    elif found:
        print(table(found))
    for line in wrong:
        print(line, file=sys.stderr)
    return 2 if wrong else 0


if __name__ == '__main__':
    flags.DEFINE_bool('json', False, 'Print JSON: a list with an object a run.')
    config_lib.run(main)
