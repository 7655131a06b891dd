"""Pairs of unit vectors with a high cosine, among millions, without comparing all with all.

Vectors are listed under the nearest of some centroids; a query is compared with the lists of the
few centroids nearest to it (the inverted file of Jegou, Douze and Schmid 2011, without its
residual codes). Few vectors make one list, and the search is exact. numpy only.
"""

from collections.abc import Iterator

import numpy as np

_EXACT = 1 << 15  # vectors that are one list
_SAMPLE_A_CENTROID = 32
_ROUNDS = 6  # of k-means
_PROBES = 16  # lists a query is compared with
BLOCK = 1 << 12  # queries at a time


class InvertedLists:
    """Vectors to be searched: int8 [n, d], 127 times unit vectors."""

    def __init__(self, vectors: np.ndarray, seed: int = 0):
        self._centroids = _centroids(vectors, seed)
        nearest = np.concatenate(
            [np.zeros(0, np.int64), *(n[:, 0] for _, n in self._nearest(vectors, 1))]
        )
        self._order = np.argsort(nearest, kind='stable')
        self._starts = np.searchsorted(nearest[self._order], np.arange(len(self._centroids) + 1))
        self._vectors = vectors[self._order]

    def pairs(
        self, queries: np.ndarray, least: float, most: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of (query numbers, vector numbers, cosines), by rising query and falling cosine.

        Args:
          queries: int8 [n, d], as the vectors.
          least: cosine of a pair.
          most: pairs of a query, those of the highest cosines.
        """
        for start, nearest in self._nearest(queries, _PROBES):
            rows, columns, cosines = [], [], []
            asked, which = nearest.ravel(), np.arange(nearest.size) // nearest.shape[1]
            order = np.argsort(asked, kind='stable')
            bounds = np.searchsorted(asked[order], np.arange(len(self._centroids) + 1))
            block = _floats(queries[start : start + len(nearest)])
            for listed in np.unique(asked).tolist():
                mine = which[order[bounds[listed] : bounds[listed + 1]]]
                found = self._within(listed, block[mine], least, most)
                rows.append(start + mine[found[0]])
                columns.append(found[1])
                cosines.append(found[2])
            yield _first(*map(np.concatenate, (rows, columns, cosines)), most)

    def _within(self, listed: int, queries: np.ndarray, least: float, most: int):
        first, last = self._starts[listed], self._starts[listed + 1]
        cosine = queries @ _floats(self._vectors[first:last]).T
        if last - first > most:
            cut = np.partition(cosine, -most, axis=1)[:, -most]
            cosine[cosine < cut[:, None]] = -1
        rows, columns = np.nonzero(cosine >= least)
        return rows, self._order[first + columns], cosine[rows, columns]

    def _nearest(self, vectors: np.ndarray, probes: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first number, [block, probes] nearest centroids, the nearest first)."""
        probes = min(probes, len(self._centroids))
        for start in range(0, len(vectors), BLOCK):
            cosine = _floats(vectors[start : start + BLOCK]) @ self._centroids.T
            if probes == 1:
                yield start, np.argmax(cosine, axis=1)[:, None]
            else:  # a copy: a view would keep the whole block
                yield start, np.argpartition(-cosine, probes - 1, axis=1)[:, :probes].copy()


def _first(rows: np.ndarray, columns: np.ndarray, cosines: np.ndarray, most: int):
    """The ``most`` pairs of the highest cosine of every row."""
    order = np.lexsort((-cosines, rows))
    rows = rows[order]
    start = np.flatnonzero(np.diff(rows, prepend=-1))
    rank = np.arange(len(rows)) - np.repeat(start, np.diff(start, append=len(rows)))
    kept = order[rank < most]
    return rows[rank < most], columns[kept], cosines[kept]


def _floats(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float32) * np.float32(1 / 127)


def _centroids(vectors: np.ndarray, seed: int) -> np.ndarray:
    """float32 [k, d] of unit norm: spherical k-means of a sample, k near the root of n."""
    if len(vectors) <= _EXACT:
        return np.zeros((1, vectors.shape[1]), np.float32)
    rng = np.random.default_rng(seed)
    count = int(4 * np.sqrt(len(vectors)))
    rows = rng.choice(len(vectors), min(len(vectors), _SAMPLE_A_CENTROID * count), replace=False)
    sample = _floats(vectors[np.sort(rows)])
    centroids = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(_ROUNDS):
        nearest = np.concatenate(
            [
                np.argmax(sample[start : start + BLOCK] @ centroids.T, axis=1)
                for start in range(0, len(sample), BLOCK)
            ]
        )
        order = np.argsort(nearest, kind='stable')
        used, first = np.unique(nearest[order], return_index=True)
        centroids[used] = np.add.reduceat(sample[order], first, axis=0)
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True).clip(1e-6)
    return centroids
