"""The tables of METEOR 1.5 for English, from the package that ships its program. No Java is run.

``pip install alm_jax[meteor]`` brings pycocoevalcap (104 MB), which holds meteor-1.5.jar (function
words, and WordNet 3.0's synonyms and irregular forms) and its table of paraphrases.
"""

import functools
import gzip
import importlib.util
import pathlib
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_JAR = 'meteor/meteor-1.5.jar'
_PARAPHRASES = 'meteor/data/paraphrase-en.gz'
_EXCEPTIONS = 'synonym/english.exceptions'
_LONGEST = 7  # words of a phrase of the table
# (ending, what stands for it), in the order in which WordNet's morphy tries them
_ENDINGS = (
    *(('s', ''), ('ses', 's'), ('xes', 'x'), ('zes', 'z'), ('ches', 'ch'), ('shes', 'sh')),
    *(('men', 'man'), ('ies', 'y'), ('s', ''), ('ies', 'y'), ('es', 'e'), ('es', '')),
    *(('ed', 'e'), ('ed', ''), ('ing', 'e'), ('ing', ''), ('er', ''), ('est', '')),
    *(('er', 'e'), ('est', 'e')),
)


class Tables(NamedTuple):
    """What METEOR knows of the words of some texts.

    Attributes:
      function_words: those that count less.
      synsets: word -> numbers of its meanings.
      bases: irregular form -> words.
      paraphrases: phrase -> phrases that mean the same, as far as both are in the texts.
    """

    function_words: frozenset[str]
    synsets: Mapping[str, frozenset[str]]
    bases: Mapping[str, Sequence[str]]
    paraphrases: Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]

    def meanings(self, word: str) -> frozenset[str]:
        """Of a word and of what it is a form of."""
        bases = self.bases.get(word) or [self._base(word)]
        return frozenset().union(*(self.synsets.get(w, ()) for w in (word, *bases)))

    def _base(self, word: str) -> str:
        if word.endswith('ss') or len(word) <= 2:
            return word
        for ending, instead in _ENDINGS:
            base = word[: -len(ending)] + instead
            if word.endswith(ending) and base in self.synsets:
                return base
        return ''


def folder() -> pathlib.Path | None:
    """Where the tables are installed; None where they are not."""
    spec = importlib.util.find_spec('pycocoevalcap')
    for place in (spec and spec.submodule_search_locations) or ():
        if (pathlib.Path(place) / _JAR).is_file():
            return pathlib.Path(place)
    return None


def read(place: pathlib.Path, texts: Iterable[Sequence[str]]) -> Tables:
    """The tables for these texts; reads all 5 million paraphrases, which takes some seconds.

    Args:
      place: from ``folder``.
      texts: words of each; of paraphrases only those are kept of which both sides are in them.
    """
    found = {
        tuple(words[start:end])
        for words in texts
        for start in range(len(words))
        for end in range(start + 1, min(start + _LONGEST, len(words)) + 1)
    }
    phrases = {' '.join(phrase) + '\n': phrase for phrase in found}
    paraphrases: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    with gzip.open(place / _PARAPHRASES, 'rt', encoding='utf-8') as lines:
        for _, phrase, other in zip(lines, lines, lines):  # a probability, and two phrases
            if phrase in phrases and other in phrases:
                paraphrases.setdefault(phrases[phrase], []).append(phrases[other])
    return Tables(*_from_jar(place), paraphrases)


@functools.cache
def _from_jar(place: pathlib.Path):
    with zipfile.ZipFile(place / _JAR) as jar:
        functions, synsets, exceptions = (
            jar.read(name).decode('utf-8').split('\n')
            for name in ('function/english.words', 'synonym/english.synsets', _EXCEPTIONS)
        )
    bases: dict[str, list[str]] = {}
    for base, forms in zip(exceptions[::2], exceptions[1::2]):
        for form in forms.split():
            bases.setdefault(form, []).append(base)
    meanings = {w: frozenset(s.split()) for w, s in zip(synsets[::2], synsets[1::2])}
    return frozenset(functions) - {''}, meanings, bases


def normalised(words: Sequence[str]) -> list[str]:
    """Lower-case words as METEOR's option -norm splits them: well known, it ' s, am for a.m."""
    text = re.sub(r"([^\w\s.,'`-]|_)", r' \1 ', ' '.join(words))
    text = re.sub(r'([^\W_])-([^\W_])', r'\1 \2', text)  # of a-b-c the first alone
    text = re.sub(r"(?<![^\W\d_])'(?=\S)", " ' ", text)
    text = re.sub(r"(?<=[^\W\d_])'(?![^\W\d_])", " ' ", text)
    text = re.sub(r"(?<=[^\W\d_])'(?=[^\W\d_])", " '", text)
    found = text.split()
    for place, word in enumerate(found):
        following = found[place + 1][:1] if place + 1 < len(found) else ''
        if re.fullmatch(r'[^\W\d_]+(?:\.[^\W\d_]+)+\.', word):
            found[place] = word.replace('.', '')
        elif word.endswith('.') and not following.islower() and word not in ('vs.', 'rev.'):
            found[place] = f'{word[:-1]} .'
    return ' '.join(found).split()
