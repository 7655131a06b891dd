"""One page of what a model wrote: listen, look, and read it against the references.

``evals/<name>/<step>.html`` beside the result it shows, with everything inside it; no network.
"""

import base64
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.audio import illustrations
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data.inspection.cards import picture, text
from alm_jax.evals import page_parts, pictures, records
from alm_jax.evals.page_parts import table, with_interval

_CARDS = 60
_SECONDS = 10.0  # of a clip that are heard and seen
_SOUND_BYTES = 9_000_000  # of all clips and spectrograms, so that the page stays under 15 MB
_ROWS = 2000  # of the list of everything
_SPOKEN = {
    'silence': 'hearing silence',
    'shuffled': 'hearing another clip',
    'most_frequent': 'commonest training caption',
    'retrieved': 'nearest training caption',
}


def write_page(path: str | os.PathLike, data_dir: str = '') -> pathlib.Path:
    """Writes the page of the result ``path`` and its JSON lines, and returns where.

    Recordings are read from the prepared data; where that is gone the page says so instead.
    """
    path = pathlib.Path(path)
    result = json.loads(path.read_text(encoding='utf-8'))
    lines = path.with_suffix('.jsonl').read_text(encoding='utf-8').splitlines()
    predictions = [json.loads(line) for line in lines]
    sections = {
        'Scores': _scores(result),
        'Tasks': _tasks(result['tables']),
        'Closed answers': _confusion(result['tables']),
        'Clips': _cards(result, predictions, data_dir),
        'Everything': _list(predictions),
    }
    step = 'pretrained model' if result['step'] is None else f'step {result["step"]}'
    page = path.with_suffix('.html')
    page_parts.write(
        page,
        result['name'],
        f'{step}, {result["data"]}, {result["n"]} clips. Intervals are 95 %, by resampling source '
        'recordings.',
        {title: section for title, section in sections.items() if section},
    )
    return page


def _scores(result: Mapping[str, Any]) -> str:
    """Every metric of the model and of each condition, and the model minus the condition."""
    own, conditions = result['metrics'], result['tables'].get('conditions', {})
    names = [n for n in own if not n.endswith('_ci95') and not n.startswith('over_')]
    header = ['', 'model']
    for name, condition in conditions.items():
        spoken = f'{_SPOKEN.get(name, name)} ({condition["n"]})'
        header += [spoken, 'the model is above by']
    rows = []
    for name in names:
        cells = [text(name), with_interval(own, name)]
        for condition in conditions.values():
            cells += [with_interval(condition[part], name) for part in ('metrics', 'difference')]
        rows.append(cells)
    missing = ''.join(
        f'<li><b>{text(name)}</b>: {text(why)}</li>'
        for name, why in result['tables'].get('unavailable', {}).items()
    )
    note = f'<p class="note">Not computed:</p><ul class="note">{missing}</ul>' if missing else ''
    return table(header, rows) + note


def _tasks(tables: Mapping[str, Any]) -> str:
    if not tables.get('per_task'):
        return ''
    columns = list(dict.fromkeys(name for row in tables['per_task'] for name in row))
    rows = [
        [
            text(f'{row[c]:.3f}' if isinstance(row[c], float) else row[c]) if c in row else ''
            for c in columns
        ]
        for row in tables['per_task']
    ]
    return table([name.replace('_', ' ') for name in columns], rows)


def _confusion(tables: Mapping[str, Any]) -> str:
    closed = tables.get('closed_answers')
    if not closed:
        return ''
    counts = np.array(closed['counts'], float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = {'row': 'reference', 'column': 'answer', 'value': 'share of the row'}
    drawn = pictures.matrix(share, closed['references'], closed['answers'], **named)
    return picture(drawn, 'References in rows, answers of the model in columns')


def _cards(result: Mapping[str, Any], predictions: Sequence[Mapping], data_dir: str) -> str:
    options = result['protocol']['options']
    try:
        source = records.open_sorted(options['data'], data_dir, options['where'])
    except ConfigError as error:
        return f'<p class="note">The recordings cannot be read: {text(error)}</p>'
    row_of = {str(record_id): row for row, record_id in enumerate(source.columns['id'])}
    every = max(1, -(-len(predictions) // _CARDS))
    room, cards, shown = _SOUND_BYTES, [], {}
    for prediction in predictions[::every]:
        record_id = prediction['id']
        if record_id not in shown:
            shown[record_id] = sound = _sound(source, row_of.get(record_id))
            room -= len(sound)
            if room < 0:
                sound = '<p class="note">Sound left out: the page would be too large.</p>'
        else:
            sound = '<p class="note">The same clip.</p>'
        cards.append(_card(sound, prediction))
    note = (
        '<p class="note">A green frame: the answer is right.</p>' if _has_right(predictions) else ''
    )
    return f'{note}<div class="results">{"".join(cards)}</div>'


def _has_right(predictions: Sequence[Mapping]) -> bool:
    return any('correct' in prediction for prediction in predictions)


def _sound(source: records.Records, row: int | None) -> str:
    if row is None:
        return '<p class="note">The recording is not in the data any more.</p>'
    try:
        record = source[row]
    except (AudioError, OSError) as error:
        return f'<p class="note">{text(error)}</p>'
    shown = record['audio'][: int(_SECONDS * record['rate'])]
    if not len(shown):
        return '<p class="note">No samples.</p>'
    heard = base64.b64encode(illustrations.mp3(shown, record['rate'])).decode()
    drawn = picture(
        illustrations.spectrogram(shown, record['rate']), f'Spectrogram of {record["id"]}'
    )
    return (
        f'{drawn}<audio controls preload="none" aria-label="{text(record["id"])}" '
        f'src="data:audio/mpeg;base64,{heard}"></audio>'
    )


def _card(sound: str, prediction: Mapping[str, Any]) -> str:
    references = ''.join(f'<li dir="auto">{text(r)}</li>' for r in prediction['references'])
    others = ''.join(
        f'<p class="note">{spoken}: <span dir="auto">{text(prediction[name])}</span></p>'
        for name, spoken in _SPOKEN.items()
        if name in prediction
    )
    right = ' relevant' if prediction.get('correct') else ''
    return (
        f'<div class="result{right}">{sound}<p class="note">{text(prediction["prompt"])}</p>'
        f'<p dir="auto"><b>{text(prediction["prediction"]) or "(nothing)"}</b></p>'
        f'<ul>{references}</ul>{others}'
        f'<div class="note">{text(prediction["id"].rsplit("/", 1)[-1])}</div></div>'
    )


def _list(predictions: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [text(p['id']), text(p['prompt']), text(p['prediction']), text(' | '.join(p['references']))]
        for p in predictions[:_ROWS]
    ]
    more = len(predictions) - len(rows)
    rest = f'<p class="note">... and {more:,} more in the JSON lines.</p>' if more > 0 else ''
    listed = table(['clip', 'prompt', 'prediction', 'references'], rows)
    return f'<details><summary>{len(rows):,} predictions</summary>{listed}{rest}</details>'
