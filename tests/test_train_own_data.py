"""README's one-line entries for data of one's own, trained on as a user does: two steps each."""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from alm_jax.data import sources

CONFIG = """
from alm_jax.config import base


def get_config(arg=None):
    c = base()
    c.steps = 2
    c.batch_size = 4
    c.log_every = 1
    c.front_end.seconds = 1.0
    c.model.embed_dim = 32
    return c
"""
FOLDER = "{'folder': 'my_folder', 'captions': 'my.csv', 'split': 'train'}"
TARS = "{'tars': 'shards/{000..002}.tar', 'split': 'train'}"
MIXTURE = (
    "{'folder': 'my_folder', 'captions': 'my.csv', 'split': 'train', 'weight': 3.0}",
    "{'tars': 'shards/{000..002}.tar', 'split': 'train', 'weight': 2.0}",
    "{'name': 'packaged_sounds/tiny:train', 'weight': 1.0}",
    "{'parquet': 'my_set/data/*.parquet', 'split': 'train', 'weight': 1.0}",
    "{'tree': 'sounds', 'split': 'train', 'weight': 1.0}",
)
# What the run says it trains on -> the entries of config.data.train
RUNS = {
    'my.csv:train': (FOLDER,),
    'tars:shards/{000..002}.tar:train': (TARS,),
    'packaged_sounds/tiny:train': MIXTURE,
}


def test_the_lines_are_those_of_the_readme():
    text = (pathlib.Path(__file__).parent.parent / 'README.md').read_text().replace(' \\\n', ' ')
    for entries in RUNS.values():
        assert f'--config.data.train="({", ".join(entries)},)"' in text


@pytest.fixture(scope='module')
def project(tmp_path_factory, packaged_tiny):
    """A folder with 36 real recordings in each of the four forms, and a config."""
    project = tmp_path_factory.mktemp('project')
    (project / 'my.py').write_text(CONFIG)
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    rows = [source[i * len(source) // 36] for i in range(36)]
    for row in rows:
        buffer = io.BytesIO()
        soundfile.write(buffer, row['audio'], row['rate'], format='FLAC')
        row['content'] = buffer.getvalue()
    (project / 'my_folder').mkdir()
    (project / 'shards').mkdir()
    (project / 'my_set/data').mkdir(parents=True)
    with (project / 'my_folder/my.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['file', 'caption'])
        for number, row in enumerate(rows):
            (project / f'my_folder/{number}.flac').write_bytes(row['content'])
            writer.writerow([f'{number}.flac', row['captions'][0]])
            if row['label']:  # a file in no folder of a class has no text, and counts as bad
                path = project / 'sounds' / row['label'] / f'{number}.flac'
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(row['content'])
    for shard in range(3):
        with tarfile.open(project / f'shards/{shard:03d}.tar', 'w') as tar:
            for number, row in enumerate(rows[shard::3]):
                keys = json.dumps({'text': list(row['captions']), 'tag': list(row['tags'])})
                for ending, content in (('flac', row['content']), ('json', keys.encode())):
                    info = tarfile.TarInfo(f'{number}.{ending}')
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    audio = [{'bytes': row['content'], 'path': f'{i}.flac'} for i, row in enumerate(rows)]
    table = pa.table({'audio': audio, 'caption': [row['captions'][0] for row in rows]})
    pq.write_table(table, project / 'my_set/data/train-00000-of-00001.parquet', row_group_size=10)
    return project


@pytest.mark.parametrize('title', RUNS)
def test_a_line_trains(project, packaged_tiny, title):
    entries = RUNS[title]
    workdir = project / 'runs' / str(list(RUNS).index(title))
    command = [sys.executable, '-m', 'alm_jax.train', '--config', 'my.py', '--workdir', workdir]
    done = subprocess.run(
        [*map(str, command), f'--config.data.train=({", ".join(entries)},)'],
        cwd=project,
        env={
            **os.environ,
            'ALM_JAX_DATA': str(packaged_tiny),
            'XLA_FLAGS': '--xla_backend_optimization_level=0',
            'JAX_COMPILATION_CACHE_DIR': str(project / 'compiled'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert title in done.stderr
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    losses = [line['train/loss'] for line in map(json.loads, lines) if 'train/loss' in line]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)
