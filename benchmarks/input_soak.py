"""Many batches through the loader: memory, open files and threads at the start and at the end.

COMMAND: python benchmarks/input_soak.py [--batches 100000]
Batches of 4 rows of 0.25 or 0.5 s of real recordings (those of packaged_sounds/tiny at 16 kHz, so
that it is batches that count), made by two worker processes. Prints resident memory, open file
descriptors and threads of this process and of its workers, what lies in shared memory, and batches
a second; the last lines compare the end with the first eighth, when all is warm.
"""

import argparse
import itertools
import os
import time

import psutil
import tqdm

from alm_jax import config as config_lib
from alm_jax.data import dry_run, loader

ROWS, RATE, SECONDS = 4, 16_000, 0.5


def measured() -> dict[str, float]:
    """What must not grow: MiB, descriptors and threads, of this process and its workers."""
    own = psutil.Process()
    workers = own.children(recursive=True)
    shared = sum(os.path.getsize(f'/dev/shm/{name}') for name in os.listdir('/dev/shm'))
    return {
        'MiB here': own.memory_info().rss / 2**20,
        'files here': own.num_fds(),
        'threads here': own.num_threads(),
        'MiB workers': sum(w.memory_info().rss for w in workers) / 2**20,
        'files workers': sum(w.num_fds() for w in workers),
        'processes': len(workers),
        '/dev/shm MiB': shared / 2**20,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batches', type=int, default=100_000)
    count = parser.parse_args().batches
    config = config_lib.base()
    config.batch_size = ROWS
    config.text.lengths = (64,)
    config.data.train = ({'name': 'packaged_sounds/tiny:train', 'where': {'rate': [RATE]}},)
    config.data.buckets = (SECONDS / 2, SECONDS)
    batches = loader.batches(
        config,
        sampling_rate=RATE,
        window_samples=round(SECONDS * RATE),
        tokenizer=dry_run.Words(),
    )
    marks, start = [], time.perf_counter()
    eighths = {count * i // 8 for i in range(1, 9)}
    for number in tqdm.trange(1, count + 1, unit='batch', mininterval=15):
        batch = next(batches)
        if number in eighths:
            del batch  # what is handed out is not the loader's
            marks.append(measured())
            rate = number / (time.perf_counter() - start)
            row = ', '.join(f'{name} {value:.0f}' for name, value in marks[-1].items())
            tqdm.tqdm.write(f'{number} batches, {rate:.0f} a second: {row}')
    batches.close()
    left = len(psutil.Process().children(recursive=True))
    growth = {name: marks[-1][name] - marks[0][name] for name in marks[0]}
    print('growth from the first eighth to the end:', end=' ')
    print(', '.join(f'{name} {value:+.1f}' for name, value in growth.items()))
    pairs = itertools.pairwise(mark['MiB workers'] for mark in marks)
    print('MiB of workers from eighth to eighth:', [round(b - a, 1) for a, b in pairs])
    print(f'processes left after close: {left}')


if __name__ == '__main__':
    main()
