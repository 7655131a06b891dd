"""METEOR 1.5 for English (Denkowski and Lavie 2014, https://aclanthology.org/W14-3348).

With the tables of its program (``meteor_tables``) the score is ``meteor``, as pycocoevalcap has it.
Without them words match when they or their stems are equal, no word is discounted for being a
function word, and the score is ``meteor_exact_stem``: what the program gives for ``-m "exact stem"
-w "1.0 0.6" -p "0.85 0.2 0.6 0.5"``. It is lower and not to be compared with METEOR of papers.

The alignment is searched as the program does it, quirks included: a beam from left to right over
the reference, in which matches other than exact ones count half a word, truncated.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import snowballstemmer

from alm_jax.evals.metrics.meteor_tables import Tables

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
_WEIGHTS = (1.0, 0.6, 0.8, 0.6)
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75  # delta: of a content word, where there is one
_BEAM = 40


def meteor(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    tables: Tables | None = None,
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """``meteor``, or ``meteor_exact_stem``, as a function of weights [..., n], see ``bootstrap``.

    Counts are those of the reference that scores best, and are summed over the corpus before the
    score is computed.

    Args:
      candidates: words of each of n clips.
      references: words of each of its references.
      tables: of the texts' words; None is without.
    """
    rows = []
    for candidate, own in zip(candidates, references):
        counts = np.array([_counts(candidate, reference, tables) for reference in own], np.float64)
        rows.append(counts[int(np.argmax(_score(counts)))])
    counts = np.array(rows)
    name = 'meteor' if tables else 'meteor_exact_stem'
    return lambda weights: {name: _score(weights @ counts)}


class _Match(NamedTuple):
    """Words of the reference, from ``start``, and of the candidate, from ``place``."""

    start: int
    length: int
    place: int
    width: int
    module: int

    @property
    def bits(self) -> tuple[int, int]:
        """The words that it uses, of the candidate and of the reference."""
        return ((1 << self.width) - 1) << self.place, ((1 << self.length) - 1) << self.start


class _Path(NamedTuple):
    """An alignment as far as the reference has been read; ``_quality`` says how good it is."""

    words: tuple[int, int]  # of the candidate and of the reference that are matched
    chunks: int  # that are over
    distance: int  # between the places of the two sides of each match
    used: tuple[int, int]
    ends: int  # the candidate's word that would go on with the chunk; -1 for none
    read: int  # words of the reference
    matches: tuple[_Match, ...]

    def matched(self, match: _Match) -> '_Path':
        weight = 1.0 if match.module == EXACT else 0.5
        sizes = match.width, match.length
        return _Path(
            tuple(int(n + weight * size) for n, size in zip(self.words, sizes)),
            self.chunks + (self.ends not in (-1, match.place)),
            self.distance,
            tuple(mine | theirs for mine, theirs in zip(self.used, match.bits)),
            match.place + match.width,
            match.start + match.length,
            (*self.matches, match),
        )

    def closed(self) -> '_Path':
        return self._replace(chunks=self.chunks + (self.ends != -1), ends=-1)


def _quality(path: _Path) -> tuple[int, int, int]:
    return -sum(path.words), path.chunks, path.distance


def _counts(candidate: Sequence[str], reference: Sequence[str], tables: Tables | None):
    """Weighted matches, weighted words and matched words, each of both sides, and chunks."""
    path = _aligned(candidate, reference, tables)
    content = _DELTA if tables else 0.5

    def discount(word: str) -> float:
        return 1 - content if tables and word in tables.function_words else content

    matched = np.zeros((2, 2))  # side; weighted, words
    for match in path.matches:
        sides = (candidate, match.place, match.width), (reference, match.start, match.length)
        for side, (words, start, length) in enumerate(sides):
            own = words[start : start + length]
            matched[side] += _WEIGHTS[match.module] * sum(map(discount, own)), length
    lengths = len(candidate), len(reference)
    whole = (*matched[:, 1],) == lengths and path.chunks == 1
    sums = [sum(map(discount, words)) for words in (candidate, reference)]
    # A candidate that is wholly one chunk with its reference is not broken at all.
    return [*matched[:, 0], *sums, *matched[:, 1], 0 if whole else path.chunks]


def _aligned(candidate: Sequence[str], reference: Sequence[str], tables: Tables | None) -> _Path:
    matches = list(_matches(candidate, reference, tables))
    starting = [[m for m in matches if m.start == place] for place in range(len(reference))]
    covered = [collections.Counter(), collections.Counter()]
    for m in matches:
        covered[0].update(range(m.place, m.place + m.width))
        covered[1].update(range(m.start, m.start + m.length))
    # Matches of words that match in no other way are taken before the search.
    fixed = {}
    used = (0, 0)
    for place, found in enumerate(starting):
        if len(found) == 1 and _alone(found[0], covered):
            fixed[place] = found[0]
            used = tuple(mine | theirs for mine, theirs in zip(used, found[0].bits))
    paths = [_Path((0, 0), 0, 0, used, -1, 0, ())]
    for place, found in enumerate(starting):
        reached: dict[tuple, _Path] = {}
        for path in sorted(paths, key=_quality)[:_BEAM]:
            for longer in _continued(path, place, found, fixed.get(place)):
                state = longer.used, longer.ends, longer.read
                reached[state] = min(reached.get(state, longer), longer, key=_quality)
        paths = list(reached.values()) or paths[:1]
    return min((path.closed() for path in sorted(paths, key=_quality)), key=_quality)


def _alone(match: _Match, covered) -> bool:
    own = range(match.place, match.place + match.width)
    given = range(match.start, match.start + match.length)
    return all(covered[0][i] == 1 for i in own) and all(covered[1][i] == 1 for i in given)


def _continued(path: _Path, place: int, found, fixed: _Match | None) -> Iterator[_Path]:
    if place < path.read:  # inside a match
        yield path
    elif fixed:
        distance = path.distance + abs(fixed.start - fixed.place)
        yield path.matched(fixed)._replace(distance=distance)
    elif not path.used[1] >> place & 1:
        distance = path.distance
        for match in found:
            own, given = match.bits
            if not path.used[0] & own and not path.used[1] & given:
                yield path.matched(match)._replace(distance=distance)
                # As in the program: of the paths that do not take it.
                distance += abs(match.start - match.place)
        yield path.closed()._replace(distance=distance, read=place + 1)


def _matches(candidate, reference, tables: Tables | None) -> Iterator[_Match]:
    """In the order of the program: by module, then by place."""
    pairs = [(j, i) for j in range(len(reference)) for i in range(len(candidate))]
    for j, i in pairs:
        if candidate[i] == reference[j]:
            yield _Match(j, 1, i, 1, EXACT)
    if tables and list(candidate) == list(reference):
        return
    others = [(j, i) for j, i in pairs if candidate[i] != reference[j]]
    for j, i in others:
        if _stem(candidate[i]) == _stem(reference[j]):
            yield _Match(j, 1, i, 1, STEM)
    if not tables:
        return
    meanings = [[tables.meanings(word) for word in words] for words in (candidate, reference)]
    for j, i in others:
        if meanings[0][i] & meanings[1][j]:
            yield _Match(j, 1, i, 1, SYNONYM)
    for j, length, i, width in _paraphrased(reference, candidate, tables):
        yield _Match(j, length, i, width, PARAPHRASE)
    for i, width, j, length in _paraphrased(candidate, reference, tables):
        yield _Match(j, length, i, width, PARAPHRASE)


def _paraphrased(words, others, tables: Tables) -> Iterator[tuple[int, int, int, int]]:
    """(start and length of a phrase of ``words``, of a paraphrase of it in ``others``)."""
    for start in range(len(words)):
        for end in range(start + 1, len(words) + 1):
            for other in tables.paraphrases.get(tuple(words[start:end]), ()):
                for place in range(len(others) - len(other) + 1):
                    if tuple(others[place : place + len(other)]) == other:
                        yield start, end - start, place, len(other)


def _score(counts: np.ndarray) -> np.ndarray:
    """Counts [..., 7] as ``_counts`` gives them -> score [...]."""
    weighted, weighted_r, length, length_r, words, words_r, chunks = np.moveaxis(counts, -1, 0)
    with np.errstate(divide='ignore', invalid='ignore'):
        mean = 1 / ((1 - _ALPHA) * length / weighted + _ALPHA * length_r / weighted_r)
        broken = chunks / ((words + words_r) / 2)
        return np.where(words > 0, np.maximum(mean * (1 - _GAMMA * broken**_BETA), 0), 0)


@functools.cache
def _stemmer():
    return snowballstemmer.stemmer('english')


@functools.lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return _stemmer().stemWord(word)
