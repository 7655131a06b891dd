"""The little English that captions need: articles, plurals, lists, sentences inside sentences.

Rules of thumb for captions of sound, not a grammar: what they do not know they leave as it is.
"""

import functools
import re
from collections.abc import Sequence

from alm_jax.text.languages import NAMES

SENTENCE_END = re.compile(r'[.!?]["\')]?$')
_KEEPS_CAPITAL = frozenset(['I', 'Indian', *(name for name in NAMES.values() if ' ' not in name)])
# Spelt with a vowel but spoken with a consonant ('a unicycle', not 'a unidentified sound').
_SPOKEN_CONSONANT = re.compile(r'(uni(?![nm]|d(?!irec))|us[aeiu]|ut[ei]|eu|ewe|uk|ur[aoe]|onc?e\b)')
_SPOKEN_VOWEL = re.compile(r'([aeiou]|hour|honest|hono|heir|8|1[18](th)?\b)')
_LETTERS_SPOKEN_VOWEL = frozenset('AEFHILMNORSX')
_ARTICLE = re.compile(r'\b([Aa])n?(\s+["\']?)(?=[\w])(?=([\w-]+))')
_IRREGULAR_PLURALS = {
    'child': 'children',
    'deer': 'deer',
    'fish': 'fish',
    'foot': 'feet',
    'goose': 'geese',
    'human': 'humans',
    'knife': 'knives',
    'leaf': 'leaves',
    'mouse': 'mice',
    'person': 'people',
    'sheep': 'sheep',
    'wolf': 'wolves',
}


def article(word: str) -> str:
    """'a' or 'an', by how ``word`` is spoken: an hour, a unicycle, an FM radio."""
    if word.isupper() and len(word) <= 3 and word.isalpha():
        return 'an' if word[0] in _LETTERS_SPOKEN_VOWEL else 'a'
    word = word.lower()
    is_vowel = _SPOKEN_VOWEL.match(word) and not _SPOKEN_CONSONANT.match(word)
    return 'an' if is_vowel else 'a'


def with_article(phrase: str) -> str:
    """'old dog' -> 'an old dog'."""
    return f'{article(phrase.split()[0])} {phrase}'


def fix_articles(text: str, start: int = 0, stop: int | None = None) -> str:
    """``text`` with every a/an that begins within [start, stop) as its next word asks.

    A capital A inside a sentence is left alone: it is a note, or a letter.
    """

    def fixed(match: re.Match) -> str:
        letter, space, word = match.groups()
        is_inside = start <= match.start() < (len(text) if stop is None else stop)
        is_article = (
            letter == 'a' or not match.start() or text[: match.start()].rstrip()[-1] in '.!?'
        )
        if not is_inside or not is_article:
            return match.group()
        return letter + article(word)[1:] + space

    return _ARTICLE.sub(fixed, text)


@functools.lru_cache(maxsize=4096)
def plural(noun: str) -> str:
    """Of a countable noun, by its last word: 'police car' -> 'police cars'."""
    *before, last = noun.split(' ')
    return ' '.join([*before, _plural_word(last)])


def _plural_word(word: str) -> str:
    if word in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[word]
    if word.endswith('man'):
        return word[:-2] + 'en'
    if re.search(r'[^aeiou]y$', word):
        return word[:-1] + 'ies'
    return word + ('es' if re.search(r'(s|x|z|ch|sh)$', word) else 's')


def third_person(verb: str) -> str:
    """'cry' -> 'cries'."""
    return _plural_word(verb)


def gerund(verb: str) -> str:
    """'run' -> 'running', of verbs of one syllable that end in one vowel and one consonant."""
    if re.search(r'[^eo]e$', verb):
        return verb[:-1] + 'ing'
    doubles = re.fullmatch(r'[^aeiou]*[aeiou][bdgklmnprt]', verb)
    return verb + (verb[-1] if doubles else '') + 'ing'


def listed(items: Sequence[str]) -> str:
    """'a, b and c'."""
    *before, last = items
    return f'{", ".join(before)} and {last}' if before else last


def sentence(text: str) -> str:
    """With a capital and a full stop; what ends a sentence already keeps its end."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if SENTENCE_END.search(text) else text + '.'


def clause(text: str) -> str:
    """A sentence as part of a longer one: 'A dog barks.' -> 'a dog barks'."""
    text = re.sub(r'\.(["\'])$', r'\1', text.strip().rstrip('.!?'))
    first = text.split()[0].rstrip(',') if text.strip() else ''
    keeps = first in _KEEPS_CAPITAL or first.startswith("I'") or first[1:] != first[1:].lower()
    return text if keeps else text[:1].lower() + text[1:]


def normalised(text: str) -> str:
    """Case, punctuation and spacing removed: texts that read alike are equal."""
    return ' '.join(re.findall(r'\w+', text.casefold()))
