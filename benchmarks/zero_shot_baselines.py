"""What a trained model has to beat: zero-shot and retrieval without training a network.

COMMAND: python benchmarks/zero_shot_baselines.py --tier base [--out baselines.json]
NEEDS: the prepared tier (python -m alm_jax.prepare packaged_sounds --tier base) and the packaged
  weights of YAMNet and MiniLM.
HARDWARE, TIME: two CPU cores, two to three minutes for base; 1.1 GB of memory.

Every baseline answers the questions that ``alm_jax.evals`` puts to a model, so records, classes,
prompts, metrics and intervals are those of ``python -m alm_jax.evals.zero_shot`` and ``retrieval``
on ``packaged_sounds/TIER:test``; the file of --out holds their protocol_sha256. All of them are
deterministic.

- chance; majority class: the best constant answer, read off the test labels.
- package id only: test packages do not occur in training, so a model that sees nothing but the
  package id can only give one constant ranking: the class frequencies of train and validation.
  By construction it has chance macro accuracy and at most the top1 of the majority class; of
  unseen classes it knows nothing.
- YAMNet class names: probabilities of the 521 AudioSet classes, averaged over the clip, times the
  MiniLM embeddings of their names. Nothing is fitted; YAMNet has heard AudioSet.
- YAMNet ridge MiniLM: ridge regression from YAMNet's mean embedding to the mean MiniLM embedding of
  the captions, fitted on the sounds of the train split; lambda by zero-shot top1 on the validation
  split, then macro, then the larger.
- nearest centroid (supervised): mean YAMNet embedding of the train clips of a class, by cosine;
  only over the classes that have train clips.
- package, leave one out: the commonest class among the other test clips of the package. It knows
  test labels, so it bounds what a leak of the package could give.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from alm_jax import config as config_lib
from alm_jax.audio import presets, windows
from alm_jax.audio.log_mel_device import log_mel_device
from alm_jax.data.location import data_dir as data_dir_of
from alm_jax.evals import records, result
from alm_jax.evals.metrics import bootstrap, classification
from alm_jax.evals.retrieval import Retrieval
from alm_jax.evals.zero_shot import ZeroShot
from alm_jax.interop import init_from, packaged_weights
from alm_jax.models.audio.yamnet import YamNet
from alm_jax.models.layers.windows import masked_mean
from alm_jax.models.text.bert import Bert
from alm_jax.tasks.predictors import Predictors
from alm_jax.text import templates
from alm_jax.text.tokenizer import Tokenizer

SOUNDS = {'kind': ['sound']}  # the default of both evaluators
WINDOW_SECONDS = 5.0  # configs/clap/tiny.py
TOKEN_LENGTHS = (32, 64)
EMBEDDING = 1024  # of YAMNet
LAMBDAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)

Clip = tuple[np.ndarray, int]


class FrozenTowers:
    """YAMNet and MiniLM with the packaged weights; every distinct clip and text is embedded once.

    Raises:
      WeightsUnavailable: a weights package cannot be had.
    """

    def __init__(self, data_dir: pathlib.Path):
        front_end = presets.PRESETS['yamnet']
        yamnet, bert = YamNet(), Bert('minilm')
        self._audio = _pretrained(
            'yamnet', data_dir, yamnet, jnp.zeros((1, 96, 64)), jnp.array([96])
        )
        tokens = jnp.zeros((1, 3), jnp.int32)
        self._text = _pretrained('minilm', data_dir, bert, tokens, tokens == 0)

        def embed_windows(variables, _, pcm, num_samples):
            mel = log_mel_device(pcm.astype(jnp.float32) / 32768, front_end)
            out = yamnet.apply(variables, mel, front_end.num_frames(num_samples))
            probabilities = masked_mean(jax.nn.sigmoid(out['logits']), out['frame_mask'])
            # Predictors divides the mean over windows by its norm; the 1 recovers the scale.
            one = jnp.ones((len(pcm), 1))
            return jnp.concatenate([out['pooled'], probabilities, one], axis=1)

        def embed_tokens(variables, _, token_ids, token_mask):
            return bert.apply(variables, token_ids, token_mask)['pooled']

        folder = packaged_weights.fetch('minilm', data_dir)
        window_samples = round(WINDOW_SECONDS * front_end.sampling_rate)
        self._predictors = Predictors(
            embed_windows=embed_windows,
            embed_tokens=embed_tokens,
            tokenizer=Tokenizer.load(folder, TOKEN_LENGTHS),
            sampling_rate=front_end.sampling_rate,
            window_samples=window_samples,
            front_end_sha256=presets.front_end_sha256(
                front_end, window_samples=window_samples, policy=windows.EVALUATION_POLICY
            ),
        )
        self.front_end_sha256 = self._predictors.front_end_sha256
        listing = (packaged_weights.fetch('yamnet', data_dir) / 'classes.json').read_text()
        self.class_names = [entry['name'] for entry in json.loads(listing)]
        self._heard: dict[Any, np.ndarray] = {}
        self._read: dict[str, np.ndarray] = {}

    def audio(self, clips: Iterable[Clip]) -> tuple[np.ndarray, np.ndarray]:
        """Mean embedding [n, 1024] and mean class probabilities [n, 521] of clips, float64."""
        keyed = [((hashlib.sha256(x.tobytes()).digest(), rate), (x, rate)) for x, rate in clips]
        new = {key: clip for key, clip in keyed if key not in self._heard}
        rows = self._predictors.embed_audio(self._audio, {}, new.values()).astype(np.float64)
        self._heard.update(zip(new, rows))
        found = np.stack([self._heard[key] for key, _ in keyed])
        found = found[:, :-1] / found[:, -1:]
        return found[:, :EMBEDDING], found[:, EMBEDDING:]

    def text(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm MiniLM embeddings, float64 [n, 384]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._read]
        rows = self._predictors.embed_text(self._text, {}, new)
        self._read.update(zip(new, unit(rows.astype(np.float64))))
        return np.stack([self._read[text] for text in texts])


def _pretrained(name: str, data_dir: pathlib.Path, module, *inputs) -> dict[str, Any]:
    """The variables of ``module`` with every one from the packaged weights."""
    packaged_weights.fetch(name, data_dir)  # raises where init_from would start from scratch
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    statistics = {k: {name: v} for k, v in zeros.items() if k == 'batch_stats'}
    params, extra, report = init_from.initialise(
        {name: zeros['params']}, statistics, {name: f'packaged:{name}'}, data_dir
    )
    if report.missing:
        raise config_lib.ConfigError(str(report))
    return {'params': params[name]} | {key: value[name] for key, value in extra.items()}


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What the evaluators use of ``Predictors``, from two functions; embeddings get unit norm."""

    audio: Callable[[list[Clip]], np.ndarray]
    text: Callable[[Sequence[str]], np.ndarray]
    front_end_sha256: str = ''

    def embed_audio(self, params: Any, extra: Any, clips: Iterable[Clip]) -> np.ndarray:
        """Float64 [clips, d]; there are no params."""
        return unit(self.audio(list(clips)))

    def embed_text(self, params: Any, extra: Any, texts: Sequence[str]) -> np.ndarray:
        """Float64 [texts, d]; there are no params."""
        return unit(self.text(texts))


def unit(x: np.ndarray) -> np.ndarray:
    """Rows divided by their norm."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def constant(counts: Mapping[str, int], classes: Sequence[str]) -> Baseline:
    """Ranks the classes by ``counts``, whatever the clip."""
    total = sum(counts.values())
    share = {name: counts.get(name, 0) / total for name in classes}
    return Baseline(
        audio=lambda clips: np.tile([1.0, 0.0], (len(clips), 1)),
        text=_by_class({name: np.array([p, np.sqrt(1 - p * p)]) for name, p in share.items()}),
    )


def _by_class(embeddings: Mapping[str, np.ndarray]) -> Callable[[Sequence[str]], np.ndarray]:
    """Gives every prompt of a class the embedding of that class."""
    table = {p: e for name, e in embeddings.items() for p in templates.prompts(name, 'sound')}
    return lambda texts: np.stack([table[text] for text in texts])


def class_names(towers: FrozenTowers) -> Baseline:
    """Class probabilities times the embeddings of the AudioSet names."""
    names = towers.text(towers.class_names)
    return Baseline(lambda clips: towers.audio(clips)[1] @ names, towers.text)


def fit_ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression with an intercept that is not penalised: maps [n, d] to [n, e]."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    centred = x - mean_x
    gram = centred.T @ centred + penalty * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, centred.T @ (y - mean_y))
    return lambda new: (new - mean_x) @ weight + mean_y


def ridge(towers: FrozenTowers, train: records.Records, validation: str, data_dir: str):
    """The ridge baseline, its lambda and the validation scores it was chosen by."""
    rows = range(len(train))
    x = towers.audio(records.clips(train, rows))[0]
    captions = records.texts(train, 'captions')
    y = unit(np.stack([towers.text(texts).mean(axis=0) for texts in captions]))

    def baseline(penalty):
        apply = fit_ridge(x, y, penalty)
        return Baseline(lambda clips: apply(towers.audio(clips)[0]), towers.text)

    candidates = {penalty: baseline(penalty) for penalty in LAMBDAS}
    scores = {
        penalty: ZeroShot(candidate, data=validation, data_dir=data_dir).run(None, None).scalars
        for penalty, candidate in candidates.items()
    }
    best = max(LAMBDAS, key=lambda p: (scores[p]['top1'], scores[p]['macro'], p))
    return candidates[best], best, scores


def nearest_centroid(
    towers: FrozenTowers, train: records.Records, classes: Sequence[str]
) -> Baseline:
    """The mean direction of the train clips of each of ``classes``."""
    labels = train.columns['label']

    def centroid(name):
        clips = records.clips(train, np.flatnonzero(labels == name))
        return unit(towers.audio(clips)[0]).mean(axis=0)

    return Baseline(
        lambda clips: towers.audio(clips)[0], _by_class({name: centroid(name) for name in classes})
    )


def package_leave_one_out(
    labels: Sequence[str], packages: Sequence[str], recording_ids: Sequence[str]
) -> dict[str, Any]:
    """Scores of ranking classes by their number among the other clips of a clip's package."""
    classes, target = np.unique(labels, return_inverse=True)
    member = target[:, None] == np.arange(len(classes))
    same = np.asarray(packages)[:, None] == np.asarray(packages)
    scores = (same & ~np.eye(len(target), dtype=bool)).astype(int) @ member
    first = classification.top_k_correct(scores, target, 1)
    fifth = classification.top_k_correct(scores, target, 5)

    def statistics(weights):
        return {
            'top1': bootstrap.weighted_mean(first, weights),
            'top5': bootstrap.weighted_mean(fifth, weights),
            'macro': classification.macro_mean(first, target, weights),
        }

    return bootstrap.scored(statistics, recording_ids)


def measure(tier: str, data_dir: str) -> dict[str, Any]:
    """Every number of this benchmark, as the file of --out holds it."""
    splits = {s: f'packaged_sounds/{tier}:{s}' for s in ('train', 'validation', 'test')}
    sounds = {s: records.open_sorted(name, data_dir, SOUNDS) for s, name in splits.items()}
    counts = {s: _label_counts(sounds[s].columns['label']) for s in splits}
    towers = FrozenTowers(data_dir_of(data_dir))
    fitted, penalty, chosen_by = ridge(towers, sounds['train'], splits['validation'], data_dir)
    trained = sorted(set(counts['test']) & set(counts['train']))
    models = {'YAMNet class names': class_names(towers), 'YAMNet ridge MiniLM': fitted}

    def zero_shot(candidates, classes=()):
        names = classes or sorted(counts['test'])
        seen = counts['train'] + counts['validation']
        test = collections.Counter({name: counts['test'][name] for name in names})
        constants = {
            'majority class': constant(test, names),
            'package id only': constant(seen, names),
        }
        return _evaluated(
            ZeroShot,
            constants | candidates,
            data=splits['test'],
            data_dir=data_dir,
            classes=classes,
        )

    labelled = np.flatnonzero(sounds['test'].columns['label'] != '')
    columns = [sounds['test'].columns[c][labelled] for c in ('label', 'package', 'recording_id')]
    every = zero_shot(models)
    for metric in ('unseen_top1', 'unseen_macro'):  # all counts 0: the order of ties says nothing
        every['scores']['package id only'].pop(metric, None)
    every['scores']['package, leave one out'] = package_leave_one_out(*columns)
    centroid = nearest_centroid(towers, sounds['train'], trained)
    return {
        'tier': tier,
        'ridge': {'lambda': penalty, 'validation': chosen_by},
        'zero_shot': every,
        'zero_shot_classes_in_train': zero_shot(models | {'nearest centroid': centroid}, trained),
        'retrieval': _evaluated(Retrieval, models, data=splits['test'], data_dir=data_dir),
    }


def _label_counts(labels: np.ndarray) -> collections.Counter:
    return collections.Counter(str(label) for label in labels if label)


def _evaluated(evaluator: type, baselines: Mapping[str, Baseline], **options) -> dict[str, Any]:
    found = {n: evaluator(b, **options).run(None, None) for n, b in baselines.items()}
    first = next(iter(found.values()))
    return {
        'data': first.data,
        'n': first.n,
        'classes': first.classes,
        'excluded': first.excluded,
        'protocol_sha256': result.protocol_sha256(first.protocol),
        'chance': _chance(first),
        'scores': {name: one.metrics for name, one in found.items()},
    }


def _chance(found: result.EvalResult) -> dict[str, float]:
    """Metric -> chance; macro accuracy has that of top1."""
    chance = {k.replace('chance_', ''): v for k, v in found.baselines.items() if 'chance' in k}
    return chance | {k.replace('top1', 'macro'): v for k, v in chance.items() if 'top1' in k}


def table(block: Mapping[str, Any], metrics: Sequence[str], suffix: str = '') -> str:
    """One line a baseline: value and 95 % interval of each metric, whose key ends in ``suffix``."""
    lines = [f'{"":24}' + ''.join(f'{metric:>21}' for metric in metrics)]
    for name, scores in {'chance': block['chance'], **block['scores']}.items():
        keys = [metric + suffix for metric in metrics]
        cells = [_cell(scores.get(key), scores.get(f'{key}_ci95')) for key in keys]
        lines.append(f'{name:24}' + ''.join(f'{cell:>21}' for cell in cells))
    return '\n'.join(lines)


def _cell(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return '-'
    digits = 3 if value <= 1 else 0
    spread = ' [{:.{d}f}, {:.{d}f}]'.format(*interval, d=digits) if interval else ''
    return f'{value:.{digits}f}{spread}'


def show(found: Mapping[str, Any]) -> None:
    """Prints the tables."""
    accuracy = ('top1', 'top5', 'macro')
    ranks = ('r_at_1', 'r_at_5', 'r_at_10', 'map_at_10', 'median_rank')
    block = found['zero_shot']
    print(f'zero-shot, {block["data"]}: {block["n"]} clips, {block["classes"]} classes')
    print(table(block, (*accuracy, 'unseen_top1', 'unseen_macro')))
    block = found['zero_shot_classes_in_train']
    print(f'\nonly classes with train clips: {block["n"]} clips, {block["classes"]} classes')
    print(table(block, accuracy))
    block = found['retrieval']
    for direction in ('text_to_audio', 'audio_to_text'):
        print(f'\nretrieval, {block["data"]}: {block["n"]} clips, {direction}')
        print(table(block, ranks, f'_{direction}'))
    chosen = found['ridge']
    print(f'\nridge lambda {chosen["lambda"]:g}, by zero-shot top1 (macro) on validation:')
    scores = chosen['validation'].items()
    print('  ' + '  '.join(f'{p:g}: {s["top1"]:.3f} ({s["macro"]:.3f})' for p, s in scores))


def main(argv: list[str]) -> None:
    """See the module's docstring."""
    if argv[1:]:
        raise app.UsageError(f'Not an option: {argv[1]!r}.')
    given = flags.FLAGS
    started = time.monotonic()
    found = measure(given.tier, given.data_dir)
    show(found)
    print(f'{time.monotonic() - started:.0f} s')
    if given.out:
        pathlib.Path(given.out).write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
        print(f'written to {given.out}')


if __name__ == '__main__':
    flags.DEFINE_string('tier', 'base', 'Tier of packaged_sounds: tiny, base or full.')
    flags.DEFINE_string('data_dir', '', 'Where prepared data lies; default $ALM_JAX_DATA.')
    flags.DEFINE_string('out', '', 'JSON file for the numbers.')
    config_lib.run(main)
