"""METEOR 1.5 with two of its four matchers: equal words and equal stems.

Synonyms and paraphrases need tables of WordNet and of translations, and the discount of function
words a list of them, so this is not the METEOR of papers and does not have its name. It is what the
authors' program gives for ``-m "exact stem" -w "1.0 0.6" -p "0.85 0.2 0.6 0.5"``: Denkowski and
Lavie 2014 (https://aclanthology.org/W14-3348), sections 2 and 3, with the parameters of English.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import snowballstemmer

_ALPHA, _BETA, _GAMMA = 0.85, 0.2, 0.6
_STEM_WEIGHT = 0.6  # of a match
_BEAM = 40


def meteor_exact_stem(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """``meteor_exact_stem`` as a function of weights [..., n], see ``bootstrap``.

    Counts are those of the reference that scores best, and are summed over the corpus before the
    score is computed.

    Args:
      candidates: words of each of n clips.
      references: words of each of its references.
    """
    counts = np.array([_best(c, r) for c, r in zip(candidates, references)], np.float64)

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {'meteor_exact_stem': _score(weights @ counts)}

    return statistics


class _Path(NamedTuple):
    """An alignment as far as the reference has been read; the first three say how good it is."""

    unmatched: int  # minus the exact matches: the program truncates the half that a stem counts
    chunks: int  # that are over
    distance: int  # between the positions of the two words of each match
    used: int  # bits of the candidate's words
    next: int  # the candidate's word that would go on with the chunk; -1 for none
    matches: int

    def matched(self, i: int, exact: bool) -> '_Path':
        return _Path(
            self.unmatched - exact,
            self.chunks + (self.next not in (-1, i)),
            self.distance,
            self.used | 1 << i,
            i + 1,
            self.matches + 1,
        )

    def closed(self) -> '_Path':
        return self._replace(chunks=self.chunks + (self.next != -1), next=-1)


def _best(candidate, references) -> list[int]:
    counts = [_counts(candidate, reference) for reference in references]
    return counts[int(np.argmax(_score(np.array(counts, np.float64))))]


def _counts(candidate: Sequence[str], reference: Sequence[str]) -> list[int]:
    """Exact matches, stem matches, words of the candidate and of the reference, chunks.

    A candidate that is wholly one chunk with its reference is not broken at all: it has none.
    """
    matches = [
        [(i, True) for i, own in enumerate(candidate) if own == word]
        + [(i, False) for i, own in enumerate(candidate) if own != word and _same_stem(own, word)]
        for word in reference
    ]
    covered = collections.Counter(i for found in matches for i, _ in found)
    # Words that match one word alone are aligned before the search, which may not use them.
    fixed = [len(found) == 1 and covered[found[0][0]] == 1 for found in matches]
    used = sum(1 << found[0][0] for found, is_fixed in zip(matches, fixed) if is_fixed)
    paths = [_Path(0, 0, 0, used, -1, 0)]
    for place, (found, is_fixed) in enumerate(zip(matches, fixed)):
        reached: dict[tuple[int, int], _Path] = {}
        for path in sorted(paths, key=_quality)[:_BEAM]:
            for longer in _continued(path, place, found, is_fixed):
                state = longer.used, longer.next
                reached[state] = min(reached.get(state, longer), longer, key=_quality)
        paths = list(reached.values())
    best = min((path.closed() for path in sorted(paths, key=_quality)), key=_quality)
    whole = best.matches == len(candidate) == len(reference) and best.chunks == 1
    exact = -best.unmatched
    chunks = 0 if whole else best.chunks
    return [exact, best.matches - exact, len(candidate), len(reference), chunks]


def _continued(path: _Path, place: int, found, is_fixed: bool) -> Iterator[_Path]:
    distance = path.distance
    if is_fixed:
        i, exact = found[0]
        yield path.matched(i, exact)._replace(distance=distance + abs(place - i))
        return
    for i, exact in found:
        if not path.used >> i & 1:
            yield path.matched(i, exact)._replace(distance=distance)
            distance += abs(place - i)  # as in the program, of the paths that do not take it
    yield path.closed()._replace(distance=distance)


def _quality(path: _Path) -> tuple[int, int, int]:
    return path[:3]


def _score(counts: np.ndarray) -> np.ndarray:
    """Counts [..., 5] as ``_counts`` gives them -> score [...]."""
    exact, stem, length, reference, chunks = np.moveaxis(counts, -1, 0)
    matches = exact + stem
    weighted = exact + _STEM_WEIGHT * stem
    with np.errstate(divide='ignore', invalid='ignore'):
        mean = 1 / ((1 - _ALPHA) * length / weighted + _ALPHA * reference / weighted)
        return np.where(matches > 0, mean * (1 - _GAMMA * (chunks / matches) ** _BETA), 0)


def _same_stem(left: str, right: str) -> bool:
    return _stem(left) == _stem(right)


@functools.cache
def _stemmer():
    return snowballstemmer.stemmer('english')


@functools.lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return _stemmer().stemWord(word)
