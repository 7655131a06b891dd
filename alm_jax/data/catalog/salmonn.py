"""Manifests of SALMONN: {"annotation": [{path, text, task, Q (optional), expand_wav (optional)}]}.

asr tasks give transcript and language, captioning a caption. The question of a row is Q, else a
prompt for its task from SALMONN's prompts/train_prompt.json (a hash of the row decides which), with
Q in its braces; without either it has no turn. The clips of expand_wav stay apart here.
"""

from collections.abc import Iterator, Mapping, Sequence

from alm_jax.data import record
from alm_jax.data.catalog import manifests
from alm_jax.data.catalog.declaration import Dataset, Item
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.rows import Row

_PROMPTS = ('prompts/train_prompt.json', 'train_prompt.json')
_AUDIO = '<Speech><SpeechHere></Speech>'
_LANGUAGES = {'asr': 'en', 'asr_zh': 'zh', 'asr_de': 'de'}


def _items(files: Files, config: str) -> Iterator[Item]:
    prompts = files.json(*_PROMPTS) if files.has(*_PROMPTS) else {}
    for file, name, split in manifests.named(files, '*.json'):
        for _, row in files.json_rows(file, key='annotation'):
            paths = [row.text('path'), *(row.texts('expand_wav') if 'expand_wav' in row else ())]
            text, task = row.text('text'), row.text('task', 'asr')
            question = _question(row, task, prompts)
            turns = [(question, text)] if question else []
            yield manifests.item(files, row, split, name, paths, turns, **_fields(task, text))


def _fields(task: str, text: str) -> dict[str, object]:
    if task in _LANGUAGES:
        return {'transcript': text, 'language': _LANGUAGES[task]}
    if task.startswith('music'):
        return {'captions': [text], 'kind': 'music'}
    return {'captions': [text], 'kind': 'sound'} if task.startswith('audiocaption') else {}


def _question(row: Row, task: str, prompts: Mapping[str, Sequence[str]]) -> str:
    asked = row.text('Q', '')
    if not (known := prompts.get(task)):
        return asked
    prompt = known[record.stable_hash(f'{row.text("path")} {asked}') % len(known)]
    return prompt.replace(_AUDIO, '').replace('{}', asked).strip()


DATASET = Dataset(
    name='salmonn',
    version='1.0.0',
    title='SALMONN manifests',
    homepage='https://github.com/bytedance/SALMONN',
    licence='as the corpora of the manifests say',
    provenance='generated: language models, or as the corpora of the manifests say',
    layout='manifests/*.json, the audio at the paths that they give, below manual_dir, and, for\n'
    'questions, prompts/train_prompt.json from https://github.com/bytedance/SALMONN',
    items=_items,
    joined=True,
    kind='speech',
)
