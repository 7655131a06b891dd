"""Which kills there are: when, whom and how, and what is done to a checkpoint between commands."""

import dataclasses
import json
import pathlib
import random
import signal
import time

from alm_jax.training import checkpoint
from tests.faults import campaign_config as small
from tests.faults.campaign_runs import PHASES, Command, signal_all, until

__all__ = ['PHASES', 'Damage', 'Kill', 'Plan', 'carry_out', 'damage', 'plan']
WEIGHTS = (2, 2, 2, 4, 2, 4, 4, 2, 2, 1)  # of PHASES, in their order
# Seconds into a phase, at most; those not here are so short that they are killed as soon as seen.
LENGTHS = {
    **{'start-up': 9.0, 'compile': 4.0, 'first batch': 1.5, 'step': 0.3, 'save': 0.03},
    **{'evaluation': 0.8, 'hand-off': 4.0, 'end': 0.5},
}
SAVES = ('save', 'manifest')
TERMINATED = 0.15  # share of SIGTERM
STANDS_STILL = 0.7  # seconds without a step after which a loop waits for data


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done to one command.

    Attributes:
      phase: one of PHASES.
      steps: that the command logs before, where the phase may come at any of them.
      seconds: after the phase has begun.
      signal: 'SIGKILL' or 'SIGTERM'.
      victim: 'all', 'worker', or 'process 0', 'process 1' alone.
    """

    phase: str
    steps: int
    seconds: float
    signal: str
    victim: str


@dataclasses.dataclass(frozen=True)
class Kill(Plan):
    """What was done: ``phase`` is the one that it was in, ``planned`` where it was to be."""

    planned: str


def plan(rng: random.Random, processes: int, logged: int) -> Plan:
    """Draws one.

    Args:
      rng: gives the same plans again.
      processes: of the command.
      logged: the last step that commands before have logged.
    """
    weights = dict(zip(PHASES, WEIGHTS))
    if logged >= small.BOUNDARY:
        weights['hand-off'] = 0
    phase = rng.choices(PHASES, [weights[name] for name in PHASES])[0]
    seconds, steps = rng.uniform(0, LENGTHS.get(phase, 0.0)), rng.randint(1, 6)
    victims, which = ('all', 'process', 'worker'), f'process {rng.randrange(processes)}'
    victim = rng.choices(victims, (5, 4, 1) if processes == 1 else (7, 3, 0))[0]
    how = 'SIGTERM' if rng.random() < TERMINATED else 'SIGKILL'
    if how == 'SIGTERM' or victim == 'process':  # who gets SIGTERM tells the others
        victim = which
    return Plan(phase, steps, seconds, how, victim)


def carry_out(plan: Plan, command: Command) -> Kill | None:
    """Waits for the moment and kills; None when the command has ended before."""
    for reached, every in ((_gone_far, 0.03), (_reached, 0.001 if plan.phase in SAVES else 0.02)):
        if not until(lambda r=reached: command.ended() or r(plan, command), every=every):
            return None
    time.sleep(plan.seconds)
    with command.frozen():
        if command.ended():
            return None
        phase, workers = command.phase(), command.workers()
        pids = {f'process {n}': [p.pid] for n, p in enumerate(command.processes)}
        pids |= {'all': command.pids(), 'worker': workers[:1]}
        victim = plan.victim if pids[plan.victim] else 'all'
        signal_all(pids[victim], signal.Signals[plan.signal])
    given = dataclasses.asdict(plan) | {'phase': phase, 'victim': victim}
    return Kill(**given, planned=plan.phase)


def _gone_far(plan: Plan, command: Command) -> bool:
    """Whether it has logged as many steps as it is to, where the phase may come at any step."""
    if plan.phase not in ('step', 'data wait', *SAVES):
        return True
    restored = command.restored()
    return restored is not None and command.logged() >= restored + plan.steps


def _reached(plan: Plan, command: Command) -> bool:
    """Whether the phase has begun; a wait for data is made to begin."""
    logged = command.logged()
    return {
        'start-up': lambda: True,
        'compile': lambda: command.restored() is not None,
        'first batch': lambda: 'compiled for ' in command.said(),
        'step': lambda: True,
        'data wait': lambda: _starve(command),
        'save': lambda: command.saving() == 'save',
        'manifest': lambda: command.saving() == 'manifest',
        'evaluation': lambda: logged in small.EVALUATED,
        'hand-off': lambda: logged == small.BOUNDARY,
        'end': lambda: logged == small.STEPS,
    }[plan.phase]()


def _starve(command: Command) -> bool:
    """Stops the loader's workers, until the loop stands still for want of a batch."""
    workers = command.workers()
    if not workers:
        return True  # batches are made in the process itself
    signal_all(workers, signal.SIGSTOP)
    logged, since = command.logged(), time.monotonic()
    while time.monotonic() < since + STANDS_STILL and not command.ended():
        time.sleep(0.05)
        if logged != command.logged():
            logged, since = command.logged(), time.monotonic()
    command.waits_for_data = True
    return True


@dataclasses.dataclass(frozen=True)
class Damage:
    """A checkpoint that was damaged on purpose, which file of it and how."""

    checkpoint: pathlib.Path
    file: str
    how: str
    manifest_time: int

    def still_there(self, path: pathlib.Path) -> bool:
        """Whether ``path`` is this checkpoint, and not one written since."""
        return path == self.checkpoint and _time(path) == self.manifest_time


def damage(rng: random.Random, workdir: pathlib.Path) -> Damage | None:
    """Truncates, removes or changes a bit of a file of the newest checkpoint.

    None where there is only one that is whole: nothing would be left to go on from.
    """
    found = [path.parent for path in (workdir / 'checkpoints').glob(f'*/{checkpoint.MANIFEST}')]
    whole = [folder for folder in found if checkpoint.damage(folder) is None]
    if len(whole) < 2:
        return None
    path = max(whole, key=lambda folder: int(folder.name))
    files = json.loads((path / checkpoint.MANIFEST).read_text())['files']
    name = rng.choice([*sorted(n for n, f in files.items() if f['bytes']), checkpoint.MANIFEST])
    how = rng.choice(('truncated', 'missing', 'bit flipped'))
    file = path / name
    if name == checkpoint.MANIFEST:
        how = 'truncated'
    content = bytearray(file.read_bytes())
    if how == 'truncated':
        file.write_bytes(content[: len(content) // 2])
    elif how == 'missing':
        file.unlink()
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    return Damage(path, name, how, _time(path))


def _time(path: pathlib.Path) -> int:
    return (path / checkpoint.MANIFEST).stat().st_mtime_ns
