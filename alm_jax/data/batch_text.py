"""The texts of rows as token ids: all of a batch in one call of the tokenizer."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Tokenizer = Callable[..., dict[str, np.ndarray]]
# What a row holds as text -> the prefix of its arrays. A packed row has several captions.
_PREFIXES = {'caption': '', 'captions': '', 'negatives': 'negative_', 'instruction': 'prompt_'}
# What describes a row to people and to evaluators; no array is made of it.
_DESCRIPTIONS = ('task', 'response', 'turns')


def tokenise(
    rows: Sequence[dict[str, Any]], tokenizer: Tokenizer, length: int, negatives: int = 0
) -> None:
    """Replaces the texts of rows by arrays, in place.

    Args:
      rows: of transforms. 'caption' becomes 'token_ids' int32 [t] and 'token_mask' bool [t], the
        'captions' of a pack [s, t], 'negatives' 'negative_token_ids' [k, t], 'instruction'
        'prompt_token_ids' [t]; each with its mask, all False where there is no text.
      tokenizer: (texts, lengths) -> {'token_ids': int32 [n, t], 'token_mask': bool [n, t]}.
      length: t.
      negatives: k; rows have at most so many.
    """
    texts: list[str] = []
    places: list[tuple[dict[str, Any], str, tuple[int, ...], list[int]]] = []
    for row in rows:
        for name, prefix in _PREFIXES.items():
            if name in row:
                shape, found = _slots(name, row.pop(name), negatives)
                numbers = [slot for slot, text in enumerate(found) if text]
                places.append((row, prefix, shape, numbers))
                texts += [text for text in found if text]
        for name in _DESCRIPTIONS:
            row.pop(name, None)
    if not texts:
        return
    tokens = tokenizer(texts, (length,))
    used = 0
    for row, prefix, shape, numbers in places:
        for name, array in tokens.items():
            out = np.zeros((int(np.prod(shape)), *array.shape[1:]), array.dtype)
            out[numbers] = array[used : used + len(numbers)]
            row[prefix + name] = out.reshape(*shape, *array.shape[1:])
        used += len(numbers)


def _slots(name: str, value: Any, negatives: int) -> tuple[tuple[int, ...], list[str]]:
    """(shape before the tokens' axis, a text or '' for each slot)."""
    if name in ('caption', 'instruction'):
        return (), [value]
    if name == 'captions':
        return (len(value),), list(value)
    if value and not isinstance(value[0], str):  # of each segment of a pack
        filled = [[*texts, *[''] * (negatives - len(texts))] for texts in value]
        return (len(value), negatives), [text for texts in filled for text in texts]
    return (negatives,), [*value, *[''] * (negatives - len(value))]
