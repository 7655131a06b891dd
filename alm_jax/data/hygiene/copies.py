"""Copies of recordings between two datasets, or within one, by their fingerprints.

Candidates are clips of which a patch resembles a patch of the other (``neighbours``); each is then
laid over the other and correlated, as ``fingerprint`` does, at its lag and those around it.
"""

import collections
import functools
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from alm_jax.data.hygiene import fingerprint, neighbours
from alm_jax.data.hygiene.pictures import Held, Pictures
from alm_jax.data.hygiene.workers import in_order

_LEAST_COSINE = 0.65  # of two patches
_MOST = 32  # patches that one is compared with further, the most alike
_MORE = 16  # times as many, for a clip that has copies by the dozen
_LAGS = 4  # of one pair of clips, those of the most alike patches
# One frame either side tells a pair of unlike clips from one whose lag is a little off.
_LEAST_NEARBY = 0.25
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
    other = queries if references is None else references
    lists = neighbours.InvertedLists(other.patches)
    compare = functools.partial(_compare, queries, other)
    best: dict[tuple[int, int], float] = {}
    rows, most = np.arange(len(queries.patches)), _MOST
    while len(rows):
        tasks = _candidates(queries, references, lists, rows, most)
        with tqdm(total=len(rows), desc='Comparing', unit='patch', disable=None) as bar:
            for (searched, _), found in in_order(compare, tasks, workers):
                for match in found:
                    key = match.query, match.reference
                    best[key] = max(match.correlation, best.get(key, -1.0))
                bar.update(searched)
        # Of a clip with so many copies, some may not have been among the most alike.
        counts = collections.Counter(i for pair in best for i in pair[: 1 + (references is None)])
        crowded = [i for i, count in counts.items() if count >= most // 2]
        rows = rows[np.isin(queries.owner[rows], crowded)]
        most *= _MORE
    return [fingerprint.Match(*pair, value) for pair, value in sorted(best.items())]


def _candidates(
    queries: Pictures | Held,
    references: Pictures | Held | None,
    lists: neighbours.InvertedLists,
    rows: np.ndarray,
    most: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """(patches searched, int64 [n, 3]: query, reference, lag in frames), a block at a time."""
    other = queries if references is None else references
    done = 0
    for found, columns, cosines in lists.pairs(queries.patches[rows], _LEAST_COSINE, most):
        mine = rows[found]
        pairs = np.stack(
            [
                queries.owner[mine],
                other.owner[columns],
                queries.frame[mine] - other.frame[columns],
            ],
            axis=1,
        )
        if references is None:
            backwards = pairs[:, 0] > pairs[:, 1]
            pairs[backwards] = pairs[backwards][:, [1, 0, 2]] * [1, 1, -1]
        keep = slice(None) if references is not None else pairs[:, 0] != pairs[:, 1]
        pairs, cosines = pairs[keep], cosines[keep]
        order = np.lexsort((-cosines, pairs[:, 1], pairs[:, 0]))
        searched = min(len(rows), done + neighbours.BLOCK) - done
        done += searched
        yield searched, _first_lags(pairs[order])


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
    queries: Pictures | Held, other: Pictures | Held, task: tuple[int, np.ndarray]
) -> list[fingerprint.Match]:
    changes = functools.lru_cache(_KEPT)(lambda j: fingerprint.changes(other[j]))
    found, last, mine = [], -1, np.zeros((0, 32), np.float32)
    for i, j, lag in task[1].tolist():
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
