"""Manifests of SLAM-LLM: JSONL of {key, source, target, prompt (optional)}.

Config ``transcripts`` takes the target for what is said, ``captions`` for a caption of the sound.
Several rows of one source are one record. A prompt that is more than the name of a task ('ASR')
makes the row a turn.
"""

from collections.abc import Iterator

from alm_jax.data.catalog import manifests
from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files


def _items(files: Files, config: str) -> Iterator[Item]:
    for file, name, split in manifests.named(files, '*.jsonl'):
        for row in files.jsonl(file):
            target, prompt = row.text('target'), row.text('prompt', '')
            dialogue = [(prompt, target)] if ' ' in prompt else []
            if config == 'captions':
                fields = {'captions': [target]}
            else:
                fields = {'transcript': target, 'kind': 'speech'}
            paths = [row.text('source')]
            yield manifests.item(files, row, split, name, paths, dialogue, **fields)


DATASET = Dataset(
    name='slam_llm',
    version='1.0.0',
    title='SLAM-LLM manifests',
    homepage='https://github.com/X-LANCE/SLAM-LLM',
    licence='as the corpora of the manifests say',
    provenance='human',
    layout='manifests/*.jsonl and the audio at the paths that "source" gives, below manual_dir',
    items=_items,
    joined=True,
    configs=('transcripts', 'captions'),
)
