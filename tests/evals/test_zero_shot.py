"""Zero-shot scores of a random model, against scikit-learn on the model's own embeddings."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.evals import records, result
from alm_jax.evals.zero_shot import ZeroShot
from alm_jax.load import load
from alm_jax.text import templates


@pytest.fixture(scope='module')
def evaluator(model, recordings_data):
    return ZeroShot(model.predictors, data=recordings_data, tags=True)


@pytest.fixture(scope='module')
def found(model, evaluator):
    return evaluator.run(model.params, model.extra)


@pytest.fixture(scope='module')
def by_hand(model, recordings_data):
    """(cosines [n, classes], target [n], classes) from one clip and one prompt at a time."""
    source = sources.open_source(recordings_data, '')
    rows = sorted(range(len(source)), key=lambda row: source.columns['id'][row])
    classes = sorted(set(source.columns['label']))
    text = []
    for name in classes:
        prompts = [model.embed_text(p)[0].astype(float) for p in templates.prompts(name, 'sound')]
        mean = np.mean(prompts, axis=0)
        text.append(mean / np.linalg.norm(mean))
    read = [source[row] for row in rows]
    audio = [model.embed_audio(r['audio'], sampling_rate=r['rate'])[0] for r in read]
    target = [classes.index(r['label']) for r in read]
    return np.array(audio, float) @ np.array(text).T, np.array(target), classes


def test_scores_equal_sklearn(found, by_hand):
    cosines, target, classes = by_hand
    predicted = cosines.argmax(axis=1)
    got = found.metrics
    assert (found.n, found.classes) == (17, 6)
    assert got['top1'] == pytest.approx(reference.accuracy_score(target, predicted))
    assert got['top5'] == pytest.approx(reference.top_k_accuracy_score(target, cosines, k=5))
    assert got['macro'] == pytest.approx(reference.balanced_accuracy_score(target, predicted))
    one_hot = np.eye(6)[target]
    assert got['map'] == pytest.approx(reference.average_precision_score(one_hot, cosines))
    expected = reference.confusion_matrix(target, predicted, labels=range(6))
    assert found.tables['confusion'] == {'classes': classes, 'counts': expected.tolist()}


def test_intervals_hold_the_value(found):
    for name, value in found.scalars.items():
        low, high = found.metrics[f'{name}_ci95']
        assert low <= value <= high
    assert found.metrics['macro_ci95'][0] < found.metrics['macro_ci95'][1]


def test_per_class_table_sums_up(found):
    rows = found.tables['per_class']
    assert sum(row['n'] for row in rows) == 17
    assert np.mean([row['top1'] for row in rows]) == pytest.approx(found.metrics['macro'])
    glass = next(row for row in rows if row['class'] == 'breaking glass')
    assert (glass['n'], glass['recordings']) == (3, 1)


def test_baselines(found):
    assert found.baselines['chance_top1'] == pytest.approx(1 / 6)
    assert found.baselines['majority_top1'] == pytest.approx(4 / 17)  # fire
    assert found.baselines['majority_top5'] == pytest.approx(16 / 17)


class Oracle:
    """Knows the label of every recording: what a perfect model would embed."""

    sampling_rate, front_end_sha256 = 16000, 'none'

    def __init__(self, data):
        source = sources.open_source(data, '')
        self._labels = sorted(set(source.columns['label']))
        read = [source[i] for i in range(len(source))]
        self._label_of = {r['audio'].tobytes(): r['label'] for r in read}

    def _vector(self, label):
        return np.eye(len(self._labels), dtype=np.float32)[self._labels.index(label)]

    def embed_audio(self, params, extra, clips):
        return np.stack([self._vector(self._label_of[x.tobytes()]) for x, _ in clips])

    def embed_text(self, params, extra, texts):
        found = [next(label for label in self._labels if label in text) for text in texts]
        return np.stack([self._vector(label) for label in found])


def test_a_perfect_model_scores_one(recordings_data):
    got = ZeroShot(Oracle(recordings_data), data=recordings_data).run(None, None)
    assert got.scalars == {'top1': 1, 'top5': 1, 'macro': 1, 'map': 1}
    assert got.metrics['top1_ci95'] == [1, 1]


def test_unseen_classes_are_scored_among_themselves(model, recordings_data, by_hand, monkeypatch):
    unseen = ['a door', 'fire', 'steps in snow']
    known = {name: {'unseen': True} for name in unseen}
    monkeypatch.setattr(records, 'classes_file', lambda data, data_dir: known)
    got = ZeroShot(model.predictors, data=recordings_data).run(model.params, model.extra)
    cosines, target, classes = by_hand
    columns = [classes.index(name) for name in unseen]
    rows = np.isin(target, columns)
    predicted = np.array(columns)[cosines[np.ix_(rows, columns)].argmax(axis=1)]
    assert got.metrics['unseen_top1'] == pytest.approx(np.mean(predicted == target[rows]))
    expected = reference.balanced_accuracy_score(target[rows], predicted)
    assert got.metrics['unseen_macro'] == pytest.approx(expected)
    assert got.baselines['unseen_chance_top1'] == pytest.approx(1 / 3)
    assert [row['class'] for row in got.tables['per_class'] if row['unseen']] == unseen


def test_two_evaluations_are_the_same_bytes(tiny_run, recordings_data, tmp_path):
    files = []
    for folder in ('a', 'b'):
        model = load(tiny_run)
        evaluator = ZeroShot(model.predictors, data=recordings_data)
        found = evaluator.run(model.params, model.extra)
        files.append(result.write(found, tmp_path / folder, 'zero_shot', 2, 'hash').read_bytes())
    assert files[0] == files[1]


def test_the_file_is_what_other_programs_rely_on(found, model, tmp_path):
    path = result.write(found, tmp_path, 'zero_shot', 2, model.checkpoint_sha256)
    assert path == tmp_path / 'evals' / 'zero_shot' / '2.json'
    content = json.loads(path.read_text())
    assert content['evaluator'] == 'zero_shot'
    assert (content['step'], content['n'], content['classes']) == (2, 17, 6)
    for key in ('protocol_sha256', 'checkpoint_sha256', 'front_end_sha256'):
        assert len(content[key]) == 64
    assert {'top1', 'top5', 'macro', 'map', 'top1_ci95', 'tags_map'} <= set(content['metrics'])
    assert result.write(found, tmp_path, 'x', None, '').name == 'final.json'


def test_the_protocol_hash_names_what_was_asked(model, recordings_data, found):
    def sha256(**options):
        evaluator = ZeroShot(model.predictors, data=recordings_data, **options)
        return result.protocol_sha256(evaluator.protocol)

    same, again = sha256(tags=True), sha256(tags=True, where={'kind': ['sound']})
    assert same == again == result.protocol_sha256(found.protocol)
    others = [sha256(), sha256(templates='speech'), sha256(classes=['fire', 'a door'])]
    assert len({same, *others}) == 4


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'classes': ['fires', 'a door']}, "Did you mean 'fire'"),
        ({'templates': 'sounds'}, "Did you mean 'sound'"),
        ({'where': {'kind': ['speech']}}, 'no record is left'),
        ({'classes': ['fire']}, 'at least 2'),
    ],
)
def test_mistakes_are_named(model, recordings_data, options, message):
    with pytest.raises(ConfigError, match=message):
        ZeroShot(model.predictors, data=recordings_data, **options)
