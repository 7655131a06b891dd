"""One page that shows a run: ``<workdir>/report.html``, with everything inside it.

python -m alm_jax.evals.report --workdir runs/tiny

Curves, scores with intervals, confusion and similarity, ten queries with what they found, to listen
to and to look at, and the config. The page needs no network and no other file.
"""

import base64
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import flags

from alm_jax import config as config_lib
from alm_jax.audio import illustrations
from alm_jax.config import ConfigError
from alm_jax.data.inspection.cards import picture, text
from alm_jax.evals import answers_page, page_parts, pictures, records, training_curves
from alm_jax.evals import result as result_lib
from alm_jax.evals.page_parts import table, with_interval

HEADLINES = {
    'zero_shot': ('top1', 'top5', 'macro', 'map', 'unseen_top1'),
    'retrieval': tuple(
        f'{metric}_{direction}'
        for direction in ('text_to_audio', 'audio_to_text')
        for metric in ('r_at_1', 'r_at_10', 'map_at_10')
    ),
    'captioning': (
        *('cider_d', 'bleu_4', 'rouge_l', 'meteor_exact_stem', 'minilm_similarity', 'wer', 'cer'),
        *('over_silence_cider_d', 'over_shuffled_cider_d'),
    ),
    'question_answering': (
        *('accuracy', 'choice_accuracy', 'parse_rate', 'closed_accuracy', 'minilm_similarity'),
        *('over_silence_accuracy', 'over_shuffled_accuracy'),
    ),
}
_CLIP_SECONDS = 6.0  # what is heard and seen of a clip
_SOUND_BYTES = 9_000_000  # of all clips and their spectrograms, so that the page stays under 15 MB
_STEPS_SHOWN = 12


def write_report(workdir: str | os.PathLike, data_dir: str = '') -> pathlib.Path:
    """Writes ``<workdir>/report.html`` from the run's files.

    Recordings are read from the prepared data; where that is gone the page says so instead.

    Raises:
      ConfigError: ``workdir`` holds no run.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / 'config.json').is_file():
        raise ConfigError(f'{workdir} is no run: it has no config.json.')
    config = json.loads((workdir / 'config.json').read_text())
    found = result_lib.read_all(workdir)
    order = sorted(found, key=lambda name: (found[name][-1]['evaluator'] != 'zero_shot', name))
    results = {name: found[name] for name in order}
    sections = {
        'Scores': _scores(results),
        'Stages': training_curves.stages(config.get('stages', ())),
        'Curves': training_curves.curves(workdir / 'metrics.jsonl', config.get('stages', ())),
        'Speed': training_curves.speed(workdir),
        'Zero-shot classes': _zero_shot(results),
        'Retrieval': _similarity(results),
        'Queries': _queries(results, data_dir or config['data']['dir']),
        'Answers': _answers(workdir, results, data_dir or config['data']['dir']),
        'Config and environment': _files(workdir, 'config.json', 'env.json'),
    }
    for title in ('Stages', 'Answers'):
        if not sections[title]:
            del sections[title]
    steps = [r['step'] for found in results.values() for r in found if r['step'] is not None]
    path = workdir / 'report.html'
    page_parts.write(
        path,
        config['name'] or workdir.absolute().name,
        f'alm_jax run, step {max(steps, default=0)} of {config["steps"]}, '
        f'seed {config["seed"]}. Intervals are 95 %, by resampling source recordings.',
        sections,
    )
    return path


def _scores(results: Mapping[str, Sequence[Mapping]]) -> str:
    parts = []
    for name, found in results.items():
        last = found[-1]
        metrics = [m for m in HEADLINES[last['evaluator']] if m in last['metrics']]
        rows = [
            [_step(result), *(with_interval(result['metrics'], metric) for metric in metrics)]
            for result in found[-_STEPS_SHOWN:]
        ]
        classes = f', {last["classes"]} classes' if last['classes'] else ''
        baselines = ', '.join(f'{_spoken(k)} {v:.3f}' for k, v in last['baselines'].items())
        parts += [
            f'<h3>{text(name)}</h3>',
            f'<p class="note">{text(last["data"])}, {last["n"]} clips{classes}. '
            f'Without a model: {baselines}.</p>',
            table(['step', *map(_spoken, metrics)], rows),
        ]
        if len(found) > 1:
            drawn = {_spoken(m): _score_curve(found, m) for m in metrics}
            parts.append(training_curves.panels(drawn, name))
    return '\n'.join(parts)


def _score_curve(results: Sequence[Mapping], metric: str) -> bytes:
    shown = [r for r in results if r['metrics'].get(metric) is not None]
    points = [(r['step'] or 0, r['metrics'][metric]) for r in shown]
    return pictures.curve(points, [r['metrics'].get(f'{metric}_ci95') for r in shown])


def _spoken(metric: str) -> str:
    """'r_at_1_text_to_audio' as 'R@1 text to audio'."""
    written = metric.replace('map_at_', 'mAP@').replace('r_at_', 'R@').replace('_', ' ')
    return ' '.join(
        {'map': 'mAP', 'top1': 'top-1', 'top5': 'top-5'}.get(w, w) for w in written.split()
    )


def _zero_shot(results: Mapping[str, Sequence[Mapping]]) -> str:
    parts = []
    for name, found in results.items():
        tables = found[-1]['tables']
        if 'confusion' not in tables:
            continue
        classes, counts = tables['confusion']['classes'], np.array(tables['confusion']['counts'])
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        drawn = pictures.matrix(
            share, classes, classes, row='true class', column='predicted', value='share of the row'
        )
        header = [
            'class',
            'clips',
            'recordings',
            'top-1',
            'average precision',
            'most confused with',
        ]
        rows = [
            [
                text(c['class']) + (' (unseen)' if c['unseen'] else ''),
                str(c['n']),
                str(c['recordings']),
                f'{c["top1"]:.2f}',
                f'{c["average_precision"]:.2f}',
                text(c['most_confused']),
            ]
            for c in tables['per_class']
        ]
        alt = f'Confusion matrix of {name}: true classes in rows, predicted in columns'
        parts += [
            f'<h3>{text(name)}, step {_step(found[-1])}</h3>',
            picture(drawn, alt),
            f'<details><summary>Per class</summary>{table(header, rows)}</details>',
        ]
    return '\n'.join(parts)


def _similarity(results: Mapping[str, Sequence[Mapping]]) -> str:
    parts = []
    for name, found in results.items():
        if table := found[-1]['tables'].get('similarity'):
            drawn = pictures.matrix(
                table['values'],
                table['captions'],
                [_file_name(clip) for clip in table['clips']],
                row='caption',
                column='clip',
                value='cosine similarity',
            )
            parts += [
                f'<h3>{text(name)}, step {_step(found[-1])}</h3>',
                '<p class="note">Clips spread over the labels, each against the captions of the '
                'others. A perfect model has a bright diagonal.</p>',
                picture(drawn, f'Similarity of captions (rows) and clips (columns), {name}'),
            ]
    return '\n'.join(parts)


def _queries(results: Mapping[str, Sequence[Mapping]], data_dir: str) -> str:
    budget = _Budget(_SOUND_BYTES)
    parts = []
    for name, found in results.items():
        last = found[-1]
        if not last['examples']:
            continue
        read = _reader(last, data_dir)
        parts.append(f'<h3>{text(name)}, step {_step(last)}</h3>')
        parts.append('<p class="note">A green frame: the clip carries this very caption.</p>')
        for example in last['examples']:
            cards = [
                _card(rank, result, read, budget)
                for rank, result in enumerate(example['results'], start=1)
            ]
            parts.append(f'<h3>“{text(example["query"])}”</h3>')
            parts.append(f'<div class="results">{"".join(cards)}</div>')
    return '\n'.join(parts)


def _answers(workdir: pathlib.Path, results: Mapping[str, Sequence[Mapping]], data_dir: str) -> str:
    """Writes the pages of what the model wrote at last, and says where they are."""
    pages = [
        answers_page.write_page(path.with_suffix('.json'), data_dir)
        for name, found in results.items()
        for path in [workdir / 'evals' / name / f'{_step(found[-1])}.jsonl']
        if path.is_file()
    ]
    listed = ''.join(f'<li>{text(page.relative_to(workdir))}</li>' for page in pages)
    told = '<p>To listen to and to read against the references:</p>'
    return f'{told}<ul>{listed}</ul>' if pages else ''


class _Budget:
    """Bytes that may still be embedded."""

    def __init__(self, left: int):
        self._left = left

    def take(self, count: int) -> bool:
        self._left -= count
        return self._left >= 0


def _reader(result: Mapping, data_dir: str) -> Callable[[str], tuple[np.ndarray, int]] | None:
    """Reads the clip of a record id, or None where the data is gone."""
    options = result['protocol']['options']
    try:
        source = records.open_sorted(options['data'], data_dir, options['where'])
    except ConfigError:
        return None
    row_of = {str(record_id): row for row, record_id in enumerate(source.columns['id'])}

    def read(record_id: str) -> tuple[np.ndarray, int]:
        record = source[row_of[record_id]]
        return record['audio'][: int(_CLIP_SECONDS * record['rate'])], record['rate']

    return read


def _card(rank: int, result: Mapping, read, budget: _Budget) -> str:
    caption = text(result['caption'])
    sound = '<p class="note">The recording is not on this machine any more.</p>'
    if read is not None:
        waveform, rate = read(result['id'])
        drawn = illustrations.spectrogram(waveform, rate)
        heard = illustrations.mp3(waveform, rate)
        sound = '<p class="note">Left out: the page would be too large.</p>'
        if budget.take((len(drawn) + len(heard)) * 4 // 3):
            image = picture(drawn, f'Spectrogram of {result["caption"]}')
            uri = base64.b64encode(heard).decode()
            sound = (
                f'{image}<audio controls aria-label="Result {rank}" '
                f'src="data:audio/mpeg;base64,{uri}"></audio>'
            )
    kind = 'result relevant' if result['relevant'] else 'result'
    return (
        f'<div class="{kind}"><b>{rank}.</b> {caption} <span class="interval">'
        f'{result["score"]:.3f}</span>{sound}'
        f'<div class="note">{text(_file_name(result["id"]))}</div></div>'
    )


def _files(workdir: pathlib.Path, *names: str) -> str:
    parts = []
    for path in (workdir / name for name in names):
        if path.is_file():
            content = text(path.read_text())
            parts.append(f'<details><summary>{path.name}</summary><pre>{content}</pre></details>')
    return '\n'.join(parts)


def _file_name(record_id: str) -> str:
    """The end of a record id: the rest is the path inside a package."""
    return record_id.rsplit('/', 1)[-1]


def _step(result: Mapping) -> str:
    return 'final' if result['step'] is None else str(result['step'])


def main(argv: list[str]) -> None:
    """See the head of this file."""
    del argv
    if not flags.FLAGS.workdir:
        raise ConfigError('give --workdir RUN.')
    print(f'report: {write_report(flags.FLAGS.workdir, flags.FLAGS.data_dir)}')


if __name__ == '__main__':
    flags.DEFINE_string('workdir', '', 'The run to show.')
    flags.DEFINE_string('data_dir', '', 'Where prepared data lies; default $ALM_JAX_DATA.')
    config_lib.run(main)
