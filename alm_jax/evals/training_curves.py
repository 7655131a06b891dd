"""The part of the report about training: what was learned, how fast, and where the time went."""

import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence

from alm_jax.data.inspection.cards import picture, text
from alm_jax.evals import pictures
from alm_jax.evals.page_parts import table

# metric -> caption, in this order; those of a run's own come after the first
_LEARNING = {'loss': 'loss', 'learning_rate': 'learning rate', 'grad_norm': 'norm of the gradient'}
_SPEED = {
    'clips_per_s': 'clips a second',
    'tokens_per_s': 'tokens a second, without padding',
    'step_seconds': 'seconds a step',
    'data_wait': 'waiting for data, share of the time',
    'model_tflops_per_s': 'TFLOP/s of the model',
    'mfu': 'MFU, share of the peak',
    'goodput': 'goodput, share of the time so far',
    'padding_audio': 'padding, share of the audio',
    'padding_text': 'padding, share of the tokens',
}
_ONCE = ('start_up_seconds', 'compile_seconds')  # told beside the curves
_CURVES = 9  # of learning


def stages(of: Sequence[Mapping]) -> str:
    """Which steps each stage has, and what it has of its own."""
    if not of:
        return ''
    stops = itertools.accumulate(stage['steps'] for stage in of)
    rows = [
        [
            text(stage['name']),
            f'{stop - stage["steps"] + 1} to {stop}',
            '<br>'.join(
                f'{text(key)}: {text(json.dumps(value))}'
                for key, value in stage.items()
                if key not in ('name', 'steps')
            ),
        ]
        for stage, stop in zip(of, stops)
    ]
    return table(['stage', 'steps', 'its own'], rows)


def curves(path: pathlib.Path, of_stages: Sequence[Mapping]) -> str:
    """Of learning, with dashed lines where one stage ends and the next begins."""
    points = _points(path)
    boundaries = list(itertools.accumulate(stage['steps'] for stage in of_stages))[:-1]
    own = [name for name in points if name not in (*_LEARNING, *_SPEED, *_ONCE)]
    captions = _LEARNING | {name: name.replace('_', ' ') for name in own}
    shown = [name for name in captions if name in points][:_CURVES]
    drawn = {captions[name]: pictures.curve(points[name], boundaries=boundaries) for name in shown}
    return panels(drawn, 'training')


def _points(path: pathlib.Path) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of each metric of training, as far as it is finite."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        logged = json.loads(line)
        for key, value in logged.items():
            if key.startswith('train/') and value is not None:
                name = key.removeprefix('train/')
                points.setdefault(name, []).append((logged['step'], value))
    return points


def speed(workdir: pathlib.Path) -> str:
    """Curves, where the wall time of the run went, and the last profile of a step."""
    points = _points(workdir / 'metrics.jsonl')
    shown = [name for name in _SPEED if name in points]
    drawn = {_SPEED[name]: pictures.curve(points[name], from_zero=True) for name in shown}
    parts = [panels(drawn, 'speed')]
    if (path := workdir / 'goodput.json').is_file():
        found = json.loads(path.read_text())
        wall = found['wall_seconds']
        rows = [
            [text(name.replace('_', ' ')), f'{seconds:,.0f}', f'{seconds / wall:.1%}']
            for name, seconds in sorted(found['seconds'].items(), key=lambda item: -item[1])
        ]
        parts += [
            '<h3>Where the time went</h3>',
            f'<p class="note">{wall:,.0f} seconds of {found["commands"]} command(s), goodput '
            f'{found["goodput"]:.1%}: the share of steps that the run still holds.</p>',
            table(['', 'seconds', 'share'], rows),
        ]
    for path in sorted((workdir / 'profile').glob('**/breakdown.txt')):
        parts += ['<h3>A step, profiled</h3>', f'<pre>{text(path.read_text())}</pre>']
    return '\n'.join(parts)


def panels(drawn: Mapping[str, bytes], of: str) -> str:
    """Small pictures side by side, as many as the screen holds."""
    figures = ''.join(
        f'<figure><figcaption>{text(name)}</figcaption>'
        f'{picture(png, f"{name} over steps, {of}")}</figure>'
        for name, png in drawn.items()
    )
    return f'<div class="panels">{figures}</div>' if drawn else ''
