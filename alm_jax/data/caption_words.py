"""The words of a caption with their places, and how to put others in."""

import re
from typing import NamedTuple

from alm_jax.data import english, lexicon, temporal

_WORD = re.compile(r'[^\W\d_]+(?:-[^\W\d_]+)*')
_BREAK = re.compile(r'[,.;:!?"]')


class Word(NamedTuple):
    """A word of a caption.

    Attributes:
      text: lower case.
      start, stop: its place in the caption.
      ends: whether a phrase ends after it: with the text, or at a comma.
    """

    text: str
    start: int
    stop: int
    ends: bool


def words_of(caption: str) -> list[Word]:
    """The words outside quotations."""
    text = temporal.masked(caption)
    found = list(_WORD.finditer(text))
    nexts = [*(match.start() for match in found[1:]), len(text)]
    return [
        Word(
            match.group().lower(),
            *match.span(),
            following == len(text) or bool(_BREAK.search(text, match.end(), following)),
        )
        for match, following in zip(found, nexts)
    ]


def replaced(caption: str, *changes: tuple[int, int, str]) -> str:
    """``caption`` with spans (start, stop) replaced; capitals and articles follow."""
    for start, stop, new in sorted(changes, reverse=True):
        if caption[start].isupper():
            new = new[:1].upper() + new[1:]
        caption = caption[:start] + new + caption[stop:]
        caption = english.fix_articles(caption, max(0, start - 3), start)
    return caption


def following(words: list[Word], i: int) -> str:
    """The word after word i; '' where a phrase ends between them."""
    return '' if words[i].ends else words[i + 1].text


def is_function(word: str) -> bool:
    """Whether a word cannot be what an attribute is said of. '' is the end of a phrase."""
    return not word or word in lexicon.FUNCTION_WORDS or word in lexicon.DETERMINERS


def has_gendered_pronoun(words: list[Word]) -> bool:
    """Whether a change of gender would leave a pronoun behind that does not agree."""
    return any(word.text in lexicon.GENDERED_PRONOUNS for word in words)
