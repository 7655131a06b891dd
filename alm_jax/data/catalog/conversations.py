"""Conversations as NVIDIA distributes them: AudioSkills, LongAudio, AF-Think, AF-Chat.

JSON arrays of {id, sound: path or paths, duration, conversations: [{from: human or gpt, value}]}.
Each row is one dialogue (see manifests.py, also for '<sound>' and '<sound-i>' in the texts); the
JSON's name is the package, so ``where: {'package': ...}`` picks subsets. Annotations only: the
audio comes from the corpora that the rows name. No split is official but what a file's name says.
"""

from collections.abc import Iterator

from alm_jax.data.catalog import manifests
from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_ROLES = (('human', 'user'), ('gpt', 'assistant'))  # in turn


def _items(files: Files, config: str) -> Iterator[Item]:
    for file, name, split in manifests.named(files, '*.json*'):
        rows = (
            files.jsonl(file) if file.endswith('l') else (row for _, row in files.json_rows(file))
        )
        for row in rows:
            yield manifests.item(files, row, split, name, row.texts('sound'), list(_dialogue(row)))


def _dialogue(row: Row) -> Iterator[tuple[str, str]]:
    """(question, answer) in order."""
    turns = row.rows('conversations')
    for number, said in enumerate(turns):
        if said.text('from') not in _ROLES[number % 2]:
            raise said.error('from', f'expected {_ROLES[number % 2][0]}, as they take turns')
    if not turns or len(turns) % 2:
        raise row.error('conversations', 'expected an answer to every question')
    yield from zip((q.text('value') for q in turns[::2]), (a.text('value') for a in turns[1::2]))


DATASET = Dataset(
    name='conversations',
    version='1.0.0',
    title='AudioSkills, LongAudio, AF-Think and AF-Chat conversations',
    homepage='https://huggingface.co/datasets/nvidia/AudioSkills',
    licence='NVIDIA OneWay Noncommercial (text); audio as its corpora say',
    provenance='generated: language models',
    layout='manifests/**/*.json or *.jsonl as fetched from https://huggingface.co/nvidia, and the\n'
    'audio at the paths that "sound" gives, below manual_dir',
    items=_items,
    joined=True,
)
