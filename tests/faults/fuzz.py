"""Damages real files over and over, and has the program's readers read what is left.

  python -m tests.faults.fuzz --cases 10000 [--seed 0] [--kinds audio,tars]
  python -m tests.faults.fuzz --seed 0 --only 4711

Sound files, manifests (CSV, JSONL, Parquet), tar shards, safetensors, GGUF and configs are mutated,
as bytes and by the fields of their formats. Every case must end in a result that holds what it
promises, or in a named error, a ConfigError of one screen; any other exception, a crash, more
memory or more time than a bound is a failure. Cases run in processes of their own, hundreds each; a
case that ends its process is counted, and the next process goes on behind it. A case is a function
of (kinds, seed, number): ``--only`` runs one again, here, with its traceback. Prints the counts;
exit code 1 if anything failed.
"""

import argparse
import collections
import dataclasses
import faulthandler
import json
import pathlib
import random
import resource
import subprocess
import sys
import tempfile
import time

import tqdm

from tests.faults import fuzz_corpus

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = (sys.executable, '-m', 'tests.faults.fuzz')  # of a process that runs cases
SECONDS = 20.0  # of a case, on a machine that does much else; a sound one takes milliseconds
MEMORY = 256 << 20  # bytes that a case may take beside what its process has
ADDRESSES = 3 << 30  # bytes that all cases of a process may map or ask for beside it
CASES = 500  # of a process
LINES, LETTERS = 40, 10_000  # of a message


@dataclasses.dataclass
class Outcome:
    """How a case ended: ``what`` is 'clean', the error's name, or what went wrong."""

    number: int
    kind: str
    name: str
    what: str
    failed: bool = False
    seconds: float = 0.0
    memory: int = 0


def kind_of(number: int, kinds: list[str]) -> str:
    """Kinds take turns."""
    return kinds[number % len(kinds)]


# ---------------------------------------------------------------------------- one case


class Cases:
    """Runs cases in this process."""

    def __init__(self, kinds: list[str], seed: int):
        from tests.faults import fuzz_mutations, fuzz_targets  # which take a second

        self._kinds, self._seed = kinds, seed
        self._mutated, self._read = fuzz_mutations.mutated, fuzz_targets.read
        self._corpora = {kind: fuzz_corpus.corpus(kind) for kind in kinds}
        self._beside = {}
        if 'manifests' in kinds:
            clips = fuzz_corpus.clips()
            self._beside['manifests'] = {f'clips/{name}': clip for name, clip in clips.items()}
        if 'safetensors' in kinds:
            whole = self._corpora['safetensors']['model.safetensors']
            self._beside['safetensors'] = {'a.safetensors': whole}

    def input(self, number: int) -> tuple[str, str, bytes, random.Random]:
        """(kind, name of the file, its content, what draws further)."""
        kind = kind_of(number, self._kinds)
        rng = random.Random(f'{self._seed} {kind} {number}')
        corpus = self._corpora[kind]
        name = rng.choice(sorted(corpus))
        content = corpus[name]
        if rng.random() > 0.02:  # a few whole files: what is tested does read them
            content = self._mutated(rng, name, content, [corpus[n] for n in sorted(corpus)])
        return kind, name, content, rng

    def run(self, number: int) -> Outcome:
        """A case, whatever it raises."""
        kind, name, content, rng = self.input(number)
        outcome = Outcome(number, kind, name, 'clean')
        before, began = _settled_memory(), time.perf_counter()
        try:
            self.read(kind, name, content, rng)
        except Exception as error:
            outcome.what, outcome.failed = _judged(error)
        outcome.seconds = time.perf_counter() - began
        outcome.memory = max(0, _memory('VmHWM') - before)
        if outcome.memory > MEMORY:
            outcome.what = f'took {outcome.memory >> 20} MiB'
            outcome.failed = True
        return outcome

    def read(self, kind: str, name: str, content: bytes, rng: random.Random) -> None:
        """Reads the content of a file as the program does."""
        with tempfile.TemporaryDirectory(prefix='fuzz-') as folder:
            path = pathlib.Path(folder, name)
            path.write_bytes(content)
            self._read(kind, rng, path, self._beside.get(kind, {}))


def _judged(error: Exception) -> tuple[str, bool]:
    """(what to call an exception, whether it is a failure)."""
    from alm_jax.config import ConfigError

    if not isinstance(error, ConfigError):
        return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}', True
    message = str(error)
    if not message or message.count('\n') >= LINES or len(message) > LETTERS:
        return f'a message of {len(message)} letters: {message[:100]!r}', True
    names = [kind.__name__ for kind in type(error).__mro__]
    return next(name for name in names if not name.startswith('_')), False


def _memory(field: str) -> int:
    """Bytes that /proc says of this process."""
    status = pathlib.Path('/proc/self/status').read_text()
    return int(status.partition(f'{field}:')[2].split()[0]) << 10


def _settled_memory() -> int:
    """Resident bytes, from which on the peak is counted anew."""
    pathlib.Path('/proc/self/clear_refs').write_text('5')
    return _memory('VmRSS')


# ---------------------------------------------------------------------------- many cases


def worker(kinds: list[str], seed: int, begin: int, end: int) -> None:
    """The life of a process: tells of each case when it begins and when it has ended."""
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    cases = Cases(kinds, seed)
    limit = _memory('VmSize') + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(begin, end):
        print(number, flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)  # whatever code holds it up
        outcome = cases.run(number)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(dataclasses.asdict(outcome)), flush=True)


def campaign(kinds: list[str], seed: int, cases: int, bar: bool = True) -> list[Outcome]:
    """Runs cases 0 to ``cases`` in one process after another."""
    outcomes: list[Outcome] = []
    with tqdm.tqdm(total=cases, unit='case', disable=None if bar else True) as progress:
        while len(outcomes) < cases:
            end = min(cases, len(outcomes) + CASES)
            for outcome in _of_process(kinds, seed, len(outcomes), end):
                outcomes.append(outcome)
                progress.update()
    return outcomes


def _of_process(kinds: list[str], seed: int, begin: int, end: int) -> list[Outcome]:
    """The outcomes of one process, the last of which may have ended it."""
    options = ['--kinds', ','.join(kinds), '--seed', str(seed), '--run', str(begin), str(end)]
    done = subprocess.run(
        [*PROGRAM, *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors='replace',
    )
    lines = done.stdout.splitlines()
    outcomes = [Outcome(**json.loads(line)) for line in lines if line.startswith('{')]
    if not lines:
        raise RuntimeError(f'no case could be run:\n{done.stderr}')
    if len(outcomes) < end - begin:  # the process ended with a case
        number = int(lines[-1])
        last = ' '.join(done.stderr.split()[-60:])
        how = f'ended its process with {done.returncode}: {last}'
        outcomes.append(Outcome(number, kind_of(number, kinds), '?', how, failed=True))
    return outcomes


def report(outcomes: list[Outcome], options: str, seconds: float) -> str:
    """The counts by kind, and how to run again what failed."""
    lines = [f'{"kind":12} {"cases":>6} {"clean":>6} {"named errors":>13} {"failures":>9}']
    total = collections.Counter()
    for kind in fuzz_corpus.KINDS:
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        if own:
            counts = collections.Counter(_column(outcome) for outcome in own)
            total += counts
            lines.append(_row(kind, len(own), counts))
    lines.append(_row('all', len(outcomes), total))
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.memory)
    lines.append(
        f'slowest case {slowest.seconds:.2f} s ({slowest.number}, {slowest.name}); most memory '
        f'{largest.memory / 2**20:.0f} MiB ({largest.number}, {largest.name}); {seconds:.0f} s'
    )
    named = collections.Counter(o.what for o in outcomes if _column(o) == 'named')
    lines.append('named errors: ' + ', '.join(f'{n} {name}' for name, n in named.most_common()))
    for outcome in outcomes:
        if outcome.failed:
            lines.append(f'FAILED {outcome.kind}, {outcome.name}: {outcome.what}')
            lines.append(f'  python -m tests.faults.fuzz {options} --only {outcome.number}')
    return '\n'.join(lines)


def _column(outcome: Outcome) -> str:
    return 'failed' if outcome.failed else 'clean' if outcome.what == 'clean' else 'named'


def _row(name: str, cases: int, counts: collections.Counter) -> str:
    clean, named, failed = counts['clean'], counts['named'], counts['failed']
    return f'{name:12} {cases:6} {clean:6} {named:13} {failed:9}'


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', type=int, default=10_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', default=','.join(fuzz_corpus.KINDS))
    parser.add_argument('--only', type=int, help='one case, in this process')
    parser.add_argument('--run', type=int, nargs=2, help='used by the program itself')
    options = parser.parse_args()
    kinds = options.kinds.split(',')
    if unknown := set(kinds) - set(fuzz_corpus.KINDS):
        parser.error(f'kinds {sorted(unknown)} are not among {", ".join(fuzz_corpus.KINDS)}')
    if options.run:
        worker(kinds, options.seed, *options.run)
        return 0
    if options.only is not None:
        cases = Cases(kinds, options.seed)
        kind, name, content, rng = cases.input(options.only)
        print(f'case {options.only}: {kind}, {name}, {len(content)} bytes', flush=True)
        cases.read(kind, name, content, rng)
        print('clean')
        return 0
    began = time.perf_counter()
    outcomes = campaign(kinds, options.seed, options.cases)
    given = f'--seed {options.seed} --kinds {",".join(kinds)}'
    print(report(outcomes, given, time.perf_counter() - began))
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == '__main__':
    sys.exit(main())
