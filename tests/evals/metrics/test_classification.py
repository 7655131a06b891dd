"""Accuracy and average precision against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from alm_jax.evals.metrics import classification

SEEDS = given(seed=st.integers(0, 2**32 - 1))
FEW = settings(max_examples=15, deadline=None, derandomize=True)


def scores_and_targets(seed, n=40, classes=6):
    """Scores on a coarse grid, so that many are equal, and targets that hit every class."""
    rng = np.random.default_rng(seed)
    target = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return rng.integers(0, 12, (n, classes)) / 12, target, rng


@FEW
@SEEDS
def test_macro_mean_of_correctness_is_balanced_accuracy(seed):
    scores, target, _ = scores_and_targets(seed)
    predicted = classification.ranking(scores)[:, 0]
    ours = classification.macro_mean(predicted == target, target, np.ones(len(target)))
    assert ours == pytest.approx(reference.balanced_accuracy_score(target, predicted), abs=1e-12)


@FEW
@SEEDS
def test_top_k_without_ties_equals_sklearn(seed):
    _, target, rng = scores_and_targets(seed)
    scores = rng.normal(size=(len(target), 6))
    for k in (1, 3, 5):
        ours = classification.top_k_correct(scores, target, k).mean()
        assert ours == pytest.approx(reference.top_k_accuracy_score(target, scores, k=k), abs=1e-12)


def test_equal_scores_rank_in_class_order():
    assert classification.ranking(np.array([[0.5, 0.7, 0.5, 0.7]])).tolist() == [[1, 3, 0, 2]]


@FEW
@SEEDS
def test_average_precision_with_ties_and_weights_equals_sklearn(seed):
    scores, target, rng = scores_and_targets(seed)
    relevant = target == 0
    weights = rng.integers(0, 3, (5, len(target))).astype(float)
    weights[:, 0] = 1  # at least one relevant clip
    ours = classification.average_precision(relevant, scores[:, 0], weights)
    theirs = [
        reference.average_precision_score(relevant, scores[:, 0], sample_weight=row)
        for row in weights
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@FEW
@SEEDS
def test_mean_average_precision_equals_sklearn_macro(seed):
    scores, target, rng = scores_and_targets(seed)
    relevant = np.eye(6, dtype=bool)[target] | (rng.random((len(target), 6)) < 0.2)
    ours = classification.mean_average_precision(relevant, scores, np.ones(len(target)))
    theirs = reference.average_precision_score(relevant, scores, average='macro')
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_a_tag_without_a_clip_is_left_out_of_the_mean():
    scores = np.array([[0.9, 0.1], [0.1, 0.8]])
    relevant = np.array([[True, False], [False, False]])
    assert classification.mean_average_precision(relevant, scores, np.ones(2)) == 1.0


@FEW
@SEEDS
def test_confusion_matrix_equals_sklearn(seed):
    scores, target, _ = scores_and_targets(seed)
    predicted = classification.ranking(scores)[:, 0]
    ours = classification.confusion_matrix(target, predicted, 6)
    assert (ours == reference.confusion_matrix(target, predicted, labels=range(6))).all()
