"""Written dialogues as token ids, with places for vectors of audio and what is to be predicted."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alm_jax.data.captions import TextError
from alm_jax.text.dialogue import Dialogue, DialogueError, Piece, Turn
from alm_jax.text.language_tokenizer import LanguageTokenizer

AUDIO = -1  # stands where a vector of audio does


class Encoded(NamedTuple):
    """A dialogue as a model reads it.

    Attributes:
      token_ids: int32 [t], AUDIO for each vector of audio.
      loss_mask: bool [t], what is to be predicted: answers and the token that ends each.
      clips: numbers of the clips in the order in which they stand.
    """

    token_ids: np.ndarray
    loss_mask: np.ndarray
    clips: tuple[int, ...]


def encode(
    dialogue: Dialogue,
    turns: Sequence[Turn],
    vectors: Sequence[int],
    *,
    task: str = '',
    language: str = '',
) -> Encoded:
    """Turns as tokens: one way for training and generation.

    What precedes an answer is tokenised without it, so that a model that is to answer has seen just
    these tokens; the answer is tokenised as what follows them.

    Args:
      dialogue: the format.
      turns: (instruction, response); with a last response of None, it ends where the answer begins.
      vectors: of each clip.
      task, language: see ``Dialogue.pieces``.

    Raises:
      TextError: turns that cannot be written.
    """
    try:
        pieces = dialogue.pieces(turns, len(vectors), task=task, language=language)
    except DialogueError as error:
        raise TextError(str(error)) from error
    ids: list[int] = []
    is_answer: list[bool] = []
    clips, before = [], []
    for (is_clip, predicted), run in itertools.groupby(
        pieces, lambda piece: (piece.clip is not None, piece.is_answer)
    ):
        run = list(run)
        if is_clip:
            clips += [piece.clip for piece in run]
            found = [AUDIO] * sum(vectors[piece.clip] for piece in run)
            before = []
        else:
            found = _following(dialogue.tokenizer, before if predicted else [], run)
            before = run
        ids += found
        is_answer += [predicted and not is_clip] * len(found)
    if not ids or is_answer[0]:  # nothing to predict it from, where audio is no part of the text
        tokenizer = dialogue.tokenizer
        ids.insert(0, tokenizer.control[tokenizer.begin or tokenizer.end])
        is_answer.insert(0, False)
    return Encoded(np.array(ids, np.int32), np.array(is_answer, bool), tuple(clips))


def _following(
    tokenizer: LanguageTokenizer, before: Sequence[Piece], run: Sequence[Piece]
) -> list[int]:
    """Ids of a text behind another: as in one text, where that leaves those of the other alone."""
    if before:
        start, whole = [tokenizer.encode(_spans(text)) for text in (before, [*before, *run])]
        if whole[: len(start)] == start:
            return whole[len(start) :]
    return tokenizer.encode(_spans(run))


def _spans(pieces: Sequence[Piece]) -> list[tuple[str, bool]]:
    return [(piece.text, piece.is_markup) for piece in pieces]


def row(sequences: Sequence[Encoded], length: int) -> dict[str, np.ndarray]:
    """Sequences one after another in one row.

    Args:
      sequences: at least one.
      length: t, tokens of the row.

    Returns:
      'token_ids' int32 [t], 0 behind the last; 'segments' int32 [t], 1, 2, ... of each sequence and
      0 behind; 'loss_mask' bool [t].

    Raises:
      TextError: they do not fit. Nothing is cut, as an answer without its end teaches not to end.
    """
    sizes = [len(sequence.token_ids) for sequence in sequences]
    if sum(sizes) > length:
        raise TextError(
            f'it does not fit: {" + ".join(map(str, sizes))} tokens and vectors of audio, and '
            f'config.text.lengths gives {length}.'
        )
    behind = length - sum(sizes)
    numbers = np.repeat(np.arange(1, len(sizes) + 1, dtype=np.int32), sizes)
    return {
        'token_ids': np.pad(np.concatenate([s.token_ids for s in sequences]), (0, behind)),
        'segments': np.pad(numbers, (0, behind)),
        'loss_mask': np.pad(np.concatenate([s.loss_mask for s in sequences]), (0, behind)),
    }
