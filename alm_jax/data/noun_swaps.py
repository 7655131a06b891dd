"""False captions by nouns: one replaced by a noun of another class, or two that change places."""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from alm_jax.data import english, lexicon, temporal
from alm_jax.data.caption_words import Word, following, has_gendered_pronoun, replaced

Pool = Mapping[str, Sequence[str]]
_SINGULAR, _PLURAL, _MASS = 'singular', 'plural', 'mass'
_REPLACEMENTS = 4  # tried for each noun


class _Form(NamedTuple):
    noun: str  # as in the pool
    class_name: str
    number: str


class _Found(NamedTuple):
    first: int  # number of its first word
    last: int
    form: _Form


def other_nouns(
    caption: str,
    words: list[Word],
    true_words: frozenset[str],
    pool: Pool,
    rng: np.random.Generator,
) -> Iterator[str]:
    """Captions with one noun replaced, or two exchanged. See ``hard_negatives``."""
    forms = _forms(tuple((name, tuple(nouns)) for name, nouns in pool.items()))
    found = [noun for noun in _find(words, forms) if _is_replaceable(words, noun)]
    classes = {form.noun: lexicon.DOING.get(form.class_name, '') for form in forms.values()}
    for noun in found:
        others = _others(noun.form, pool, true_words)
        for i in rng.permutation(len(others))[:_REPLACEMENTS].tolist():
            other = _in_number(others[i], noun.form.number)
            doing = _doing(words, noun, lexicon.DOING.get(others[i], classes.get(others[i], '')))
            yield replaced(caption, (*_span(words, noun), other), *doing)
    for one, other in itertools.combinations(found, 2):
        if _are_exchangeable(words, one, other):
            a, b = _span(words, one), _span(words, other)
            texts = caption[slice(*a)].lower(), caption[slice(*b)].lower()
            yield replaced(caption, (*a, texts[1]), (*b, texts[0]))


@functools.lru_cache(maxsize=16)
def _forms(pool: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, _Form]:
    """Every form of the nouns of a pool, lower case."""
    forms = {}
    for class_name, nouns in pool:
        for noun in nouns:
            number = _MASS if noun in lexicon.MASS else _SINGULAR
            forms[noun.lower()] = _Form(noun, class_name, number)
            if number == _SINGULAR:
                many = english.plural(noun).lower()
                if many != noun.lower():  # one sheep and two sheep cannot be told apart
                    forms[many] = _Form(noun, class_name, _PLURAL)
    return forms


def _find(words: list[Word], forms: Mapping[str, _Form]) -> Iterator[_Found]:
    """The nouns of a caption, the longest at each place: 'police car', not 'car'."""
    i = 0
    while i < len(words):
        for size in (3, 2, 1):
            part = words[i : i + size]
            text = ' '.join(word.text for word in part)
            if text in forms and not any(word.ends for word in part[:-1]):
                yield _Found(i, i + len(part) - 1, forms[text])
                i += len(part) - 1
                break
        i += 1


def _is_replaceable(words: list[Word], noun: _Found) -> bool:
    """Whether the noun is the head of its phrase, and what stands before it fits other nouns."""
    if noun.form.class_name == 'person' and has_gendered_pronoun(words):
        return False
    return _is_head(words, noun) and _is_free(words, noun)


def _is_head(words: list[Word], noun: _Found) -> bool:
    """By the word after it: 'a car honks', but not 'a car alarm' or 'a train of clicks'."""
    after = following(words, noun.last)
    if after == 'of':
        return False
    if not after or after in lexicon.FUNCTION_WORDS or re.search(r'(ing|ed|ly)$', after):
        return True
    if not temporal.stem(after, ''):
        return False
    is_third_person = after.endswith('s') and after not in lexicon.PLURALS
    return is_third_person if noun.form.number != _PLURAL else after in lexicon.VERBS


def _is_free(words: list[Word], noun: _Found) -> bool:
    """By the words before it: 'a loud guitar', but not 'an electric guitar' or 'a speech'."""
    i = noun.first - 1
    while i >= 0 and not words[i].ends and words[i].text in lexicon.ADJECTIVES:
        i -= 1
    before = '' if i < 0 or words[i].ends else words[i].text
    if noun.form.number == _MASS and before in lexicon.DETERMINERS - {'some', 'the'}:
        return False
    is_open = before in lexicon.DETERMINERS or before in lexicon.FUNCTION_WORDS or not before
    is_open = is_open or before == 'then'
    return is_open or before.endswith('ing') or bool(temporal.stem(before, ''))


def _others(form: _Form, pool: Pool, true_words: frozenset[str]) -> list[str]:
    """Nouns of classes that are not kin of the noun's, none of which is said to be heard."""
    others = []
    for class_name, nouns in pool.items():
        is_near = class_name == form.class_name or {class_name, form.class_name} in lexicon.KIN
        if not is_near:
            others += [
                noun
                for noun in nouns
                if (noun in lexicon.MASS) == (form.number == _MASS)
                and noun not in lexicon.GENERIC
                and not true_words & {noun, *noun.split(), english.plural(noun)}
            ]
    return others


def _in_number(noun: str, number: str) -> str:
    return english.plural(noun) if number == _PLURAL else noun


def _doing(words: list[Word], noun: _Found, verb: str) -> list[tuple[int, int, str]]:
    """The change that has the noun do ``verb``: 'barks', 'barking' or 'is barking' becomes it.

    None where ``verb`` is '', or where what follows the noun is no verb that is known.
    """
    i = noun.last + 1
    if verb and following(words, noun.last) in ('is', 'are'):
        i += following(words, i) != ''
    if not verb or not following(words, noun.last) or not temporal.stem(words[i].text, ''):
        return []
    text, start, stop, _ = words[i]
    if text.endswith('ing') and text not in lexicon.VERBS:
        form = english.gerund(verb)
    elif text in lexicon.VERBS:
        form = verb
    elif text.endswith('s'):
        form = english.third_person(verb)
    else:
        return []
    return [(start, stop, form)]


def _are_exchangeable(words: list[Word], one: _Found, other: _Found) -> bool:
    """Whether both do something, and not the same: 'a dog barks while a cat meows'."""
    if one.form.number != other.form.number or one.form.noun == other.form.noun:
        return False
    is_generic = {one.form.noun, other.form.noun} & lexicon.GENERIC
    if is_generic and one.form.class_name == other.form.class_name:
        return False
    verbs = [temporal.stem(following(words, noun.last), '') for noun in (one, other)]
    return all(verbs) and verbs[0] != verbs[1]


def _span(words: list[Word], noun: _Found) -> tuple[int, int]:
    return words[noun.first].start, words[noun.last].stop
