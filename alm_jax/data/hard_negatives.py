"""Hard negatives: captions a few words away from a true one, and false.

Three kinds, after CompA (Ghosh et al., arXiv:2310.08753), where a language model writes them and a
person looks at the test set; here made by rule. A rule that cannot be sure of both falsehood and
grammar makes nothing, so that many captions have fewer negatives than asked for.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alm_jax.data import attribute_swaps, english, lexicon, noun_swaps, temporal
from alm_jax.data.caption_words import words_of

KINDS = ('order', 'attribute', 'noun')


class Negative(NamedTuple):
    """A false caption, and of which of KINDS it is."""

    text: str
    kind: str


def hard_negatives(
    caption: str,
    key: int,
    n: int,
    pool: noun_swaps.Pool = lexicon.NOUNS,
    known: Sequence[str] = (),
) -> list[Negative]:
    """At most ``n`` negatives, of as many kinds as possible; equal arguments give equal negatives.

    order: the events told in another order (``temporal.misordered``); never of events at the same
    time. attribute: an attribute becomes its opposite, a number another number, or two of them
    change places between two phrases. noun: a noun is replaced by one of another class, and
    its verb by what that one does (lexicon.DOING), or two change places. Quotations stay.

    Args:
      caption: English.
      key: an int below 2**128.
      n: how many are wanted.
      pool: class -> nouns, singular (or without a plural: lexicon.MASS). A noun is replaced by one
        of another class, unless lexicon.KIN holds the two.
      known: other texts that are true of the audio: captions, tags. No negative says what one of
        them says, or brings in a word of theirs.

    Returns:
      Negatives that differ from ``caption``, from ``known`` and from each other by more than case,
      punctuation and connectives.
    """
    if n < 1:
        return []
    rng = np.random.Generator(np.random.Philox(key=key))
    words = words_of(caption)
    true_words = frozenset(word.text for text in (caption, *known) for word in words_of(text))
    candidates = {
        'order': temporal.misordered(caption),
        'attribute': [
            *attribute_swaps.turned(caption, words, true_words),
            *attribute_swaps.exchanged(caption, words),
        ],
        'noun': list(noun_swaps.other_nouns(caption, words, true_words, pool, rng)),
    }
    queues = []
    for kind in rng.permutation(KINDS).tolist():
        order = rng.permutation(len(candidates[kind])).tolist()
        queues.append([Negative(candidates[kind][i], kind) for i in order])
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return _new_and_false([negative for negative in in_turn if negative], (caption, *known), n)


def _new_and_false(candidates: Sequence[Negative], true: Sequence[str], n: int) -> list[Negative]:
    """The first ``n`` that say what no true text and no earlier negative says."""
    meanings = {temporal.meaning(text) for text in true}
    said = {english.normalised(text) for text in true}
    made: list[Negative] = []
    for negative in candidates:
        plain = english.normalised(negative.text)
        if plain in said or temporal.meaning(negative.text) in meanings:
            continue
        said.add(plain)
        made.append(negative)
        if len(made) == n:
            break
    return made
