"""Trains for thousands of tiny steps and looks whether anything grows.

  python -m tests.faults.soak --steps 5000 [--folder DIR]

The run is ``python -m alm_jax.train`` with its data workers, checkpoints and evaluations, see
``soak_config``. While it goes, the memory, open files, threads and processes of all that it started
are read from /proc. The second quarter of the steps is compared with the last: the first is left
out, in which buffers are filled and evaluations compiled. Exit code 1 if anything grew.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import tokenizers

CONFIG = pathlib.Path(__file__).parent / 'soak_config.py'
_PAGE, _TICKS = os.sysconf('SC_PAGE_SIZE'), os.sysconf('SC_CLK_TCK')
WINDOWS = 10  # rows of the table
MOST_MEMORY = 1.03  # last quarter to second, of the proportional set size
POOLS = 4  # threads more may be there: those of pools start when there is work for them
MOST_CPU = 1.1  # the same, of processor seconds a step; other programs do not slow these down
MOST_WALL = 1.3  # the same, of seconds a step, in which they do


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a run and all processes that it started have at a time.

    Attributes:
      step: the last that was logged.
      pss, rss: bytes; of the first, shared pages are split among those that share them.
      files, threads, processes: how many.
      cpu_seconds: used so far, by ended processes too.
    """

    step: int
    pss: int
    rss: int
    files: int
    threads: int
    processes: int
    cpu_seconds: float


def run(
    folder: pathlib.Path, steps: int, seconds: float, meanwhile=None
) -> tuple[int, list[Sample]]:
    """The exit code of a soak of ``steps`` in ``folder``, sampled every so many ``seconds``.

    Args:
      folder: gets the workdir 'run' and the output 'output.txt'.
      steps: of training.
      seconds: between samples.
      meanwhile: called with each sample and the process.
    """
    save_tokenizer(folder / 'tokenizer')
    tokenizer = f'--config.text.tokenizer={folder / "tokenizer"}'
    arguments = ('--config', f'{CONFIG}:{steps}', tokenizer, '--workdir', folder / 'run')
    samples = []
    with (folder / 'output.txt').open('w') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', 'alm_jax.train', *map(str, arguments)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                if step := last_step(folder / 'run'):
                    samples.append(sample(process.pid, step))
                    if meanwhile is not None:
                        meanwhile(samples[-1], process)
                time.sleep(seconds)
        finally:
            process.kill()
            process.wait()
    return process.returncode, samples


def save_tokenizer(folder: pathlib.Path) -> None:
    """One that spells: with its few rows of embeddings, steps and checkpoints are small."""
    letters = string.ascii_lowercase + string.digits
    pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *letters, *(f'##{letter}' for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token='[UNK]'))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))


def last_step(workdir: pathlib.Path) -> int:
    """That of the last whole line of metrics; 0 is none."""
    try:
        with (workdir / 'metrics.jsonl').open('rb') as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 4096, 0))
            lines = file.read().split(b'\n')
    except FileNotFoundError:
        return 0
    return json.loads(lines[-2])['step'] if len(lines) > 1 else 0


def sample(pid: int, step: int) -> Sample:
    """Of process ``pid`` and its descendants now; one that ends meanwhile is left out."""
    found = []
    for each in family(pid):
        try:
            found.append(_of_process(pathlib.Path(f'/proc/{each}')))
        except (FileNotFoundError, ProcessLookupError):
            continue
    pss, rss, files, threads, cpu_seconds = map(sum, zip(*found)) if found else [0] * 5
    return Sample(step, pss, rss, files, threads, len(found), cpu_seconds)


def family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for task in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):
        try:
            children = task.read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield from family(int(child))


def _of_process(path: pathlib.Path) -> tuple[int, int, int, int, float]:
    lines = (path / 'smaps_rollup').read_text().splitlines()[1:]
    memory = {
        key: int(value.split()[0]) for key, _, value in (line.partition(':') for line in lines)
    }
    stat = (path / 'stat').read_text().rpartition(')')[2].split()
    used = sum(map(int, stat[11:15])) / _TICKS  # of itself and of children that have ended
    files = len(os.listdir(path / 'fd'))
    return 1024 * memory['Pss'], 1024 * memory['Rss'], files, int(stat[17]), used


@dataclasses.dataclass(frozen=True)
class Window:
    """Medians over the samples of steps ``first`` to ``last``, and seconds a step."""

    first: int
    last: int
    pss: float
    rss: float
    files: float
    threads: float
    processes: float
    cpu: float
    wall: float


def window(samples: Sequence[Sample], lines: Sequence[dict], first: float, last: float) -> Window:
    """Of the samples and metrics with ``first`` < step <= ``last``."""
    own = [each for each in samples if first < each.step <= last]
    names = ('pss', 'rss', 'files', 'threads', 'processes')
    medians = [statistics.median(getattr(each, name) for each in own) for name in names]
    steps = own[-1].step - own[0].step
    cpu = (own[-1].cpu_seconds - own[0].cpu_seconds) / max(steps, 1)
    walls = [line['train/step_seconds'] for line in lines if first < line['step'] <= last]
    return Window(round(first) + 1, round(last), *medians, cpu, statistics.median(walls))


def quarters(samples: Sequence[Sample], lines: Sequence[dict], steps: int) -> list[Window]:
    """The second and the last of a soak of ``steps``, without its end, where all is closed."""
    return [
        window(samples, lines, steps / 4, steps / 2),
        window(samples, lines, 3 * steps / 4, steps - 1),
    ]


def growth(before: Window, after: Window, *, timed: bool = True) -> list[str]:
    """What grew from one window to the other, in words; nothing is well."""
    limits = {
        'pss': MOST_MEMORY * before.pss,
        'files': before.files,
        'threads': before.threads + POOLS,
        'processes': before.processes,
    }
    if timed:
        limits |= {'cpu': MOST_CPU * before.cpu, 'wall': MOST_WALL * before.wall}
    return [
        f'{name} grew from {getattr(before, name):.6g} to {getattr(after, name):.6g}, '
        f'more than to {most:.6g}'
        for name, most in limits.items()
        if getattr(after, name) > most
    ]


def slope(samples: Sequence[Sample], first: float) -> float:
    """Bytes of memory a step, by least squares over the samples after ``first``."""
    own = [each for each in samples if each.step > first]
    return statistics.linear_regression([s.step for s in own], [s.pss for s in own]).slope


def metrics(workdir: pathlib.Path) -> list[dict]:
    """The lines of training."""
    lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [line for line in lines if 'train/step_seconds' in line]


def table(windows: Sequence[Window]) -> str:
    """A row a window."""
    rows = ['      steps   PSS MB   RSS MB   files  threads  processes   cpu s/step  wall s/step']
    for w in windows:
        rows.append(
            f'{w.first:>5}-{w.last:<5} {w.pss / 1e6:8.1f} {w.rss / 1e6:8.1f} {w.files:7.0f}'
            f' {w.threads:8.0f} {w.processes:10.0f} {w.cpu:12.4f} {w.wall:12.4f}'
        )
    return '\n'.join(rows)


def main() -> int:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--steps', type=int, default=5000)
    parser.add_argument('--folder', type=pathlib.Path, help='of the run; default a temporary one')
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        code, samples = run(folder, given.steps, max(0.1, given.steps / 5000))
        if code:
            print((folder / 'output.txt').read_text()[-2000:], file=sys.stderr)
            return code
        lines, steps = metrics(folder / 'run'), given.steps
    edges = [(steps - 1) * i / WINDOWS for i in range(WINDOWS + 1)]
    print(table([window(samples, lines, *edge) for edge in itertools.pairwise(edges)]))
    second, last = quarters(samples, lines, steps)
    print(f'quarters 2 and 4:\n{table([second, last])}')
    memory = slope([each for each in samples if each.step < steps], steps / 4)
    print(f'memory: {memory:+.0f} bytes a step after the first quarter')
    grown = growth(second, last)
    print(*grown, f'soak of {steps} steps: {"NOT FLAT" if grown else "flat"}', sep='\n')
    return int(bool(grown))


if __name__ == '__main__':
    sys.exit(main())
