"""Manifests of Audio Flamingo 2: {split, split_path, flamingo_task, total_num, data: {"0": ...}}.

Rows are {name, prompt, output, duration, audio_start (optional)}; a file lies at split_path/name.
Rows about one file are one record; the output of a task called '...AudioCaptioning' is a caption
too. The task is the package ('Clotho-AQA-AQA').
"""

from collections.abc import Iterator

from alm_jax.config import ConfigError
from alm_jax.data.catalog import manifests
from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import as_row

_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}


def _items(files: Files, config: str) -> Iterator[Item]:
    for file, _, _ in manifests.named(files, '*.json'):
        manifest = as_row(files.json(file), file)
        if manifest.text('split') not in _SPLITS:
            raise manifest.error('split', f'expected one of {", ".join(_SPLITS)}')
        split, task = _SPLITS[manifest.text('split')], manifest.text('flamingo_task')
        rows = as_row(manifest['data'], f'{file}, data')
        if len(rows) != int(manifest.number('total_num')):
            raise ConfigError(f'{file}: {len(rows)} rows; its total_num is another.')
        for number, row in rows.items():
            row = as_row(row, f'{file}, row {number}')
            path = f'{manifest.text("split_path")}/{row.text("name")}'
            start = row.number('audio_start') if 'audio_start' in row else 0.0
            output = row.text('output')
            captions = [output] if task.endswith('AudioCaptioning') else []
            turns = [(row.text('prompt'), output)]
            yield manifests.item(files, row, split, task, [path], turns, start, captions=captions)


DATASET = Dataset(
    name='audio_flamingo2',
    version='1.0.0',
    title='Audio Flamingo 2 manifests',
    homepage='https://github.com/NVIDIA/audio-flamingo',
    licence='as the corpora of the manifests say',
    provenance='generated: language models, or as the corpora of the manifests say',
    layout='manifests/NAME-TASK/SPLIT.json and the audio at split_path/name, below manual_dir',
    items=_items,
    joined=True,
)
