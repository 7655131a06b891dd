"""The interval resamples recordings: against explicit resampling, and wider than one over clips."""

import numpy as np
import pytest

from alm_jax.evals.metrics import bootstrap, classification


def test_clips_of_one_recording_are_drawn_together():
    weights = bootstrap.recording_weights(['b', 'a', 'b', 'c'], resamples=50)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()  # as many draws as recordings
    assert weights.std() > 0


def test_interval_equals_explicit_resampling():
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 9, 40).astype(str)
    values = rng.random(40)
    weights = bootstrap.recording_weights(ids, resamples=200, seed=3)
    means = [np.mean(np.repeat(values, row.astype(int))) for row in weights]
    ours = bootstrap.interval(bootstrap.weighted_mean(values, weights), values.mean())
    centred = np.quantile(means, [0.025, 0.975]) - np.mean(means) + values.mean()
    np.testing.assert_allclose(ours, centred, atol=1e-12)


def test_interval_covers_what_ten_copies_of_a_clip_do_not_tell():
    rng = np.random.default_rng(0)
    correct = np.repeat(rng.random(20) < 0.5, 10)  # 20 recordings, ten equal cuts of each
    recordings = np.repeat(np.arange(20), 10).astype(str)

    def width(ids):
        weights = bootstrap.recording_weights(ids)
        means = bootstrap.weighted_mean(correct, weights)
        low, high = bootstrap.interval(means, correct.mean())
        return high - low

    clips = np.arange(200).astype(str)
    assert width(recordings) == pytest.approx(width(clips) * np.sqrt(10), rel=0.15)


def test_scored_gives_value_and_interval():
    values = np.array([0.0, 1.0, 1.0])
    scored = bootstrap.scored(
        lambda w: {'mean': bootstrap.weighted_mean(values, w)}, ['a', 'b', 'b']
    )
    assert scored['mean'] == pytest.approx(2 / 3)
    low, high = scored['mean_ci95']
    assert 0 <= low < 2 / 3 < high <= 1


def test_interval_of_a_mean_over_classes_holds_its_value():
    # Many classes of one clip: a resample lacks a third of them, and its mean leaves those out.
    target = np.arange(40)
    correct = (target % 20 == 0).astype(float)
    scored = bootstrap.scored(
        lambda w: {'macro': classification.macro_mean(correct, target, w)}, target.astype(str)
    )
    low, high = scored['macro_ci95']
    assert low <= scored['macro'] <= high


def test_one_recording_has_no_interval():
    scored = bootstrap.scored(lambda w: {'mean': bootstrap.weighted_mean([0, 1], w)}, ['a', 'a'])
    assert scored == {'mean': 0.5, 'mean_ci95': None}


def test_intervals_repeat():
    first, again = (bootstrap.recording_weights(list('abcab')) for _ in range(2))
    assert (first == again).all()


def test_a_paired_difference_is_that_of_each_resample_and_narrower():
    rng = np.random.default_rng(2)
    hard = rng.random(60)  # what both systems find hard
    ids = rng.integers(0, 30, 60).astype(str)
    left, right = hard + 0.1 * rng.random(60), hard + 0.1 * rng.random(60) - 0.05

    def of(values):
        return lambda w: {'score': bootstrap.weighted_mean(values, w), 'other': w.sum(-1)}

    found = bootstrap.paired(of(left), lambda w: {'score': of(right)(w)['score']}, ids)
    assert set(found) == {'score', 'score_ci95'}
    assert found['score'] == pytest.approx(left.mean() - right.mean())
    weights = bootstrap.recording_weights(ids)
    each = [np.average(left, weights=w) - np.average(right, weights=w) for w in weights]
    expected = bootstrap.interval(np.array(each), left.mean() - right.mean())
    np.testing.assert_allclose(found['score_ci95'], expected, atol=1e-12)
    alone = bootstrap.scored(of(left), ids)['score_ci95']
    assert np.diff(found['score_ci95']) < np.diff(alone) / 3
