"""OpenAQA and OpenASQA: questions on clips of many corpora, of LTU and LTU-AS.

Configs: ``openaqa`` (5.6M questions), ``openasqa`` (10.2M, with speech), and their ``_toy`` sets.
All questions on one file are one record. The audio comes with none but the toy sets. ``input`` of
OpenASQA, what is said in the clip, is the transcript.
"""

import posixpath
from collections.abc import Iterator

from alm_jax.data.catalog.declaration import Clip, Dataset, Item, turn
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.recordings import recording_id

_TABLES = {
    'openaqa': ('openaqa_5.6M.json',),
    'openasqa': ('openasqa_10.3M_v2.json',),
    'openaqa_toy': ('openaqa_toy.json', 'openaqa_toy_relative.json'),
    'openasqa_toy': ('openasqa_toy.json', 'openasqa_toy_relative.json'),
}


def _items(files: Files, config: str) -> Iterator[Item]:
    for _, row in files.json_rows(*_TABLES[config]):
        path, corpus = row.text('audio_id'), row.text('dataset', '')
        place = posixpath.normpath(f'/{path}').lstrip('/')  # '../' and '/' stand for manual_dir
        clip = _clip(files, place, corpus)
        fields = {
            'turns': [turn(row.text('instruction'), row.text('output'))],
            'transcript': row.text('input', ''),
            'package': f'openaqa/{corpus}' if corpus else 'openaqa',
            'recording_id': recording_id(path, corpus),
        }
        yield Item('train', posixpath.splitext(place)[0], (clip,) if clip else (), fields)


def _clip(files: Files, place: str, corpus: str) -> Clip | None:
    """At its path below manual_dir, or by its name in the folder of its corpus, or of all."""
    name = posixpath.basename(place)
    folders = ([f'audio/{corpus}'] if corpus else []) + ['audio', 'sample_audio/audio']
    return files.audio(place) or files.audio(name, *folders)


DATASET = Dataset(
    name='openaqa',
    version='1.0.0',
    title='OpenAQA and OpenASQA',
    homepage='https://github.com/YuanGongND/ltu',
    licence='none is stated (text); audio as its corpora',
    provenance='generated: GPT-3.5 Turbo, and templates over human labels',
    layout="""openaqa_5.6M.json, openasqa_10.3M_v2.json, openaqa_toy.json or openasqa_toy.json
audio/CORPUS/ or audio/  files called as at the end of "audio_id", CORPUS as in "dataset"
  ('as_strong_train', ...); or the whole path of "audio_id" below manual_dir""",
    items=_items,
    configs=tuple(_TABLES),
    joined=True,
)
