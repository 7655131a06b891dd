"""Captions of two datasets, or of one, that read alike.

Captions are compared as sets of words, case and punctuation aside. MinHash (Broder 1997) finds the
pairs that are worth comparing: captions whose smallest hashes agree in one of several bands.
"""

import functools
import re
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from alm_jax.data import record
from alm_jax.data.hygiene.workers import in_order

LEAST_JACCARD = 0.8  # of the words of two captions, to be called near-duplicates
_BANDS, _ROWS = 12, 5  # finds .99 of the pairs at LEAST_JACCARD, .03 of those at 0.3
_LEAST_AGREEMENT = 0.65  # of the smallest hashes, three standard deviations below LEAST_JACCARD
# Chinese and Japanese put no space between words: there every character is one.
_WORD = re.compile(r'[぀-ヿ㐀-鿿]|[^\W぀-ヿ㐀-鿿]+')
_RECORDS = 1024  # a task
_BLOCK = 1 << 16
_MOST_PAIRS = 1 << 24  # looked at in one band of one block


def words(text: str) -> list[str]:
    """The words of a caption, case and punctuation aside."""
    return _WORD.findall(text.casefold())


class Texts:
    """The different captions of a source.

    Attributes:
      texts: as first written; two of the same words in the same order are one.
      hashes: uint64 [len(texts)], of the words in order.
    """

    def __init__(self, captions: Iterable[tuple[int, str]]):
        """Of (number of the record, caption)."""
        self.texts: list[str] = []
        known: dict[int, int] = {}
        number: list[int] = []
        owner: list[int] = []
        vocabulary: dict[str, int] = {}
        sets: list[np.ndarray] = []
        for record_number, caption in captions:
            found = words(caption)
            if not found:
                continue
            key = record.stable_hash(' '.join(found))
            if key not in known:
                known[key] = len(self.texts)
                self.texts.append(caption)
                for word in found:
                    if word not in vocabulary:
                        vocabulary[word] = record.stable_hash(word)
                sets.append(np.array(sorted({vocabulary[word] for word in found}), np.uint64))
            number.append(known[key])
            owner.append(record_number)
        self.hashes = np.array(list(known), np.uint64)
        self._words = np.concatenate([np.zeros(0, np.uint64), *sets])
        self._starts = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
        order = np.argsort(number, kind='stable')
        self._owner = np.array(owner, np.int64)[order]
        self._bounds = np.searchsorted(
            np.array(number, np.int64)[order], np.arange(len(self.texts) + 1)
        )

    def __len__(self) -> int:
        return len(self.texts)

    def records(self, text: int) -> np.ndarray:
        """int64 [n]: the records that carry text number ``text``, each once."""
        return np.unique(self._owner[self._bounds[text] : self._bounds[text + 1]])

    def word_set(self, text: int) -> frozenset[int]:
        """Hashes of its words."""
        return frozenset(self._words[self._starts[text] : self._starts[text + 1]].tolist())

    def sketch(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Of some texts: uint64 [n, bands], equal in a band where all its smallest hashes are; and
        uint8 [n, hashes], a byte of each smallest hash."""
        starts = self._starts[first:last]
        own = self._words[starts[0] : self._starts[last]]
        bands = np.zeros((last - first, _BANDS), np.uint64)
        least = np.zeros((last - first, _BANDS * _ROWS), np.uint8)
        for number, multiplier in enumerate(_multipliers()):
            mixed = own * multiplier
            mixed ^= mixed >> np.uint64(32)
            mixed *= multiplier
            smallest = np.minimum.reduceat(mixed, starts - starts[0])
            band = bands[:, number // _ROWS]
            band *= np.uint64(0x9E3779B97F4A7C15)
            band += smallest
            least[:, number] = smallest.astype(np.uint8)
        return bands, least


def of_source(source, workers: int = 2) -> Texts:
    """The captions and transcripts of every record of a source, read on ``workers`` processes."""
    starts = range(0, len(source), _RECORDS)
    with tqdm(
        total=len(source), desc=f'Captions of {source.name}'[:60], unit='record', disable=None
    ) as bar:

        def captions() -> Iterator[tuple[int, str]]:
            read = functools.partial(_captions, source)
            for start, found in in_order(read, starts, workers):
                yield from found
                bar.update(min(_RECORDS, len(source) - start))

        return Texts(captions())


def _captions(source, start: int) -> list[tuple[int, str]]:
    found = []
    for i in range(start, min(start + _RECORDS, len(source))):
        fields = source.read(i)
        found += [(i, text) for text in (*fields['captions'], fields['transcript']) if text]
    return found


def same(queries: Texts, references: Texts) -> list[tuple[int, int]]:
    """(query, reference) of texts with the same words in the same order."""
    _, mine, theirs = np.intersect1d(
        queries.hashes, references.hashes, assume_unique=True, return_indices=True
    )
    return sorted(zip(mine.tolist(), theirs.tolist()))


def alike(queries: Texts, references: Texts | None = None) -> list[tuple[int, int, float]]:
    """(query, reference, Jaccard index of their words) of near-duplicates that are not ``same``.

    Args:
      queries: the smaller of the two.
      references: None looks within ``queries``: each pair once.
    """
    other = queries if references is None else references
    if not len(queries) or not len(other):
        return []
    bands, least = queries.sketch(0, len(queries))
    found = []
    for start in range(0, len(other), _BLOCK):
        theirs, their_least = other.sketch(start, min(start + _BLOCK, len(other)))
        i, j = _candidates(bands, theirs)
        # One block at a time holds each pair once, as every band is looked at before the next.
        good = _agree(least, their_least, i, j)
        i, j = i[good], start + j[good]
        keep = i < j if references is None else queries.hashes[i] != other.hashes[j]
        for a, b in zip(i[keep].tolist(), j[keep].tolist()):
            mine, its = queries.word_set(a), other.word_set(b)
            jaccard = len(mine & its) / len(mine | its)
            if jaccard >= LEAST_JACCARD:
                found.append((a, b, jaccard))
    return sorted(found)


def _candidates(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different (i, j) whose keys agree in a band."""
    codes = [np.zeros(0, np.int64)]
    for band in range(_BANDS):
        order = np.argsort(mine[:, band], kind='stable')
        keys = mine[order, band]
        first = np.searchsorted(keys, theirs[:, band], side='left')
        count = np.searchsorted(keys, theirs[:, band], side='right') - first
        count[np.cumsum(count) > _MOST_PAIRS] = 0
        j = np.repeat(np.arange(len(theirs)), count)
        within = np.arange(len(j)) - np.repeat(np.cumsum(count) - count, count)
        codes.append(np.unique(order[first[j] + within] * _BLOCK + j))
    i, j = np.divmod(np.unique(np.concatenate(codes)), _BLOCK)
    return i, j


def _agree(mine: np.ndarray, theirs: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """bool [pairs]: whether enough of the smallest hashes agree."""
    agrees = [np.zeros(0, bool)]
    for start in range(0, len(i), _BLOCK):
        block = slice(start, start + _BLOCK)
        share = (mine[i[block]] == theirs[j[block]]).mean(axis=1)
        agrees.append(share >= _LEAST_AGREEMENT)
    return np.concatenate(agrees)


@functools.cache
def _multipliers() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(1 << 63, 1 << 64, _BANDS * _ROWS, np.uint64) | np.uint64(1)
