"""The questions of an evaluation: a record's own, or made of the labels."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alm_jax.data.captions import clean
from alm_jax.data.instructions import is_closed
from alm_jax.data.record import stable_hash
from alm_jax.evals.metrics.answers import choices_of, chosen

TASKS = ('choice', 'closed', 'open')
_OF_LABELS = 'Which sound is this? '


class Question(NamedTuple):
    """One question about a record.

    Attributes:
      row: of the record.
      history: earlier turns of its dialogue, with their reference answers.
      text: what is asked.
      answers: all that count as right.
      choices: that the question lists; () when it lists none.
      right: which of them is the answer, None without choices.
    """

    row: int
    history: tuple[tuple[str, str], ...]
    text: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    right: int | None = None

    @property
    def task(self) -> str:
        """One of TASKS: listed choices, else an answer of at most three words, else any other."""
        if self.choices:
            return 'choice'
        return 'closed' if is_closed(self.text, self.answers[0]) else 'open'


def of_turns(row: int, turns: Sequence[Mapping[str, Any]]) -> list[Question]:
    """The questions of a record's turns; one that is asked several times has several answers.

    A later turn of a dialogue is asked after the earlier ones with their reference answers.
    """
    dialogues: dict[int, list] = collections.defaultdict(list)
    for turn in turns:
        question, answer = clean(turn['question']), clean(turn['answer'])
        if question and answer:
            dialogues[turn['dialogue']].append((_lines(turn['question']), answer))
    asked: dict[tuple, list[str]] = {}
    for dialogue in dialogues.values():
        for place, (question, answer) in enumerate(dialogue):
            history = tuple(turn for turn in dialogue[:place] if turn[0] != question)
            asked.setdefault((history, question), []).append(answer)
    return [_question(row, *key, answers) for key, answers in asked.items()]


def of_labels(row_labels: Sequence[str], ids: Sequence[str], choices: int) -> Iterator[Question]:
    """One question a record: its label among others that occur, in an order drawn by its id."""
    present = sorted(set(row_labels))
    for row, (label, record_id) in enumerate(zip(row_labels, ids)):
        rng = np.random.default_rng(stable_hash(f'choices {record_id}'))
        others = [name for name in present if name != label]
        listed = [label, *rng.choice(others, min(choices - 1, len(others)), replace=False)]
        listed = [str(listed[i]) for i in rng.permutation(len(listed))]
        marked = ' '.join(f'({chr(ord("A") + i)}) {name}' for i, name in enumerate(listed))
        right = listed.index(label)
        yield Question(row, (), _OF_LABELS + marked, (label,), tuple(listed), right)


def _question(row: int, history: tuple, text: str, answers: Sequence[str]) -> Question:
    choices = choices_of(text)
    right = chosen(answers[0], choices) if choices else None
    if right is None:
        choices = ()
    return Question(row, history, text, tuple(dict.fromkeys(answers)), choices, right)


def _lines(text: str) -> str:
    """Clean, with its line breaks: choices may stand on lines of their own."""
    return '\n'.join(line for line in map(clean, text.splitlines()) if line)
