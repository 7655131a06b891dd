"""What data costs where it lies: first opening, opening again, and reading in a permuted order.

COMMAND: python benchmarks/own_data.py --clips 1000 --format FLAC
The same recordings (packaged_sounds/tiny, each repeated to 10 s) lie as a folder with a CSV, a
tree, a tar set and Parquet files in several layouts. Reading is without decoding, and that of
Parquet is set against pyarrow reading the row group of each clip. CPU seconds are given beside the
clock's, which other work on the machine stretches.
"""

import argparse
import csv
import io
import json
import pathlib
import tarfile
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from alm_jax.data import location, sources

SECONDS, CLIPS_A_TAR, ROW_GROUP = 10, 512, 100
CHUNKED = {'use_content_defined_chunking': True, 'write_page_index': True}
PARQUET = {
    'snappy': {},
    'snappy, one row group': {'row_group_size': 1 << 20},
    'snappy, small pages': CHUNKED,
    'none': {'compression': 'none', 'use_dictionary': False},
    'zstd': {'compression': 'zstd'},
    'zstd, small pages': {'compression': 'zstd', **CHUNKED},
}


def write(folder: pathlib.Path, clips: list[tuple[bytes, str]], ending: str) -> dict[str, str]:
    """Writes the clips in every form: title -> name for ``open_source``."""
    (folder / 'files').mkdir()
    (folder / 'tars').mkdir()
    with (folder / 'files/my.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['file', 'caption'])
        for number, (content, caption) in enumerate(clips):
            (folder / f'files/{number}.{ending}').write_bytes(content)
            (folder / f'files/{number}.txt').write_text(caption)
            writer.writerow([f'{number}.{ending}', caption])
    for start in range(0, len(clips), CLIPS_A_TAR):
        with tarfile.open(folder / f'tars/{start // CLIPS_A_TAR:05d}.tar', 'w') as tar:
            for number, (content, caption) in enumerate(clips[start : start + CLIPS_A_TAR], start):
                keys = json.dumps({'text': [caption], 'tag': [], 'original_data': {}}).encode()
                for name, member in ((f'{number}.{ending}', content), (f'{number}.json', keys)):
                    info = tarfile.TarInfo(name)
                    info.size = len(member)
                    tar.addfile(info, io.BytesIO(member))
    audio = [{'bytes': c, 'path': f'{i}.{ending}'} for i, (c, _) in enumerate(clips)]
    table = pa.table({'audio': audio, 'caption': [caption for _, caption in clips]})
    for title, layout in PARQUET.items():
        options = {'row_group_size': ROW_GROUP, **layout}
        pq.write_table(table, folder / f'{title}.parquet', **options)
    return {
        'folder and CSV': f'folder:{folder}/files?captions=my.csv',
        'tree': f'tree:{folder}/files',
        'tars': f'tars:{folder}/tars/*.tar',
        **{f'parquet, {title}': f'parquet:{folder}/{title}.parquet' for title in PARQUET},
    }


def recordings(count: int, form: str) -> list[tuple[bytes, str]]:
    """(an audio file's bytes, its caption) of real recordings."""
    source = sources.open_source('packaged_sounds/tiny:train', location.data_dir())
    clips = []
    for index in np.random.default_rng(0).integers(len(source), size=count):
        record = source[int(index)]
        buffer = io.BytesIO()
        samples = np.resize(record['audio'], SECONDS * record['rate'])
        soundfile.write(buffer, samples, record['rate'], format=form)
        clips.append((buffer.getvalue(), record['captions'][0]))
    return clips


def timed(work) -> tuple[float, float]:
    """(seconds, CPU seconds) of calling ``work``."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def read_all(source: sources.Source, order: np.ndarray) -> None:
    for index in order:
        source.read(int(index))


def read_row_groups(path: pathlib.Path, order: np.ndarray) -> None:
    """What a library does: the row group of each clip is decoded."""
    with pq.ParquetFile(path) as file:
        for index in order:
            group = file.read_row_group(int(index) // ROW_GROUP, columns=['audio.bytes'])
            group.column(0)[int(index) % ROW_GROUP]['bytes'].as_py()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--clips', type=int, default=1000)
    parser.add_argument('--format', default='FLAC', choices=['FLAC', 'WAV', 'OGG', 'MP3'])
    options = parser.parse_args()
    clips = recordings(options.clips, options.format)
    megabytes = sum(len(content) for content, _ in clips) / 1e6
    order = np.random.default_rng(1).permutation(len(clips))
    print(f'{len(clips)} {options.format} clips of {SECONDS} s, {megabytes:.0f} MB')
    print('form                              first opening (CPU s)      again   permuted reads')
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for title, name in write(folder, clips, options.format.lower()).items():
            first, cpu = timed(lambda name=name: sources.open_source(name, folder / 'data'))
            again, _ = timed(lambda name=name: sources.open_source(name, folder / 'data'))
            source = sources.open_source(name, folder / 'data')
            some = order[:100] if 'zstd' in title else order
            read = min(timed(lambda s=source, o=some: read_all(s, o))[0] for _ in range(3))
            print(
                f'{title:30} {megabytes / first:7.0f} MB/s ({cpu:6.2f})  {again * 1e3:8.1f} ms '
                f'{len(some) / read:9.0f} clips/s'
            )
        some = order[:50]
        read, _ = timed(lambda: read_row_groups(folder / 'snappy.parquet', some))
        print(f'{"pyarrow, its row group":62} {len(some) / read:9.0f} clips/s')


if __name__ == '__main__':
    main()
