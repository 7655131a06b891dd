"""The question-answering evaluator on real recordings, with a system whose answers can be told."""

import json

import pytest
from describers import Choosing, Loudness

from alm_jax.config import ConfigError
from alm_jax.evals import questions, result
from alm_jax.evals.answers_page import write_page
from alm_jax.evals.question_answering import QuestionAnswering

CHOICES = 'What is it?\n(A) fire\n(B) a door\n(C) rain'
# file -> turns (question, answer, dialogue)
TURNS = {
    'fire_small.ogg': [(CHOICES, '(A) fire', 0), ('Is it loud?', 'No', 1)],
    'fire_large.ogg': [
        (CHOICES, 'fire', 0),
        ('Is it loud?', 'yes', 1),
        ('Is it loud?', 'loud', 2),  # another person's answer
        ('What do you hear?', 'A large fire burns and crackles.', 3),
    ],
    'doors_door_open.ogg': [
        (CHOICES, 'B', 0),
        ('Is a door heard?', 'Yes', 1),
        ('Does it close?', 'No', 1),  # and then
    ],
}


@pytest.fixture(scope='module')
def data(recordings, tmp_path_factory):
    folder = tmp_path_factory.mktemp('questions')
    lines = []
    for file, turns in TURNS.items():
        (folder / file).symlink_to(recordings / file)
        named = [dict(zip(('question', 'answer', 'dialogue'), turn)) for turn in turns]
        label = 'fire' if 'fire' in file else 'a door'
        lines.append({'file': file, 'caption': label, 'label': label, 'turns': named})
    (folder / 'c.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return f'folder:{folder}?captions=c.jsonl'


@pytest.fixture(scope='module')
def system():
    return Choosing()


@pytest.fixture(scope='module')
def found(system, data):
    return QuestionAnswering(system, data=data).run({}, {})


def test_questions_tasks_and_answers(found):
    asked = {
        (line['id'].rsplit('/', 1)[-1], line['prompt'], line['task']): line['references']
        for line in found.predictions
    }
    assert asked == {
        ('fire_small.ogg', CHOICES, 'choice'): ['(A) fire'],
        ('fire_small.ogg', 'Is it loud?', 'closed'): ['No'],
        ('fire_large.ogg', CHOICES, 'choice'): ['fire'],
        ('fire_large.ogg', 'Is it loud?', 'closed'): ['yes', 'loud'],
        ('fire_large.ogg', 'What do you hear?', 'open'): ['A large fire burns and crackles.'],
        ('doors_door_open.ogg', CHOICES, 'choice'): ['B'],
        ('doors_door_open.ogg', 'Is a door heard?', 'closed'): ['Yes'],
        ('doors_door_open.ogg', 'Does it close?', 'closed'): ['No'],
    }


def test_a_later_turn_follows_the_reference_answers(system, found):
    asked = {turns[-1][0]: turns for _, turns in system.heard}
    assert asked['Does it close?'] == [('Is a door heard?', 'Yes'), ('Does it close?', None)]
    assert asked[CHOICES] == [(CHOICES, None)]
    history = {line['prompt']: line['history'] for line in found.predictions}
    assert history['Does it close?'] == (('Is a door heard?', 'Yes'),)


def test_scores(found):
    # 'yes' and '(A)' throughout: right are two of three choices, two of four closed questions.
    metrics = found.metrics
    assert metrics['choice_accuracy'] == pytest.approx(2 / 3)
    assert metrics['closed_accuracy'] == pytest.approx(2 / 4)
    assert metrics['open_accuracy'] == 0
    assert metrics['accuracy'] == pytest.approx(4 / 8)
    assert metrics['parse_rate'] == 1
    assert metrics['mmau_accuracy'] == 0  # its rule wants the words: '(A)' has none of them
    assert 0 < metrics['minilm_similarity'] < 1
    low, high = metrics['accuracy_ci95']
    assert low <= 0.5 <= high
    # Silence is answered with words that are no answer, and name no choice.
    silence = found.tables['conditions']['silence']
    assert silence['metrics']['accuracy'] == silence['metrics']['parse_rate'] == 0
    assert metrics['over_silence_accuracy'] == pytest.approx(4 / 8)
    assert found.baselines['chance_choice_accuracy'] == pytest.approx(1 / 3)
    assert found.baselines['commonest_closed_accuracy'] == pytest.approx(2 / 4)
    assert found.baselines['silence_accuracy'] == 0


def test_tables(found):
    per_task = {row['task']: row for row in found.tables['per_task']}
    assert {task: row['questions'] for task, row in per_task.items()} == {
        'choice': 3,
        'closed': 4,
        'open': 1,
    }
    assert per_task['choice']['accuracy'] == pytest.approx(2 / 3)
    assert per_task['choice']['silence_accuracy'] == 0
    closed = found.tables['closed_answers']
    row = closed['counts'][closed['references'].index('no')]
    assert row[closed['answers'].index('yes')] == 2
    row = closed['counts'][closed['references'].index('a door')]
    assert row[closed['answers'].index('fire')] == 1


def test_files_and_page(found, tmp_path):
    path = result.write(found, tmp_path, 'question_answering', None, 'c' * 64)
    lines = [json.loads(line) for line in path.with_suffix('.jsonl').read_text().splitlines()]
    assert [line['correct'] for line in lines].count(True) == 4
    page = write_page(path).read_text()
    assert page.count('result relevant') == 4
    assert page.count('<audio ') == 3  # each clip once
    assert 'answers of the model in columns' in page


def test_labels_as_choices(recordings_data):
    system = Loudness()
    evaluator = QuestionAnswering(system, data=recordings_data, choices=3, conditions=())
    found = evaluator.run({}, {})
    assert found.n == 17
    for line in found.predictions:
        assert len(line['choices']) == 3
        assert line['references'][0] in line['choices']
        taken = [c for c in line['choices'] if c in line['prediction'].lower()]
        assert (line['chosen'] is not None) == (len(taken) == 1)
    assert len({line['choices'].index(line['references'][0]) for line in found.predictions}) == 3
    again = QuestionAnswering(system, data=recordings_data, choices=3, conditions=()).run({}, {})
    assert again.predictions == found.predictions


def test_an_answer_that_is_asked_about_twice_is_not_in_its_own_history():
    turns = [{'question': 'Loud?', 'answer': answer, 'dialogue': 0} for answer in ('yes', 'no')]
    (question,) = questions.of_turns(0, turns)
    assert (question.history, question.answers) == ((), ('yes', 'no'))


def test_mistakes_are_named(model, system, recordings_data, data):
    with pytest.raises(ConfigError, match=r'has 0 questions.*choices=4'):
        QuestionAnswering(system, data=recordings_data)
    with pytest.raises(ConfigError, match='choices is 1'):
        QuestionAnswering(system, data=data, choices=1)
    with pytest.raises(ConfigError, match='embeds and writes nothing'):
        QuestionAnswering(model.predictors, data=data)
