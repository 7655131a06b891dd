"""Instructions and responses from what a record knows."""

import numpy as np
import pytest

from alm_jax.data import instructions, record, sources
from alm_jax.data.captions import TextError

SECOND = np.zeros(16_000, np.int16)
SPEECH = {'kind': 'speech', 'language': 'pt-BR', 'transcript': ' Bom\ndia. '}


def turn(question, answer, dialogue=0):
    return {'question': question, 'answer': answer, 'dialogue': dialogue}


def every(draws=300, is_whole=True, **fields):
    """Task -> set of (instruction, response), over 300 keys."""
    source = record.make_record(SECOND, 16_000, **fields)
    found = {}
    for key in range(draws):
        rng = np.random.Generator(np.random.Philox(key=key))
        turns, task = instructions.instruct(source, rng, is_whole)
        assert task in instructions.TASKS
        found.setdefault(task, set()).add(tuple(turns))
    return found


def responses(found, task):
    return {response for ((_, response),) in found[task]}


def test_every_task_that_a_record_allows():
    found = every(captions=['A dog barks.', 'Barking.'], label='dog', tags=['Animal', 'Bark'])
    assert set(found) == {'captioning', 'classification', 'tagging'}
    assert responses(found, 'captioning') == {'A dog barks.', 'Barking.'}
    assert responses(found, 'classification') == {'dog'}
    assert responses(found, 'tagging') == {'dog, animal, bark'}
    found = every(**SPEECH)
    assert set(found) == {'transcription', 'language'}
    assert responses(found, 'transcription') == {'Bom dia.'}
    assert responses(found, 'language') == {'Portuguese'}


def test_wordings_vary_and_differ_between_tasks():
    found = every(600, captions=['A dog barks.'], label='dog', tags=['loud'], **SPEECH)
    asked = {task: {instruction for ((instruction, _),) in made} for task, made in found.items()}
    assert all(len(wordings) > 1 for wordings in asked.values())
    everything = [wording for wordings in asked.values() for wording in wordings]
    assert len(everything) == len(set(everything))


def test_the_question_for_a_class_fits_its_kind():
    instrument = {
        text for ((text, _),) in every(label='piano', kind='instrument')['classification']
    }
    assert instrument == {
        'Which instrument is playing?',
        'Name the instrument.',
        'On what is this played? Answer with the name only.',
    }
    unknown = {text for ((text, _),) in every(label='piano')['classification']}
    assert not instrument & unknown


def test_a_part_is_not_transcribed():
    assert set(every(is_whole=False, **SPEECH)) == {'language'}
    with pytest.raises(TextError, match='a transcript of more than is heard'):
        every(is_whole=False, transcript='Hello.')


def test_languages_without_a_name_are_not_asked_for():
    assert set(every(**{**SPEECH, 'language': 'qqq'})) == {'transcription'}
    assert set(every(captions=['Rain.'], language='en', kind='sound')) == {'captioning'}


def test_own_questions_go_before_everything_else():
    found = every(captions=['A dog barks.'], turns=[turn('Is it a dog?', 'Yes.')])
    assert found == {'closed_question': {(('Is it a dog?', 'Yes.'),)}}


@pytest.mark.parametrize(
    ('question', 'answer', 'task'),
    [
        ('How many dogs bark?', 'two', 'closed_question'),
        (
            'Which is it?\n(A) a dog (B) a cat',
            'It is (A), for it barks.',
            'closed_question',
        ),
        ('Choose: 1. rain 2. wind', 'The second of them, the wind.', 'closed_question'),
        ('Why does the dog bark?', 'Somebody has come to the door.', 'open_question'),
    ],
)
def test_closed_and_open_questions(question, answer, task):
    found = every(20, turns=[turn(question, answer)])
    assert found == {task: {((' '.join(question.split()), answer),)}}


def test_dialogues_keep_their_turns_in_order():
    first = [turn(f'Question {i}?', f'The answer is number {i}.', 7) for i in range(3)]
    second = [turn('Alone?', 'Yes.', 2)]
    mixed = [first[0], second[0], first[1], first[2]]
    found = every(turns=mixed)
    assert found['dialogue'] == {tuple((t['question'], t['answer']) for t in first)}
    assert found['closed_question'] == {(('Alone?', 'Yes.'),)}


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'turns': [turn('Why?', ' ')]}, 'without an answer'),
        ({'turns': [turn('', 'Yes.')]}, 'without an answer'),
        ({}, 'nothing to ask about'),
    ],
)
def test_nothing_to_ask(fields, message):
    with pytest.raises(TextError, match=message):
        every(1, **fields)


def test_real_records(packaged_tiny):
    """Every packaged recording can be asked about; nothing is said that it does not say."""
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    tasks = set()
    for row in range(0, len(source), 5):
        example = source.read(row)
        rng = np.random.Generator(np.random.Philox(key=row))
        ((_, response),), task = instructions.instruct(example, rng)
        tasks.add(task)
        if task == 'captioning':
            assert response in [' '.join(text.split()) for text in example['captions']]
        if task == 'transcription':
            assert response == ' '.join(example['transcript'].split())
        if task == 'language':
            assert response == 'English'
    assert tasks == {'captioning', 'classification', 'tagging', 'transcription', 'language'}
