"""Split units of speech: recordings that say the same words must not be torn apart."""

import unicodedata
from collections.abc import Iterable, Mapping


def text_groups(texts: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Joins keys that share a text, directly or through others; case and punctuation do not count.

    Args:
      texts: split key -> every text said or shown under it, in whatever languages.

    Returns:
      split key -> name of its group, the smallest key in it.
    """
    parent = {key: key for key in texts}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    owner: dict[str, str] = {}
    for key in sorted(texts):
        for text in texts[key]:
            words = _words(text)
            if not words:
                continue
            first, second = sorted((root(owner.setdefault(words, key)), root(key)))
            parent[second] = first
    return {key: root(key) for key in texts}


def _words(text: str) -> str:
    """Letters, their marks (vowel signs of Malayalam, Hebrew points) and digits, case folded."""
    kept = (c if unicodedata.category(c)[0] in 'LMN' else ' ' for c in text.casefold())
    return ' '.join(''.join(kept).split())
