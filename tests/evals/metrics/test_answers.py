"""Answers by choice, by MMAU's rule and after normalisation; error rates against jiwer."""

import jiwer
import numpy as np
import pytest
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from alm_jax.evals.metrics.answers import choices_of, chosen, is_answer, mmau_match, normal
from alm_jax.evals.metrics.word_errors import plain, word_errors

CHOICES = ('Dog', 'Cat', 'A hot dog', 'None of these')


@pytest.mark.parametrize(
    ('question', 'choices'),
    [
        ('Which is it? (A) Dog (B) Cat', ('Dog', 'Cat')),
        ('Which is it?\nA. Dog\nB. Cat\nC. A hot dog\nAnswer with a letter.', CHOICES[:3]),
        ('Which?\n(a) 3.5 kHz, (b) 1,000; (c) both', ('3.5 kHz', '1,000', 'both')),
        ('How many? 1) one 2) two', ('one', 'two')),
        ('Is it A. Bach?', ()),
        ('What do you hear?', ()),
        ('Plan C) first. Then A) dog B) cat', ('dog', 'cat')),
    ],
)
def test_the_choices_that_a_question_lists(question, choices):
    assert choices_of(question) == choices


@pytest.mark.parametrize(
    ('response', 'index'),
    [
        ('B', 1),
        ('(b)', 1),
        ('B. Cat', 1),
        ('(D) None of these', 3),
        ('3', 2),
        ('The answer is (C).', 2),
        ('The correct answer is C', 2),
        ('Option B: it meows', 1),
        ('the cat', 1),
        ('It is a cat, I think.', 1),
        ('A hot dog', 2),  # and not the dog in it, nor letter A
        ('This is a hot dog.', 2),
        ('A dog barks', 0),  # no letter A either, but the one choice that is named
        ('A horse neighs', None),
        ('The answer is a horse', None),
        ('a dog or a cat', None),
        ('category', None),
        ('G', None),
        ('', None),
    ],
)
def test_the_choice_that_a_response_takes(response, index):
    assert chosen(response, CHOICES) == index


def test_choices_that_are_numbers_are_not_taken_for_places():
    assert chosen('3', ('2', '3', '4')) == 1
    assert chosen('(C)', ('2', '3', '4')) == 2


@pytest.mark.parametrize(
    ('response', 'right'),
    [
        ('Dog', True),
        ('I hear a dog', True),  # words of no choice do not matter
        ('dog, not a cat', False),
        ('a hot dog', False),
        ('hotdog', False),
        ('', False),
    ],
)
def test_the_rule_of_mmau(response, right):
    assert mmau_match(response, 'Dog', ('Dog', 'Cat', 'Hot Dog')) is right


def test_answers_are_compared_after_normalisation():
    assert normal('The  Dog, barks!') == 'dog barks'
    assert is_answer('A dog.', ['cat', 'The dog'])
    assert not is_answer('dogs', ['dog'])


@pytest.mark.parametrize('text', ["Don't [noise] stop, it's 5 p.m. (now)!", 'Élan  vital: 3½', ''])
def test_plain_is_whispers_basic_normaliser(text):
    assert plain(text) == ' '.join(BasicTextNormalizer()(text).split())


def test_error_rates_of_resamples_are_those_of_the_repeated_corpus():
    said = ['Press one, now.', 'the number is seven', 'goodbye']
    heard = ['press one', 'The number has been seven!', '']
    weights = np.array([[1, 1, 1], [2, 0, 1]])
    found = word_errors(heard, said)(weights)
    for row, times in enumerate(weights):
        rows = np.repeat(np.arange(3), times)
        truth, guess = ([plain(texts[i]) for i in rows] for texts in (said, heard))
        assert found['wer'][row] == pytest.approx(jiwer.wer(truth, guess))
        assert found['cer'][row] == pytest.approx(jiwer.cer(truth, guess))
    assert found['wer'][0] == pytest.approx(4 / 8)
