"""What an evaluation says, and the one writer of its JSON file."""

import dataclasses
import hashlib
import importlib.resources
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from alm_jax.config import ConfigError, plain


@dataclasses.dataclass(frozen=True)
class EvalResult:
    """One evaluation of one set of parameters.

    Attributes:
      evaluator: its name, such as 'zero_shot'.
      data: the dataset and split, as it was named.
      n: records evaluated.
      classes: number of classes, None where there are none.
      protocol: the pinned definition with the options, prompts and record ids it was run with.
      front_end_sha256: of the audio front end.
      metrics: name -> value, and name_ci95 -> [low, high] or None.
      baselines: what needs no model: chance, the best constant answer.
      tables: for the report: per class, confusion, similarity.
      examples: for the report: queries with their best results.
      excluded: records of the data that the protocol leaves out.
      predictions: what the model wrote, an object a record or question, for the file of JSON lines.
    """

    evaluator: str
    data: str
    n: int
    classes: int | None
    protocol: Mapping[str, Any]
    front_end_sha256: str
    metrics: Mapping[str, float | list[float] | None]
    baselines: Mapping[str, float]
    tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    excluded: int = 0
    predictions: Sequence[Mapping[str, Any]] = ()

    @property
    def scalars(self) -> dict[str, float]:
        """The metrics without their intervals, for a log."""
        return {k: v for k, v in self.metrics.items() if not k.endswith('_ci95')}


def load_protocol(name: str, **options: Any) -> dict[str, Any]:
    """The definition ``protocols/<name>.json`` with the options of one run."""
    text = importlib.resources.files('alm_jax.evals.protocols').joinpath(f'{name}.json').read_text()
    return {**json.loads(text), 'options': options}


def evaluator_options(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry of config.evals says to the evaluator, without what says which and when."""
    return {k: v for k, v in plain(entry).items() if k not in ('evaluator', 'every')}


def protocol_sha256(protocol: Mapping[str, Any]) -> str:
    """The hash that names a protocol: of its JSON with sorted keys."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()


def write(
    result: EvalResult,
    workdir: str | os.PathLike,
    name: str,
    step: int | None,
    checkpoint_sha256: str,
) -> pathlib.Path:
    """Writes ``<workdir>/evals/<name>/<step>.json`` (``final.json`` without a step) atomically.

    Predictions go beside it, to ``<step>.jsonl``, before. The files hold no time and no path, so
    two evaluations of one checkpoint are the same bytes.
    """
    path = pathlib.Path(workdir) / 'evals' / name / f'{"final" if step is None else step}.json'
    content = {
        'evaluator': result.evaluator,
        'name': name,
        'step': step,
        'data': result.data,
        'n': result.n,
        'classes': result.classes,
        'protocol_sha256': protocol_sha256(result.protocol),
        'checkpoint_sha256': checkpoint_sha256,
        'front_end_sha256': result.front_end_sha256,
        'metrics': _without_nan(result.metrics),
        'baselines': result.baselines,
        'excluded': result.excluded,
        'protocol': result.protocol,
        'tables': result.tables,
        'examples': list(result.examples),
    }
    if result.predictions:
        lines = (json.dumps(one, ensure_ascii=False) + '\n' for one in result.predictions)
        _write(path.with_suffix('.jsonl'), ''.join(lines))
    _write(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + '\n')
    return path


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, path)


def _without_nan(metrics: Mapping[str, Any]) -> dict[str, Any]:
    def number(value):
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        key: [number(v) for v in value] if isinstance(value, list) else number(value)
        for key, value in metrics.items()
    }


def read_all(workdir: str | os.PathLike) -> dict[str, list[dict[str, Any]]]:
    """Every result of a workdir: evaluation name -> results by rising step, 'final' last."""
    results: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(pathlib.Path(workdir).glob('evals/*/*.json')):
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except ValueError as error:
            raise ConfigError(
                f'{path} is not JSON ({error}). Delete it and evaluate again.'
            ) from error
        results.setdefault(path.parent.name, []).append(content)
    for found in results.values():
        found.sort(key=lambda r: math.inf if r['step'] is None else r['step'])
    return results


def table(result: EvalResult | Mapping[str, Any], title: str) -> str:
    """The metrics as text for a terminal: name, value, 95 % interval."""
    get = result.get if isinstance(result, Mapping) else lambda key: getattr(result, key)
    metrics, count = get('metrics'), get('classes')
    lines = [f'{title}: {get("n")} clips' + (f', {count} classes' if count else '')]
    width = max(32, *map(len, metrics), *(len(f'baseline {key}') for key in get('baselines')))
    for key, value in metrics.items():
        if key.endswith('_ci95'):
            continue
        interval = metrics.get(f'{key}_ci95')
        spread = f'  [{interval[0]:.3f}, {interval[1]:.3f}]' if interval else ''
        shown = 'undefined' if value is None else f'{value:.3f}'
        lines.append(f'  {key:{width}}{shown:>9}{spread}')
    for key, value in get('baselines').items():
        lines.append(f'  {"baseline " + key:{width}}{value:9.3f}')
    for name, condition in get('tables').get('conditions', {}).items():
        if condition['n'] < len(get('predictions')):
            lines.append(f'  {name} is compared on {condition["n"]} of them')
    return '\n'.join(lines)
