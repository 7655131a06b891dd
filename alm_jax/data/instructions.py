"""Instructions with their responses: what a record knows, asked for in words.

The tasks are those of Pengi (arXiv:2305.11834), LTU (arXiv:2305.10790) and SALMONN
(arXiv:2310.13289); the wordings are ours. A dataset's own questions and answers are kept as they
are, in their order, so that a closed question stays closed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alm_jax.data import captions
from alm_jax.data.captions import TextError, clean
from alm_jax.text.languages import NAMES, language_name

TASKS = (
    'captioning',
    'classification',
    'tagging',
    'transcription',
    'language',
    'closed_question',
    'open_question',
    'dialogue',
)
_CLOSED_WORDS = 3  # of an answer that is a choice, a count, yes or no
_CHOICES = re.compile(r'(?:^|\s|\()[A-Da-d1-4][).:]\s')
_WORDINGS = {
    'captioning': (
        'Describe what can be heard.',
        'What is going on in this recording?',
        'Write one sentence about this audio.',
        'Put the content of this clip into words.',
        'What do you hear?',
        'Give a short description of the audio.',
    ),
    'tagging': (
        'List what this recording contains, separated by commas.',
        'Which keywords fit this audio?',
        'Tag this clip.',
        'Give keywords for what you hear.',
    ),
    'transcription': (
        'Write down what is said.',
        'Transcribe the speech.',
        'What are the words that are spoken?',
        'Give the exact words of the speaker.',
    ),
    'language': (
        'Which language is spoken?',
        'In what language is this said?',
        'Name the language of the speaker.',
    ),
}
_CLASSES = {
    'sound': (
        'Which sound is this?',
        'Name the sound in this recording.',
        'What makes this sound? Answer with its name only.',
    ),
    'instrument': (
        'Which instrument is playing?',
        'Name the instrument.',
        'On what is this played? Answer with the name only.',
    ),
    'music': (
        'Which word describes this music best?',
        'To which class does this music belong?',
    ),
    'speech': (
        'Which word describes this speech best?',
        'To which class does this speech belong?',
    ),
}
_ANY_CLASS = ('To which class does this audio belong?', 'Name the class of this recording.')


class Turn(NamedTuple):
    """What is asked, and the answer."""

    instruction: str
    response: str


def instruct(
    record: Mapping[str, Any], rng: np.random.Generator, is_whole: bool = True
) -> tuple[list[Turn], str]:
    """An instruction for a record, or a dialogue, drawn by ``rng``.

    A record with turns of its own gives one of its dialogues; any other one of the tasks that its
    captions, label, tags, transcript and language allow, in one of several wordings.

    Args:
      record: see ``alm_jax.data.record``.
      rng: makes every choice.
      is_whole: whether all of the audio is used; of a part the transcript is not true.

    Returns:
      (turns in order, at least one; the task, one of TASKS).

    Raises:
      TextError: a record that nothing can be asked about, or a turn without a question or answer.
    """
    if record['turns']:
        return _dialogue(record['turns'], rng)
    possible = _tasks(record, is_whole)
    if not possible:
        said = ' but a transcript of more than is heard' if record['transcript'] else ''
        raise TextError(f'the record has nothing to ask about{said}.')
    task = list(possible)[int(rng.integers(len(possible)))]
    responses, wordings = possible[task]
    wording = wordings[int(rng.integers(len(wordings)))]
    return [Turn(wording, responses[int(rng.integers(len(responses)))])], task


def to_describe(caption: str, rng: np.random.Generator) -> tuple[list[Turn], str]:
    """The captioning task with ``caption`` as its response."""
    wordings = _WORDINGS['captioning']
    return [Turn(wordings[int(rng.integers(len(wordings)))], caption)], 'captioning'


def _dialogue(
    turns: Sequence[Mapping[str, Any]], rng: np.random.Generator
) -> tuple[list[Turn], str]:
    numbers = list(dict.fromkeys(turn['dialogue'] for turn in turns))
    number = numbers[int(rng.integers(len(numbers)))]
    chosen = [
        Turn(clean(turn['question']), clean(turn['answer']))
        for turn in turns
        if turn['dialogue'] == number
    ]
    if not all(turn.instruction and turn.response for turn in chosen):
        raise TextError('the record has a question without an answer, or an answer without one.')
    if len(chosen) > 1:
        return chosen, 'dialogue'
    return chosen, 'closed_question' if is_closed(*chosen[0]) else 'open_question'


def is_closed(question: str, answer: str) -> bool:
    """Whether a question leaves few answers: it lists choices, or its answer is a word or three."""
    return len(_CHOICES.findall(question)) > 1 or len(answer.split()) <= _CLOSED_WORDS


def _tasks(
    record: Mapping[str, Any], is_whole: bool
) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """Task -> (responses to draw from, wordings to draw from)."""
    own = [text for text in map(clean, record['captions']) if text]
    label, tags = captions.keywords(record)
    said = clean(record['transcript'])
    responses = {
        'captioning': own,
        'classification': [label] if label else [],
        'tagging': [', '.join([label, *tags] if label else tags)] if tags else [],
        'transcription': [said] if said and is_whole else [],
        'language': [language_name(record['language'])] if _is_spoken(record) else [],
    }
    wordings = _WORDINGS | {'classification': _CLASSES.get(record['kind'], _ANY_CLASS)}
    return {task: (texts, wordings[task]) for task, texts in responses.items() if texts}


def _is_spoken(record: Mapping[str, Any]) -> bool:
    """Whether the record is speech in a language that has a name here."""
    code = re.split('[-_@]', record['language'])[0].lower()
    return code in NAMES and (record['kind'] == 'speech' or bool(record['transcript']))
