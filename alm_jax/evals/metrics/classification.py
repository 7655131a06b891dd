"""Accuracy, average precision and confusion of scores over classes; float64 numpy.

Every statistic takes ``weights`` [..., n] (how often a clip counts, see ``bootstrap``), so that the
score and its interval come from one formula.
"""

import numpy as np


def ranking(scores_nc: np.ndarray) -> np.ndarray:
    """Class indices by falling score, int64 [n, c]; equal scores in class order."""
    return np.argsort(-scores_nc, axis=1, kind='stable')


def top_k_correct(scores_nc: np.ndarray, target_n: np.ndarray, k: int) -> np.ndarray:
    """Whether the target class is among the k best: bool [n]."""
    return (ranking(scores_nc)[:, :k] == np.asarray(target_n)[:, None]).any(axis=1)


def macro_mean(values_n: np.ndarray, target_n: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over classes of the mean of ``values_n`` within a class, each class counting alike.

    With top-1 correctness as values this is balanced accuracy (scikit-learn
    ``balanced_accuracy_score``). A class that has no clip under ``weights`` is left out.
    """
    member_nc = np.asarray(target_n)[:, None] == np.unique(target_n)
    with np.errstate(invalid='ignore'):
        by_class = (weights * values_n) @ member_nc / (weights @ member_nc)
    return np.nanmean(by_class, axis=-1)


def confusion_matrix(target_n: np.ndarray, predicted_n: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 [classes, classes]: row is the true class, column the predicted one."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (target_n, predicted_n), 1)
    return counts


def average_precision(
    relevant_n: np.ndarray, score_n: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Average precision of one tag under weights [..., n]; NaN where no clip has the tag.

    The sum over thresholds of precision times the gain in recall, not interpolated; clips of equal
    score share one threshold, so their order does not matter (scikit-learn
    ``average_precision_score``).
    """
    order = np.argsort(-score_n, kind='stable')
    threshold_ends = np.append(np.flatnonzero(np.diff(score_n[order])), len(order) - 1)
    weights = weights[..., order]
    found = np.cumsum(weights * relevant_n[order], axis=-1)[..., threshold_ends]
    seen = np.cumsum(weights, axis=-1)[..., threshold_ends]
    gained = np.diff(found, axis=-1, prepend=0)
    with np.errstate(invalid='ignore'):
        precision = np.where(seen > 0, found / seen, 0)
        return (gained * precision).sum(-1) / found[..., -1]


def mean_average_precision(
    relevant_nc: np.ndarray, scores_nc: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Mean over tags of their average precision; a tag without a clip is left out."""
    by_tag = [
        average_precision(relevant_nc[:, tag], scores_nc[:, tag], weights)
        for tag in range(relevant_nc.shape[1])
    ]
    return np.nanmean(by_tag, axis=0)
