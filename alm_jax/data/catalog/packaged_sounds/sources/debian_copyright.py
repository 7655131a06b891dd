"""Licence and author of a file, from a machine-readable debian/copyright.

Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/ (DEP-5).
"""

import fnmatch
import re
from typing import NamedTuple

# What packages write -> SPDX identifiers; others are kept as written.
_SPDX = {
    'CC0': 'CC0-1.0',
    'GPL-2': 'GPL-2.0-only',
    'GPL-2+': 'GPL-2.0-or-later',
    'GPL-3': 'GPL-3.0-only',
    'GPL-3+': 'GPL-3.0-or-later',
    'free-art': 'LAL-1.3',
}


class Statement(NamedTuple):
    """Licence and copyright holders of the files that match ``patterns``."""

    patterns: tuple[str, ...]
    licence: str
    author: str


def parse(text: str) -> list[Statement]:
    """The Files paragraphs, in order."""
    statements = []
    for paragraph in re.split(r'\n\s*\n', text):
        fields = dict(re.findall(r'^([\w-]+):((?:.*)(?:\n[ \t].*)*)', paragraph, re.MULTILINE))
        if 'Files' in fields and 'License' in fields:
            licence = fields['License'].strip().splitlines()[0].strip()
            holders = [_holder(line) for line in fields.get('Copyright', '').splitlines()]
            author = ', '.join(dict.fromkeys(filter(None, holders)))
            patterns = tuple(fields['Files'].split())
            statements.append(Statement(patterns, _SPDX.get(licence, licence), author))
    return statements


def find(statements: list[Statement], path: str) -> Statement:
    """The last statement that matches ``path``, as the format rules; an empty one if none does."""
    for statement in reversed(statements):
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in statement.patterns):
            return statement
    return Statement((), '', '')


def _holder(line: str) -> str:
    """'2014-2016 Jane Doe <jane@x.org>' -> 'Jane Doe'."""
    return re.sub(r'^[\d\s,-]*(?:by\s+)?|\s*<[^>]*>', '', line.strip()).strip()
