"""BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002) as the COCO caption evaluation computes it.

Counts are summed over the corpus before they are divided, so a score is no mean over clips. A
clip's reference length is that of the reference nearest in length, the shorter of two as near. What
keeps a zero count from ending everything is the reference implementation's too (pycocoevalcap,
bleu_scorer.py): precisions are (matches + 1e-15) / (n-grams + 1e-9).
"""

import collections
from collections.abc import Callable, Sequence

import numpy as np

ORDERS = 4
_TINY, _SMALL = 1e-15, 1e-9


def bleu(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """``bleu_1`` ... ``bleu_4`` as a function of weights [..., n], see ``bootstrap``.

    Args:
      candidates: words of each of n clips.
      references: words of each of its references.
    """
    counts = np.array([_counts(c, r) for c, r in zip(candidates, references)], np.float64)

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights @ counts
        matched, ngrams = total[..., :ORDERS], total[..., ORDERS : 2 * ORDERS]
        logs = np.log((matched + _TINY) / (ngrams + _SMALL))
        ratio = (total[..., -2] + _TINY) / (total[..., -1] + _SMALL)
        brevity = np.minimum(1 - 1 / ratio, 0)
        means = np.cumsum(logs, axis=-1) / np.arange(1, ORDERS + 1) + brevity[..., None]
        return {f'bleu_{n + 1}': np.exp(means[..., n]) for n in range(ORDERS)}

    return statistics


def ngrams(words: Sequence[str], order: int) -> collections.Counter:
    """How often each run of ``order`` words occurs."""
    return collections.Counter(zip(*(words[start:] for start in range(order))))


def _counts(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """Matches and n-grams by order, the length, and the nearest reference's."""
    matched, total = [], []
    for order in range(1, ORDERS + 1):
        most: collections.Counter = collections.Counter()
        for reference in references:
            most |= ngrams(reference, order)
        own = ngrams(candidate, order)
        matched.append((own & most).total())
        total.append(own.total())
    length = len(candidate)
    nearest = min((abs(len(r) - length), len(r)) for r in references)[1]
    return [*matched, *total, length, nearest]
