"""ROUGE-L (Lin 2004) as the COCO caption evaluation computes it (pycocoevalcap, rouge.py)."""

from collections.abc import Sequence

import numpy as np

_BETA = 1.2


def rouge_l(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> np.ndarray:
    """F-score of the longest common subsequence of each of n clips: float64 [n], in [0, 1].

    Precision and recall are each the best over the references, which need not be the same one.
    """
    return np.array([_score(c, r) for c, r in zip(candidates, references)], np.float64)


def _score(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    common = [_common(candidate, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(candidate)
    recall = max(c / len(r) for c, r in zip(common, references) if r)
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0  # what the row above has one column earlier
        for column, other in enumerate(right, start=1):
            above = row[column]
            row[column] = before + 1 if word == other else max(above, row[column - 1])
            before = above
    return row[-1]
