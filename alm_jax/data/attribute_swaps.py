"""False captions by attributes: one turned into its opposite, or two that change places."""

import itertools
import re
from collections.abc import Iterator

from alm_jax.data import lexicon, temporal
from alm_jax.data.caption_words import (
    Word,
    following,
    has_gendered_pronoun,
    is_function,
    replaced,
)

_FAR = 'in the distance'


def turned(caption: str, words: list[Word], true_words: frozenset[str]) -> Iterator[str]:
    """Captions with one attribute turned into its opposite, or with one number changed.

    None whose new word is among ``true_words``: then it is true of something that is heard.
    """
    far = re.search(rf'\b{_FAR}\b', temporal.masked(caption), re.IGNORECASE)
    if far and 'nearby' not in true_words:
        yield replaced(caption, (*far.span(), 'nearby'))
    for i, word in enumerate(words):
        opposite = _opposite(words, i)
        if opposite and opposite.split()[-1] not in true_words:
            yield replaced(caption, (word.start, word.stop, opposite))
        if _is_count(words, i):
            for number in lexicon.NUMBERS:
                if number not in true_words:
                    yield replaced(caption, (word.start, word.stop, number))


def exchanged(caption: str, words: list[Word]) -> Iterator[str]:
    """Captions in which two opposite attributes, or two numbers, have changed places."""
    if has_gendered_pronoun(words):
        return
    counts = [_is_count(words, i) for i in range(len(words))]
    opposites = [_opposite(words, i) for i in range(len(words))]
    for i, j in itertools.combinations(range(len(words)), 2):
        one, other = words[i], words[j]
        are_numbers = counts[i] and counts[j] and one.text != other.text
        are_opposites = opposites[i] == other.text or (opposites[j] and opposites[j] == one.text)
        if (are_numbers or are_opposites) and _are_of_different(words, i, j):
            changes = (one.start, one.stop, other.text), (other.start, other.stop, one.text)
            yield replaced(caption, *changes)


def _opposite(words: list[Word], i: int) -> str:
    """The opposite of an attribute in its place; '' where it is none, or has none."""
    word, after = words[i].text, following(words, i)
    if word not in lexicon.OPPOSITES or (i and words[i - 1].text in lexicon.NOT_AFTER):
        return ''
    only = lexicon.ONLY_BEFORE.get(word)
    is_note = re.fullmatch('[a-g]', after) is not None
    if only and after not in only.split(',') and not is_note:
        return ''
    if word in lexicon.GENDER and has_gendered_pronoun(words):
        return ''
    if word == 'nearby' and is_function(after):
        return _FAR
    if word == 'distant' and is_function(after):
        return ''
    return lexicon.OPPOSITES[word]


def _is_count(words: list[Word], i: int) -> bool:
    """Whether word i is a number above one that counts a plural."""
    after = following(words, i)
    if words[i].text not in lexicon.NUMBERS or not after:
        return False
    if after in lexicon.ADJECTIVES:
        after = following(words, i + 1)
    is_plural = after in lexicon.PLURALS or re.search(r'[^s]s$', after)
    return bool(is_plural) and not (
        i and words[i - 1].text in (*lexicon.NUMBERS, 'one', 'or', 'to')
    )


def _are_of_different(words: list[Word], i: int, j: int) -> bool:
    """Whether attributes i and j are said of different things: it matters which has which."""
    one, other = following(words, i), following(words, j)
    if is_function(one) or is_function(other) or j == i + 1:
        return False
    return temporal.stem(one) != temporal.stem(other)
