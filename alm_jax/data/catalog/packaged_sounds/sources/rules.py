"""What a file name or a title says: tables of (regex, noun phrase, label), first match wins."""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Rule(NamedTuple):
    r"""A regex on the title, the noun phrase it stands for (\1 is a group), and the class or ''."""

    pattern: str
    phrase: str
    label: str = ''


def first(rules: Sequence[tuple[str, ...]], title: str) -> Rule:
    """The first rule whose pattern matches all of ``title``; an empty one when none does."""
    for rule in rules:
        match = re.fullmatch(rule[0], title)
        if match:
            found = Rule(*rule)
            phrase = re.sub(r'[-_]', ' ', match.expand(found.phrase))
            phrase = re.sub(r'\ba (?=[aeiou])', 'an ', phrase)
            return Rule(found.pattern, phrase, found.label)
    return Rule('', '')


def series(name: str) -> str:
    """A name without the number of the take: 'gravel3' -> 'gravel', 'wolf-hit-2' -> 'wolf-hit'."""
    return re.sub(r'[-_. ]*\d+$', '', name)
