"""Kills real training runs at random times, over and over, and compares them with undisturbed ones.

  python -m tests.faults.campaign --kills 100 [--processes 1 2] [--seed 0] [--folder DIR]

A run is ``python -m alm_jax.train`` on packaged recordings, see ``campaign_config``, alone or as
two processes. Its command is killed in a random phase, and given again, some times; now and then
the newest checkpoint is damaged in between. When the run is through, every number that it logged,
its parameters and its optimizer must be, to the last bit, those of a run that nothing disturbed.
After every kill the newest checkpoint must be whole, no process be left, and the next command go on
from the newest whole checkpoint. Exit code 1 if anything was otherwise; the workdirs are kept then.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time

os.environ['JAX_PLATFORMS'] = 'cpu'  # the campaign itself only reads checkpoints

import tqdm

from alm_jax.data import location, sources
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.training import checkpoint
from tests.faults import campaign_config as small
from tests.faults import campaign_kills as kills
from tests.faults.campaign_compare import differences
from tests.faults.campaign_runs import Command, last_step, newest, newest_whole

CONFIG = pathlib.Path(small.__file__)
# name of a reference -> (argument of the config, processes, more arguments)
REFERENCES = {
    'scenes': ('scenes', 1, ()),
    'packs': ('packs', 1, ('--config.text.tokenizer=tokenizer',)),
    'scenes_of_two': ('scenes', 2, ('--config.mesh.data=1', '--config.mesh.fsdp=2')),
}
# What runs are of, in turn: a reference, and loader processes, which change no number.
RUNS = {
    1: (('scenes', 1), ('packs', 1), ('scenes', 0), ('packs', 0)),
    2: (('scenes_of_two', 0),),
}
KILLS_OF_A_RUN = (6, 11)
MOST_FAILURES = 3  # runs
DAMAGED = 0.2  # probability that a checkpoint is damaged after a kill


@dataclasses.dataclass
class Counts:
    """What came of the kills so far."""

    runs: int = 0
    resumes: int = 0  # commands that went on from a checkpoint
    identical: int = 0
    lost: int = 0  # most steps that were logged before a kill and taken again
    corrupted: int = 0  # kills after which the newest checkpoint was not whole
    orphans: int = 0  # processes that outlived a kill
    damaged: int = 0  # checkpoints damaged on purpose, with a command after that
    fallbacks: int = 0  # of them, those that were named and passed over
    terminated: int = 0  # ends by SIGTERM that saved every step
    phases: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.phases.values())

    def __str__(self) -> str:
        phases = ', '.join(f'{name} {self.phases[name]}' for name in kills.PHASES)
        return (
            f'kills by phase: {phases}\n'
            f'fall-backs {self.fallbacks} of {self.damaged} damaged checkpoints, '
            f'ends by SIGTERM without a lost step {self.terminated}, orphans {self.orphans}\n'
            f'runs {self.runs}, kills {self.kills}, resumes {self.resumes}, '
            f'bit-identical {self.identical}, lost steps max {self.lost}, '
            f'corrupted {self.corrupted}'
        )


class Run:
    """One workdir, from its first command to its end."""

    def __init__(self, folder: pathlib.Path, number: int, kind: tuple, counts: Counts, seed: int):
        """
        Args:
          folder: of the campaign.
          number: of the run.
          kind: an element of RUNS.
          counts: of the campaign, to which this adds.
          seed: of the campaign.
        """
        reference, workers = kind
        self._reference, self.workdir = folder / reference, folder / f'run_{number}'
        argument, self._processes, more = REFERENCES[reference]
        self._arguments = arguments(folder, argument, (*more, f'--config.data.workers={workers}'))
        self._counts, self._random = counts, random.Random(f'{seed} {number}')
        self._log = (folder / 'kills.jsonl').open('a')
        self._number, self._commands = number, 0
        self._logged = 0  # steps, by the commands before
        self._damage: kills.Damage | None = None  # what no command has come across yet
        self._damaged: list[kills.Damage] = []

    def go(self, most: int, bar: tqdm.tqdm) -> None:
        """Kills it up to ``most`` times, then lets it come to its end and compares it."""
        left = min(most, self._random.randint(*KILLS_OF_A_RUN))
        while not self._command(left > 0, bar):
            left -= 1
        self._counts.runs += 1
        differ = differences(self._reference, self.workdir)
        self._counts.identical += not differ
        for difference in differ:
            self._problem(difference)
        if not differ:
            shutil.rmtree(self.workdir / 'checkpoints')  # the rest is small
        self._log.close()

    def _command(self, to_kill: bool, bar: tqdm.tqdm) -> bool:
        """Gives the command once; whether the run is at its end."""
        counts, whole = self._counts, newest_whole(self.workdir)
        plan = kills.plan(self._random, self._processes, self._logged) if to_kill else None
        command = Command(self.workdir, self._arguments, self._processes, self._commands)
        self._commands += 1
        kill = kills.carry_out(plan, command) if plan else None
        ended = command.wait()
        orphans = command.sweep()
        if not ended:
            self._problem(f'it did not end\n{command.tail()}')
        self._resumed(command, whole)
        self._logged = last_step(self.workdir)
        codes = [process.returncode for process in command.processes]
        if kill is None:
            if any(codes):
                raise Failed(self._problem(f'exit codes {codes}\n{command.tail()}'))
            return True
        counts.phases[kill.phase] += 1
        counts.orphans += orphans
        if orphans:
            self._problem(f'{orphans} processes outlived {kill}')
        self._check_kill(kill, command, codes)
        described = {'run': self._number, 'workdir': self.workdir.name, 'codes': codes}
        described['restored'] = command.restored()
        described |= dataclasses.asdict(kill) | {'logged': self._logged, 'orphans': orphans}
        if self._damage is None and self._random.random() < DAMAGED:
            self._damage = kills.damage(self._random, self.workdir)
            if self._damage:
                self._damaged.append(self._damage)
                described['damage'] = f'{self._damage.how} {self._damage.file}'
        self._log.write(json.dumps(described) + '\n')
        self._log.flush()
        bar.set_postfix_str(f'run {self._number} of {self._reference.name}, last in {kill.phase}')
        bar.update()
        return False

    def _resumed(self, command: Command, whole: int) -> None:
        """Checks what the command went on from, if it came so far."""
        restored = command.restored()
        if restored is None:
            return
        counts = self._counts
        counts.resumes += restored > 0
        if restored != whole:
            self._problem(f'it went on from step {restored}, not from {whole}\n{command.tail()}')
        lost = max(self._logged - restored, 0)
        most = 2 * small.EVERY  # a save may take until the next is due
        if self._damage:
            most += small.EVERY
            counts.damaged += 1
            said = command.said()
            if str(self._damage.checkpoint) in said and self._damage.file in said:
                counts.fallbacks += 1
            else:
                self._problem(f'{self._damage} is not told\n{command.tail()}')
            self._damage = None
        counts.lost = max(counts.lost, lost)
        if lost > most:
            self._problem(f'{lost} steps were lost, more than {most}')

    def _check_kill(self, kill: kills.Kill, command: Command, codes: list[int]) -> None:
        found = newest(self.workdir)
        if found and not any(damage.still_there(found) for damage in self._damaged):
            reason = checkpoint.damage(found)
            self._counts.corrupted += reason is not None
            if reason:
                self._problem(f'after {kill}, {found}: {reason}')
        if kill.signal == 'SIGTERM':
            fine = {0, 143, -signal.SIGTERM}
            if not {*codes} <= fine:
                self._problem(f'after {kill}, exit codes {codes}\n{command.tail()}')
            saved = 143 in codes and command.logged() > 0
            self._counts.terminated += saved
            if saved and newest_whole(self.workdir) < command.logged():
                self._problem(f'{kill} did not save\n{command.tail()}')

    def _problem(self, text: str) -> str:
        text = f'run {self._number} ({self.workdir}): {text}'
        self._counts.problems.append(text)
        tqdm.tqdm.write(f'PROBLEM: {text}', file=sys.stderr)
        return text


class Failed(Exception):
    """A run cannot be brought to its end."""


def arguments(folder: pathlib.Path, argument: str, more: tuple) -> tuple:
    """Of the training program."""
    more = [text.replace('=tokenizer', f'={folder / "tokenizer"}') for text in more]
    return ('--config', f'{CONFIG}:{argument}', *more)


def make_reference(folder: pathlib.Path, name: str) -> None:
    """A run that nothing disturbs."""
    argument, processes, more = REFERENCES[name]
    if name == 'packs':
        source = sources.open_source('packaged_sounds/tiny:train', location.data_dir())
        captions = [text for i in range(0, len(source), 20) for text in source[i]['captions']]
        LanguageTokenizer.train(captions).save(folder / 'tokenizer')
    command = Command(folder / name, arguments(folder, argument, more), processes, 0)
    command.wait()
    command.sweep()
    if any(process.returncode for process in command.processes):
        raise Failed(f'the run that nothing disturbs failed:\n{command.tail()}')


def campaign(folder: pathlib.Path, total: int, processes: list[int], seed: int) -> Counts:
    """Runs until there were ``total`` kills; a quarter of them of two processes, if both are asked.

    Returns what was found. A run that cannot be brought to its end is a problem, not an exception.
    """
    counts, number = Counts(), 0
    shares = {1: 0.75, 2: 0.25} if len(processes) == 2 else {processes[0]: 1.0}
    made = set()
    with tqdm.tqdm(total=total, unit='kill', dynamic_ncols=True) as bar:
        for count, share in shares.items():
            end = min(total, counts.kills + round(share * total))
            for kind in _in_turn(RUNS[count]):
                if counts.kills >= end:
                    break
                if kind[0] not in made:
                    made.add(kind[0])
                    bar.set_postfix_str(f'the undisturbed run of {kind[0]}')
                    make_reference(folder, kind[0])
                try:
                    Run(folder, number, kind, counts, seed).go(end - counts.kills, bar)
                except Failed:  # it has told why
                    counts.runs += 1
                    if counts.runs - counts.identical > MOST_FAILURES:
                        return counts
                number += 1
    return counts


def _in_turn(kinds: tuple):
    while True:
        yield from kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2], choices=(1, 2))
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--folder', help='for the workdirs; kept. Default: a temporary one.')
    options = parser.parse_args()
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix='campaign_')).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    counts = campaign(folder, options.kills, sorted({*options.processes}), options.seed)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes, cpu = (time.monotonic() - began) / 60, used.ru_utime + used.ru_stime
    print(f'{minutes:.1f} minutes, {cpu / max(counts.kills, 1):.1f} s of CPU a kill')
    print(counts)
    if counts.problems:
        print(f'{len(counts.problems)} PROBLEMS, see {folder}')
        print('\n'.join(counts.problems))
        return 1
    if not options.folder:
        shutil.rmtree(folder)
    return 0


if __name__ == '__main__':
    sys.exit(main())
