"""Articles, plurals and clauses."""

import pytest

from alm_jax.data import english


@pytest.mark.parametrize(
    'phrase',
    [
        *('a dog', 'an owl', 'an hour', 'a horn', 'a unicycle', 'a unique tone', 'a ukulele'),
        *('an unidentified noise', 'an uninterrupted hum', 'a user', 'an umbrella', 'a one-off'),
        *('a European siren', 'an FM radio', 'a TV', 'an SUV', 'a UFO', 'an 8-bit tune', 'an 11th'),
        *('a NASA rocket', 'an honest voice', 'a house', 'an A', 'a B', 'an F', 'a utility van'),
    ],
)
def test_articles(phrase):
    article, rest = phrase.split(' ', 1)
    assert english.article(rest.split()[0]) == article
    assert english.with_article(rest) == phrase
    for wrong in ('a', 'an'):
        assert english.fix_articles(f'We hear {wrong} {rest}.') == f'We hear {phrase}.'
        made = english.fix_articles(f'{wrong.capitalize()} {rest}. Yes.')
        assert made == f'{article.capitalize()} {rest}. Yes.'


def test_a_note_is_no_article():
    assert english.fix_articles('Someone plays A on a piano.') == 'Someone plays A on a piano.'
    assert english.fix_articles('A open string.') == 'An open string.'


def test_only_the_articles_asked_for_are_touched():
    assert english.fix_articles('a owl and a owl', 10) == 'a owl and an owl'
    assert english.fix_articles('a owl and a owl', 0, 5) == 'an owl and a owl'


@pytest.mark.parametrize(
    ('one', 'many'),
    [
        ('dog', 'dogs'),
        ('bus', 'buses'),
        ('fly', 'flies'),
        ('donkey', 'donkeys'),
        ('woman', 'women'),
        ('human', 'humans'),
        ('child', 'children'),
        ('police car', 'police cars'),
        ('hair dryer', 'hair dryers'),
        ('wolf', 'wolves'),
        ('sheep', 'sheep'),
        ('torch', 'torches'),
    ],
)
def test_plurals(one, many):
    assert english.plural(one) == many


@pytest.mark.parametrize(
    ('verb', 'third', 'gerund'),
    [
        ('bark', 'barks', 'barking'),
        ('cry', 'cries', 'crying'),
        ('hiss', 'hisses', 'hissing'),
        ('run', 'runs', 'running'),
        ('screech', 'screeches', 'screeching'),
        ('wail', 'wails', 'wailing'),
        ('rattle', 'rattles', 'rattling'),
        ('blow', 'blows', 'blowing'),
        ('play', 'plays', 'playing'),
        ('yap', 'yaps', 'yapping'),
        ('moo', 'moos', 'mooing'),
        ('bleat', 'bleats', 'bleating'),
    ],
)
def test_verbs(verb, third, gerund):
    assert english.third_person(verb) == third
    assert english.gerund(verb) == gerund


def test_lists():
    assert english.listed(['rain']) == 'rain'
    assert english.listed(['rain', 'wind']) == 'rain and wind'
    assert english.listed(['rain', 'wind', 'a dog']) == 'rain, wind and a dog'


@pytest.mark.parametrize(
    ('text', 'clause', 'sentence'),
    [
        ('A dog barks.', 'a dog barks', 'A dog barks.'),
        ('rain', 'rain', 'Rain.'),
        ('Is it a dog?', 'is it a dog', 'Is it a dog?'),
        ('Finnish speech.', 'Finnish speech', 'Finnish speech.'),
        ('  FM radio ', 'FM radio', 'FM radio.'),
        ("He says: 'Go!'", "he says: 'Go!'", "He says: 'Go!'"),
    ],
)
def test_clauses_and_sentences(text, clause, sentence):
    assert english.clause(text) == clause
    assert english.sentence(text) == sentence
