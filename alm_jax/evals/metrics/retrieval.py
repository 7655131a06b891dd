"""Ranks and what is read off them: recall at k, mAP@10, median rank; float64 numpy.

The rank of a query is the best rank among the items relevant to it. For audio to text that is the
best of the clip's captions, for text to audio the best of the clips that carry the caption. This is
the protocol of LAION-CLAP's ``evaluate_clotho_audiocaps``, which takes mAP@10 of that one rank too.
"""

from math import comb

import numpy as np

from alm_jax.evals.metrics import bootstrap

RECALL_AT = (1, 5, 10)


def similarity(left_ad: np.ndarray, right_bd: np.ndarray) -> np.ndarray:
    """Cosine similarity of unit-norm embeddings, float64 [a, b], rounded to 1e-9.

    Rounding makes equal embeddings tie exactly: a blocked matrix product may differ in the last bit
    from column to column, and such noise must not decide a rank.
    """
    return np.round(left_ad.astype(np.float64) @ right_bd.astype(np.float64).T, 9)


def best_ranks(similarity_qc: np.ndarray, relevant_qc: np.ndarray) -> np.ndarray:
    """Rank, from 1, of the best relevant candidate of each query: int64 [q].

    Candidates stand in id order and ties break by it. Raises ValueError for a query to which
    nothing is relevant.
    """
    if not relevant_qc.any(axis=1).all():
        raise ValueError('A query has no relevant candidate.')
    best = np.argmax(np.where(relevant_qc, similarity_qc, -np.inf), axis=1)[:, None]
    score = np.take_along_axis(similarity_qc, best, axis=1)
    earlier = np.arange(similarity_qc.shape[1]) < best
    ahead = (similarity_qc > score) | ((similarity_qc == score) & earlier)
    return 1 + ahead.sum(axis=1)


def statistics(ranks_q: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """``r_at_1``, ``r_at_5``, ``r_at_10``, ``map_at_10``, ``median_rank``; weights are [..., q]."""
    values = {f'r_at_{k}': bootstrap.weighted_mean(ranks_q <= k, weights) for k in RECALL_AT}
    reciprocal = np.where(ranks_q <= 10, 1 / ranks_q, 0)
    values['map_at_10'] = bootstrap.weighted_mean(reciprocal, weights)
    values['median_rank'] = bootstrap.weighted_median(ranks_q, weights)
    return values


def chance_recall(relevant_q: np.ndarray, candidates: int, k: int) -> float:
    """Mean recall at k of a random order, given how many candidates each query has as relevant."""
    total = comb(candidates, k)
    missed = [comb(candidates - int(m), k) / total if total else 0.0 for m in relevant_q]
    return float(1 - np.mean(missed))
