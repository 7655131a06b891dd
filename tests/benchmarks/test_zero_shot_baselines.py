"""The arithmetic of the baselines; their numbers come from running the benchmark."""

import collections
import importlib.util
import pathlib

import numpy as np
import pytest
from sklearn import linear_model

from alm_jax.data import sources
from alm_jax.evals.zero_shot import ZeroShot

FILE = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'zero_shot_baselines.py'


@pytest.fixture(scope='module')
def benchmark():
    spec = importlib.util.spec_from_file_location(FILE.stem, FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ridge_equals_sklearn(benchmark):
    rng = np.random.default_rng(0)
    x, y, new = rng.normal(3, 1, (20, 30)), rng.normal(size=(20, 4)), rng.normal(size=(5, 30))
    expected = linear_model.Ridge(alpha=7.0).fit(x, y).predict(new)
    np.testing.assert_allclose(benchmark.fit_ridge(x, y, 7.0)(new), expected, atol=1e-9)


def test_constant_baseline_scores_as_the_evaluator_says(benchmark, recordings_data):
    """The majority class by way of embeddings: 4 of 17 clips are fire."""
    counts = collections.Counter(sources.open_source(recordings_data, '').columns['label'].tolist())
    majority = benchmark.constant(counts, sorted(counts))
    found = ZeroShot(majority, data=recordings_data).run(None, None)
    for metric in ('top1', 'top5', 'macro'):
        assert found.metrics[metric] == pytest.approx(found.baselines[f'majority_{metric}'])
    assert found.metrics['top1'] == pytest.approx(4 / 17)


def test_nearest_centroid_through_the_evaluator(benchmark, recordings_data):
    """Clips embedded as their own label reach their class's centroid."""
    source = sources.open_source(recordings_data, '')
    classes = sorted(set(source.columns['label'].tolist()))
    label_of = {row['audio'].tobytes(): row['label'] for row in map(source.__getitem__, range(17))}
    axes = dict(zip(classes, np.eye(len(classes))))

    class Towers:
        def audio(self, clips):
            return np.stack([3 * axes[label_of[x.tobytes()]] for x, _ in clips]), None

    train = benchmark.records.open_sorted(recordings_data, '', {})
    centroid = benchmark.nearest_centroid(Towers(), train, classes)
    found = ZeroShot(centroid, data=recordings_data).run(None, None)
    assert found.metrics['top1'] == 1.0


def test_leave_one_out_does_not_see_the_clip_itself(benchmark):
    labels, packages = ['a', 'a', 'b', 'b', 'c'], ['p', 'p', 'p', 'q', 'q']
    found = benchmark.package_leave_one_out(labels, packages, list('12345'))
    # p: a -> tie of a and b, a comes first; b -> a. q: b -> c; c -> b.
    assert found['top1'] == pytest.approx(2 / 5)
    assert found['macro'] == pytest.approx(1 / 3)
