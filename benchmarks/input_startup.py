"""Startup on an index of 10**8 records: seconds to the first batch, and memory; then any step.

COMMAND: python benchmarks/input_startup.py [--records 100000000] [--folder DIR]
Writes an index of that many rows once (12 GB for 10**8, in a temporary folder unless --folder is
given), then starts a fresh Python process that opens it as the mixture of ten datasets, starts two
workers and makes a batch of real recordings. Prints seconds from the start of the process, the peak
resident memory of it and of its workers, and the milliseconds to plan step 10**7. Aim: 5 s, 1 GiB.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

START = time.perf_counter()
BATCH, RATE, WINDOW = 64, 16_000, 80_000
DATASETS = 10


class Many:
    """A reader of many records: the index has them all, their audio is that of a few real ones."""

    def __init__(self, path, recordings):
        from alm_jax.data.index import Index

        self.index = Index.open(path)
        self._path, self._recordings = path, recordings

    def __reduce__(self):
        return Many, (self._path, self._recordings)

    def __len__(self):
        return len(self.index)

    def read(self, row):
        """A real record under the id of ``row``."""
        real = self._recordings.read(row % len(self._recordings))
        return {**real, 'id': self.index.value('id', row)}


def write_index(path, records):
    """An index of ``records`` rows; ids, lengths and categories differ from row to row."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import tqdm

    from alm_jax.data import index, record

    def batches(rows=1 << 20):
        for start in tqdm.trange(0, records, rows, desc='index', unit='batch'):
            numbers = np.arange(start, min(records, start + rows), dtype=np.uint64)
            mixed = numbers * np.uint64(0x9E3779B97F4A7C15)
            seconds = (0.5 + (mixed >> np.uint64(40)) % np.uint64(200_000) / 8000).astype(
                np.float32
            )
            text = pc.binary_join_element_wise('clip', pc.cast(pa.array(numbers), pa.string()), '/')
            own = {
                'duration': seconds.astype(np.float32),
                'num_samples': (seconds * RATE).astype(np.int64),
                'recording_hash': mixed,
            }
            columns = []
            for field in index.SCHEMA:
                if field.name in record.TEXTS:
                    columns.append(text)
                elif field.name in record.CATEGORIES:
                    codes = pa.array((mixed >> np.uint64(60)).astype(np.int32))
                    names = pa.array([f'{field.name} {i}' for i in range(16)])
                    columns.append(pa.DictionaryArray.from_arrays(codes, names))
                else:
                    kind = record.NUMBERS[field.name]
                    columns.append(pa.array(own.get(field.name, np.ones(len(numbers), kind))))
            yield pa.record_batch(columns, schema=index.SCHEMA)

    index.write_batches(path, batches(), made_from=f'synthetic {records}')


def first_batch(path):
    """What the fresh process does and prints."""
    from alm_jax.data import dry_run, location, plan, pools, sources, transforms, workers
    from alm_jax.data.batch_maker import BatchMaker

    real = sources.open_source('packaged_sounds/tiny:train', location.data_dir())
    many = sources.Source('many', Many(path, real))
    mixture = plan.Mixture(
        pools=tuple(pools.Pool((len(many),)) for _ in range(DATASETS)),
        weights=tuple(range(1, DATASETS + 1)),
    )
    maker = BatchMaker(
        sources=[many] * DATASETS,
        mixture=mixture,
        transform=transforms.ToWindow(RATE, WINDOW),
        window_samples=(WINDOW,),
        tokenizer=dry_run.Words(),
        text_length=64,
        seed=0,
        batch_size=BATCH,
        rows=slice(0, BATCH),
    )
    made = workers.Workers(maker, 2, ahead=2)
    batch, _, _ = next(made)
    seconds = time.perf_counter() - START
    assert batch['pcm'].shape == (BATCH, WINDOW)
    start = time.perf_counter()
    plan.plan(1, 10**7, mixture, BATCH)
    far = time.perf_counter() - start
    made.close()
    own, children = (
        resource.getrusage(who).ru_maxrss / 2**20
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f'{len(many):,} records in each of {DATASETS} datasets: first batch after {seconds:.2f} s; '
        f'peak memory {own:.2f} GiB, largest worker {children:.2f} GiB; '
        f'step 10**7 planned in {far * 1e3:.1f} ms'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--records', type=int, default=10**8)
    parser.add_argument('--folder', help='keeps the index there for the next run')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(options.folder or scratch) / f'index-{options.records}.arrow'
        if not path.exists():
            write_index(path, options.records)
        for _ in range(2):  # as a module, for the workers have no main module
            here = str(pathlib.Path(__file__).parent)
            program = f'import input_startup; input_startup.first_batch({str(path)!r})'
            command = [sys.executable, '-c', f'import sys; sys.path.append({here!r}); {program}']
            subprocess.run(command, check=True)


if __name__ == '__main__':
    main()
