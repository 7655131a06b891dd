"""Clips per second of the loader against torch and webdataset, and against decoding alone.

COMMAND: python benchmarks/input_pipeline.py
  --formats wav,flac,ogg,mp3 --rates 16000,48000 --rounds 5 --seconds 2 --processes 2

Real recordings (those of packaged_sounds/tiny at 44.1 kHz, joined to 200 files of 2 to 30 s in each
format, in the page cache) are decoded, cut to a random 5 s, resampled by soxr 'HQ' and put into
batches of 64. All four run in this one process tree and take turns; a turn starts when all others
are idle and when what was made ahead has been used up. Medians over the rounds.

  limit       as many processes as the others have, each decoding the 5 s (libsndfile seeks there)
              and resampling them, and nothing else; with the allocator settings of our workers
  alm_jax     loader.batches on the folder, with captions and tokens
  torch       DataLoader, soundfile (seeking as well) and soxr in __getitem__, float32 batches
  webdataset  the same files in tars of 50, the same decoding, DataLoader of batches

Parts of an MP3 that libsndfile seeks to begin with noise, in all but alm_jax, which starts eight
frames earlier and drops them.
"""

import io
import multiprocessing
import os
import pathlib
import statistics
import tarfile
import time
from collections.abc import Callable

import numpy as np
import psutil
import soundfile
import soxr
from absl import app, flags

from alm_jax import config as config_lib
from alm_jax.data import loader, location, sources, workers
from alm_jax.text.tokenizer import Tokenizer

_FORMATS = flags.DEFINE_list('formats', ['wav', 'flac', 'ogg', 'mp3'], 'Containers.')
_RATES = flags.DEFINE_list('rates', ['16000', '48000'], 'Hz to resample to.')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each.', lower_bound=1)
_SECONDS = flags.DEFINE_float('seconds', 2.0, 'Least length of a turn.')
_PROCESSES = flags.DEFINE_integer('processes', 2, 'Decoding processes of each.', lower_bound=1)
_FILES = flags.DEFINE_integer('files', 200, 'Of each format.', lower_bound=1)

BATCH, CLIP_SECONDS, SOURCE_RATE, FILES_A_TAR = 64, 5.0, 44100, 50
MADE_AHEAD = 4  # batches, config.data.prefetch; torch and webdataset make as many


# ---------------------------------------------------------------------------- files


def make_files(folder: pathlib.Path, extension: str, count: int) -> None:
    """Writes NNN.EXT with captions.csv, and NNNN.tar with NNN.EXT and NNN.txt, unless there."""
    if (folder / 'captions.csv').exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = sources.open_source('packaged_sounds/tiny:train', location.data_dir())
    clips = [source[i] for i in np.flatnonzero(source.columns['rate'] == SOURCE_RATE)]
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        samples, parts, caption = int(SOURCE_RATE * rng.uniform(2, 30)), [], ''
        while sum(map(len, parts)) < samples:
            clip = clips[int(rng.integers(len(clips)))]
            parts.append(clip['audio'])
            caption = caption or clip['captions'][0]
        name = f'{number:03d}.{extension}'
        soundfile.write(folder / name, np.concatenate(parts)[:samples], SOURCE_RATE)
        rows.append((name, caption.replace('"', "'")))
    for start in range(0, count, FILES_A_TAR):
        with tarfile.open(folder / f'{start // FILES_A_TAR:04d}.tar', 'w') as tar:
            for name, caption in rows[start : start + FILES_A_TAR]:
                tar.add(folder / name, name)
                text = tarfile.TarInfo(name.partition('.')[0] + '.txt')
                text.size = len(caption.encode())
                tar.addfile(text, io.BytesIO(caption.encode()))
    lines = ['file,caption,split', *(f'{name},"{caption}",train' for name, caption in rows)]
    (folder / 'captions.csv').write_text('\n'.join(lines) + '\n')


def decode_crop_resample(
    source: str | io.BytesIO, rate: int, rng: np.random.Generator
) -> np.ndarray:
    """What every contender but alm_jax runs: float32 [n] at ``rate``, n for 5 s at most."""
    with soundfile.SoundFile(source) as file:
        native = int(CLIP_SECONDS * file.samplerate)
        file.seek(int(rng.integers(max(0, file.frames - native) + 1)))
        x = file.read(native, dtype='float32', always_2d=True)
        x = x[:, 0] if x.shape[1] == 1 else x.mean(axis=1)
        return soxr.resample(x, file.samplerate, rate, quality='HQ')


# ---------------------------------------------------------------------------- contenders


class Limit:
    """Processes that decode, cut and resample, and keep nothing."""

    def __init__(self, folder: pathlib.Path, extension: str, rate: int):
        context = multiprocessing.get_context('spawn')
        paths = sorted(map(str, folder.glob(f'*.{extension}')))
        self._pipes, self._processes = [], []
        before = dict(os.environ)
        os.environ.update(workers.ENVIRONMENT)
        for seed in range(_PROCESSES.value):
            ours, theirs = context.Pipe()
            process = context.Process(target=_decode_alone, args=(theirs, paths, rate, seed))
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        os.environ.clear()
        os.environ.update(before)

    def turn(self, seconds: float) -> tuple[float, float]:
        before = cpu_seconds()
        for pipe in self._pipes:
            pipe.send(seconds)
        clips, rates = zip(*(pipe.recv() for pipe in self._pipes))
        return sum(rates), 1e3 * (cpu_seconds() - before) / sum(clips)

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes):
            pipe.send(None)
            process.join()


def _decode_alone(pipe, paths: list[str], rate: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    while (seconds := pipe.recv()) is not None:
        clips, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            decode_crop_resample(paths[int(rng.integers(len(paths)))], rate, rng)
            clips += 1
        pipe.send((clips, clips / (time.perf_counter() - start)))


class Batched:
    """Anything that is iterated for batches."""

    def __init__(self, batches, close: Callable[[], None]):
        self._batches, self.close = iter(batches), close

    def turn(self, seconds: float) -> tuple[float, float]:
        for _ in range(2 * MADE_AHEAD + 2 * _PROCESSES.value):  # what was made ahead, and more
            next(self._batches)
        batches, start, before = 0, time.perf_counter(), cpu_seconds()
        while time.perf_counter() < start + seconds:
            next(self._batches)
            batches += 1
        clips = batches * BATCH
        return clips / (time.perf_counter() - start), 1e3 * (cpu_seconds() - before) / clips


def alm_jax_loader(folder: pathlib.Path, extension: str, rate: int) -> Batched:
    del extension
    config = config_lib.base()
    config.batch_size = BATCH
    config.data.train = ({'folder': str(folder), 'captions': 'captions.csv'},)
    config.data.workers, config.data.prefetch = _PROCESSES.value, MADE_AHEAD
    config.data.on_bad = 'fail'
    captions = (folder / 'captions.csv').read_text().split('\n')
    batches = loader.batches(
        config,
        sampling_rate=rate,
        window_samples=int(CLIP_SECONDS * rate),
        tokenizer=Tokenizer.train(captions, config.text.lengths),
    )
    return Batched(batches, batches.close)


def torch_loader(folder: pathlib.Path, extension: str, rate: int) -> Batched:
    import torch

    class Clips(torch.utils.data.Dataset):
        def __init__(self):
            self.paths = sorted(map(str, folder.glob(f'*.{extension}')))

        def __len__(self):
            return 10**6

        def __getitem__(self, i):
            x = decode_crop_resample(
                self.paths[i % len(self.paths)], rate, np.random.default_rng(i)
            )
            return torch.from_numpy(_padded(x, rate))

    batches = torch.utils.data.DataLoader(
        Clips(),
        batch_size=BATCH,
        shuffle=True,
        num_workers=_PROCESSES.value,
        prefetch_factor=-(-MADE_AHEAD // _PROCESSES.value),
    )
    return _with_workers(batches)


def webdataset_loader(folder: pathlib.Path, extension: str, rate: int) -> Batched:
    import torch
    import webdataset

    def decoded(sample):
        rng = np.random.default_rng(abs(hash(sample['__key__'])))
        x = decode_crop_resample(io.BytesIO(sample[extension]), rate, rng)
        return torch.from_numpy(_padded(x, rate)), sample['txt'].decode()

    tars = sorted(map(str, folder.glob('*.tar')))
    dataset = (
        webdataset.WebDataset(tars, resampled=True, shardshuffle=False)
        .shuffle(100)
        .map(decoded)
        .batched(BATCH)
    )
    batches = torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=_PROCESSES.value,
        prefetch_factor=-(-MADE_AHEAD // _PROCESSES.value),
    )
    return _with_workers(batches)


def _with_workers(batches) -> Batched:
    iterator = iter(batches)
    return Batched(iterator, iterator._shutdown_workers)


def _padded(x: np.ndarray, rate: int) -> np.ndarray:
    x = x[: int(CLIP_SECONDS * rate)]
    return np.pad(x, (0, int(CLIP_SECONDS * rate) - len(x)))


CONTENDERS = {  # torch forks: it is started before alm_jax, whose pipes a fork would keep open
    'limit': Limit,
    'torch': torch_loader,
    'webdataset': webdataset_loader,
    'alm_jax': alm_jax_loader,
}


# ---------------------------------------------------------------------------- turns


def cpu_seconds() -> float:
    """Time on processors of this process and of those it has started."""
    own = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in (own, *own.children(recursive=True)))


def wait_until_idle() -> None:
    """Until the processes of all contenders have filled what they fill ahead."""
    before = cpu_seconds()
    for _ in range(200):
        time.sleep(0.1)
        now = cpu_seconds()
        if now - before < 0.02:
            return
        before = now


def measure(folder: pathlib.Path, extension: str, rate: int) -> dict[str, tuple[float, float]]:
    """(clips per second, processor milliseconds per clip) of each contender."""
    make_files(folder, extension, _FILES.value)
    for path in folder.iterdir():
        path.read_bytes()
    running = {name: make(folder, extension, rate) for name, make in CONTENDERS.items()}
    seen = {name: [] for name in running}
    try:
        for turn in range(_ROUNDS.value + 1):
            for name, contender in running.items():
                wait_until_idle()
                taken = contender.turn(_SECONDS.value)
                if turn:  # the first one warms up
                    seen[name].append(taken)
    finally:
        for contender in running.values():
            contender.close()
    return {name: tuple(map(statistics.median, zip(*turns))) for name, turns in seen.items()}


def main(argv):
    del argv
    root = location.data_dir() / 'benchmarks' / 'input_pipeline'
    print(f'{_PROCESSES.value} processes on {psutil.cpu_count()} cores, batches of {BATCH} x 5 s')
    print('          | clips/s                            | alm_jax as a multiple  | processor ms')
    print('files kHz |  limit alm_jax   torch  webdataset | limit torch webdataset | of each')
    for extension in _FORMATS.value:
        for rate in map(int, _RATES.value):
            found = measure(root / f'{extension}-{_FILES.value}', extension, rate)
            names = ('limit', 'alm_jax', 'torch', 'webdataset')
            clips = {name: found[name][0] for name in names}
            ratios = {name: clips['alm_jax'] / clips[name] for name in names}
            print(
                f'{extension:5} {rate / 1000:3.0f} | {clips["limit"]:6.0f} {clips["alm_jax"]:7.0f} '
                f'{clips["torch"]:7.0f} {clips["webdataset"]:11.0f} | {ratios["limit"]:5.2f} '
                f'{ratios["torch"]:5.2f} {ratios["webdataset"]:10.2f} | '
                + ' '.join(f'{found[name][1]:.2f}' for name in names),
                flush=True,
            )


if __name__ == '__main__':
    app.run(main)
