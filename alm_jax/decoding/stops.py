"""Texts that end where one of a few strings begins, and the words of tokens as they come."""

from collections.abc import Sequence

import tokenizers
from tokenizers.decoders import DecodeStream


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """(``text`` up to where the first of ``stops`` begins, whether there is any)."""
    places = [place for place in map(text.find, stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def held(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of one of ``stops``."""
    longest = min(max(map(len, stops), default=1) - 1, len(text))
    return next(
        (n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0
    )


class Pieces:
    """One row's tokens turned into text piece by piece, up to a stop string.

    A piece never ends inside of a character: bytes of one that is not complete wait for its rest,
    and are dropped when there is none. What may be the beginning of a stop string waits, too.

    Attributes:
      ended: whether a stop string came.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, stops: Sequence[str] = ()):
        """``stops`` are strings that are no part of the text, and end it."""
        self.ended = False
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._stream = DecodeStream(skip_special_tokens=True)
        self._waiting = ''

    def add(self, ids: Sequence[int]) -> str:
        """The text that these further tokens complete; '' after a stop string."""
        if self.ended:
            return ''
        words = (self._stream.step(self._tokenizer, int(token)) for token in ids)
        text, self.ended = cut(self._waiting + ''.join(filter(None, words)), self._stops)
        ready = len(text) - (0 if self.ended else held(text, self._stops))
        self._waiting = text[ready:]
        return text[:ready]

    def rest(self) -> str:
        """What waits when no token comes any more."""
        text, self._waiting = ('' if self.ended else self._waiting), ''
        return text
