"""CIDEr-D (Vedantam et al. 2015, section 4) with the rarity of n-grams taken from the references.

The reference implementation is pycocoevalcap's cider_scorer.py: n-grams of 1 to 4 words, each order
counting alike, clipped counts, a Gaussian of the difference in length with sigma 6 (the length is
the number of word pairs, as there), times 10.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from alm_jax.evals.metrics.bleu import ngrams

_ORDERS = 4
_SIGMA = 6.0
_NUMBERS = 10_000_000  # that a block of resamples holds at once


def cider_d(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """``cider_d`` as a function of weights [..., n], see ``bootstrap``.

    A resample is a corpus of its own: the rarity of its n-grams is that of its own references. As
    rarities are not negative, clipped products and norms are linear in their squares, so that a
    resample costs a few sparse products. A corpus of one clip scores 0, for nothing is rare in it.

    Args:
      candidates: words of each of n clips.
      references: words of each of its references.
    """
    orders = [_Order(candidates, references, order) for order in range(1, _ORDERS + 1)]
    clip_of = np.repeat(np.arange(len(references)), list(map(len, references)))
    pairs = np.array([_pairs(words) for own in references for words in own])
    apart = np.array([_pairs(words) for words in candidates])[clip_of] - pairs
    count = np.bincount(clip_of, minlength=len(candidates))
    share = 10 / _ORDERS * np.exp(-(apart**2) / (2 * _SIGMA**2)) / count[clip_of]
    width = max(max(order.present.shape[1], len(clip_of)) for order in orders)

    def score(weights_rn: np.ndarray) -> np.ndarray:
        clips = weights_rn.sum(axis=1)
        similar = sum(order.cosines(weights_rn, clip_of) for order in orders)
        return (weights_rn.T[clip_of] * share[:, None] * similar).sum(axis=0) / clips

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        rows = weights.reshape(-1, weights.shape[-1])
        blocks = np.array_split(rows, -(-len(rows) * width // _NUMBERS))
        found = np.concatenate([score(block) for block in blocks if len(block)])
        return {'cider_d': found.reshape(weights.shape[:-1])}

    return statistics


class _Order:
    """Counts of the n-grams of one order, as sparse matrices over the n-grams."""

    def __init__(self, candidates, references, order: int):
        index: dict[tuple, int] = {}
        own = [ngrams(words, order) for words in candidates]
        given = [[ngrams(words, order) for words in clip] for clip in references]
        each = [counts for clip in given for counts in clip]
        both = [
            {gram: min(o[gram], count) * count for gram, count in counts.items() if gram in o}
            for o, clip in zip(own, given)
            for counts in clip
        ]
        present = [{gram: 1 for counts in clip for gram in counts} for clip in given]
        rows = (*own, *each, *both, *present)
        for row in rows:
            for gram in row:
                index.setdefault(gram, len(index))
        self.own = _matrix([_squares(row) for row in own], index)
        self.each = _matrix([_squares(row) for row in each], index)
        self.both = _matrix(both, index)
        self.present = _matrix(present, index)

    def cosines(self, weights_rn: np.ndarray, clip_of: np.ndarray) -> np.ndarray:
        """Clipped cosine of every reference with its clip's candidate: [references, r]."""
        frequency = self.present.T @ weights_rn.T
        rarity = np.log(weights_rn.sum(axis=1)) - np.log(np.maximum(frequency, 1))
        square = rarity**2
        norms = np.sqrt((self.own @ square)[clip_of] * (self.each @ square))
        return (self.both @ square) / np.where(norms > 0, norms, 1)


def _matrix(rows: Sequence[dict], index: dict) -> sparse.csr_array:
    """[rows, n-grams]"""
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.array([index[gram] for row in rows for gram in row], np.int64)
    values = np.array([value for row in rows for value in row.values()], np.float64)
    return sparse.csr_array((values, columns, ends), shape=(len(rows), len(index)))


def _squares(counts: dict) -> dict:
    return {gram: count**2 for gram, count in counts.items()}


def _pairs(words: Sequence[str]) -> int:
    return max(len(words) - 1, 0)
