"""Copies of recordings between two datasets, or within one, by their fingerprints.

Candidates are clips of which a patch resembles a patch of the other (``neighbours``); each is then
laid over the other and correlated, as ``fingerprint`` does, at its lag and those around it.
"""

import functools

import numpy as np
from tqdm import tqdm

from alm_jax.data.hygiene import fingerprint, neighbours
from alm_jax.data.hygiene.pictures import Held, Pictures
from alm_jax.data.hygiene.workers import in_order

_LEAST_COSINE = 0.65  # of two patches
_MOST = 32  # vectors of a list that one patch is compared with
_LAGS = 4  # of one pair of clips, those of the most alike patches
# One frame either side tells a pair of unlike clips from one whose lag is a little off.
_LEAST_NEARBY = 0.25
_PAIRS_A_TASK = 1 << 14
_KEPT = 512  # clips whose changes a process holds, about 40 MB of 10 s clips


def find(
    queries: Pictures | Held, references: Pictures | Held | None = None, workers: int = 2
) -> list[fingerprint.Match]:
    """Every pair of clips that hold the same recording; sorted by query, then reference.

    Args:
      queries: the smaller dataset, where the sizes differ.
      references: None looks within ``queries``: each pair once, the earlier clip as its query.
      workers: processes; 0 compares in this one.
    """
    pairs = candidates(queries, references)
    other = queries if references is None else references
    tasks = [pairs[start : start + _PAIRS_A_TASK] for start in range(0, len(pairs), _PAIRS_A_TASK)]
    matches: list[fingerprint.Match] = []
    with tqdm(total=len(pairs), desc='Comparing', unit='pair', disable=None) as bar:
        compare = functools.partial(_compare, queries, other)
        for task, found in in_order(compare, tasks, workers):
            matches += found
            bar.update(len(task))
    best: dict[tuple[int, int], float] = {}
    for match in matches:
        key = match.query, match.reference
        best[key] = max(match.correlation, best.get(key, -1.0))
    return [fingerprint.Match(*key, value) for key, value in sorted(best.items())]


def candidates(queries: Pictures | Held, references: Pictures | Held | None) -> np.ndarray:
    """int64 [n, 3]: (query, reference, lag in frames) of clips with patches that look alike."""
    other = queries if references is None else references
    lists = neighbours.InvertedLists(other.patches)
    found = [np.zeros((0, 4))]
    with tqdm(total=len(queries.patches), desc='Candidates', unit='patch', disable=None) as bar:
        last = 0
        for rows, columns, cosines in lists.pairs(queries.patches, _LEAST_COSINE, _MOST):
            i, j = queries.owner[rows], other.owner[columns]
            keep = i < j if references is None else np.ones(len(i), bool)
            lags = queries.frame[rows] - other.frame[columns]
            found.append(np.stack([i, j, lags, cosines], axis=1)[keep])
            bar.update(int(rows.max(initial=last)) - last)
            last = int(rows.max(initial=last))
    rows = np.concatenate(found)
    rows = rows[np.lexsort((-rows[:, 3], rows[:, 1], rows[:, 0]))]
    return _first_lags(rows[:, :3].astype(np.int64))


def _first_lags(rows: np.ndarray) -> np.ndarray:
    """The first ``_LAGS`` different lags of every (query, reference); rows are sorted by them."""
    kept = []
    for _ in range(_LAGS):
        if not len(rows):
            break
        new = np.any(np.diff(rows[:, :2], axis=0, prepend=-1) != 0, axis=1)
        kept.append(rows[new])
        taken = rows[new][np.cumsum(new) - 1, 2]
        rows = rows[np.abs(rows[:, 2] - taken) > 2 * max(fingerprint.LAGS)]
    rows = np.concatenate([np.zeros((0, 3), np.int64), *kept])
    return rows[np.lexsort(rows.T[::-1])]


def _compare(
    queries: Pictures | Held, other: Pictures | Held, pairs: np.ndarray
) -> list[fingerprint.Match]:
    changes = functools.lru_cache(_KEPT)(lambda j: fingerprint.changes(other[j]))
    found, last, mine = [], -1, np.zeros((0, 32), np.float32)
    for i, j, lag in pairs.tolist():
        if i != last:
            mine, last = fingerprint.changes(queries[i]), i
        theirs = changes(j)
        tried = {
            shift: fingerprint.aligned_correlation(mine, theirs, lag + shift) for shift in (-1, 1)
        }
        if max(value for value, _ in tried.values()) < _LEAST_NEARBY:
            continue
        for shift in set(fingerprint.LAGS) - set(tried):
            tried[shift] = fingerprint.aligned_correlation(mine, theirs, lag + shift)
        good = [
            value for value, overlap in tried.values() if value >= fingerprint.threshold(overlap)
        ]
        if good:
            found.append(fingerprint.Match(i, j, max(good)))
    return found
