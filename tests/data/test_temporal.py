"""What captions say about time, and the captions that say otherwise."""

import itertools

import pytest

from alm_jax.data import temporal

DOG, BELL, STEPS = 'a dog barks', 'a bell rings', 'footsteps on gravel'
# All of them tell of a dog, then of a bell.
FORWARD = (
    '{0}, then {1}',
    '{0} then {1}',
    '{0} and then {1}',
    '{0}. Then {1}',
    '{0}, and finally {1}',
    '{0} before {1}',
    '{0} just before {1}',
    '{0} followed by {1}',
    '{0}, followed by {1}',
    '{0} and is followed by {1}',
    '{0}, then followed by {1}',
    '{1} after {0}',
    '{1} shortly after {0}',
    '{1}, preceded by {0}',
    'before {1}, {0}',
    'after {0}, {1}',
    'first {0}, then {1}',
)


@pytest.mark.parametrize('wording', FORWARD)
@pytest.mark.parametrize('style', [str, lambda text: text[0].upper() + text[1:] + '.'])
def test_the_order_of_every_wording(wording, style):
    caption = style(wording.format(DOG, BELL))
    assert temporal.parse(caption).heard() == (DOG, BELL)
    assert temporal.meaning(caption) == (('dog barks',), ('bell rings',))


@pytest.mark.parametrize('wording', FORWARD)
@pytest.mark.parametrize('style', [str, lambda text: text[0].upper() + text[1:] + '.'])
def test_misordering_is_an_involution_on_the_meaning(wording, style):
    caption = style(wording.format(DOG, BELL))
    false = temporal.misordered(caption)
    assert false
    for text in false:
        assert temporal.parse(text).heard() == (BELL, DOG)
        assert text[0].isupper() == caption[0].isupper()
        assert text.endswith('.') == caption.endswith('.')
        back = temporal.misordered(text)
        assert {temporal.meaning(again) for again in back} == {temporal.meaning(caption)}


@pytest.mark.parametrize(
    ('caption', 'false'),
    [
        (
            'A man speaks followed by a dog barking',
            {'A man speaks preceded by a dog barking'},
        ),
        (
            'Speech followed by applause',
            {'Speech preceded by applause', 'Applause followed by speech'},
        ),
        ('A man talks before leaving', {'A man talks after leaving'}),
        (
            'an engine hums and then a horn honks',
            {'a horn honks and then an engine hums'},
        ),
        (
            'A dog barks, then a bell rings, then rain falls.',
            {
                'Rain falls, then a bell rings, then a dog barks.',
                'A bell rings, then a dog barks, then rain falls.',
                'A dog barks, then rain falls, then a bell rings.',
            },
        ),
    ],
)
def test_misordered(caption, false):
    assert set(temporal.misordered(caption)) == false


@pytest.mark.parametrize(
    'caption',
    [
        'A dog barks.',
        'A dog barks while a bell rings.',
        'A dog barks as a bell rings and a cat meows.',
        'A dog barks and a bell rings at the same time.',
        'A car starts then stops',  # the car has left the sentence
        'A man talks and then he laughs',
        'A dog barks, then a dog barks again',
        'A woman speaks, then a woman talks loudly',  # said of one thing in two ways
        'A dog barks, then a large brown dog barks at somebody far away',
        'A man talks, then a dog barks at him',
        'A bell rings after a pause',
        'A dog barks one after another',
        'A dog barks then silence',
        'A dog barks before a bell after a horn',  # which one is first?
        "A person says: 'Ring before you enter, then wait.'",
        'A voice says "Come after me."',
        'Thereafter the beforehand.',
        '',
    ],
)
def test_what_has_no_order_has_no_other(caption):
    assert temporal.misordered(caption) == []


def test_simultaneous_events_have_one_meaning():
    captions = [
        'A dog barks while a bell rings.',
        'A bell rings as the dog barks',
        'a dog barks and a bell rings',
    ]
    assert len({temporal.meaning(caption) for caption in captions}) == 1
    assert temporal.meaning(captions[0]) != temporal.meaning('A dog barks, then a bell rings')


def test_three_parts_keep_their_links():
    chain = 'First a dog barks, then footsteps on gravel, and finally a bell rings.'
    orders = {temporal.parse(text).heard() for text in temporal.misordered(chain)}
    assert orders < set(itertools.permutations([DOG, STEPS, BELL]))
    assert (DOG, STEPS, BELL) not in orders


@pytest.mark.parametrize(
    ('words', 'verb'),
    [
        ('barks barking barked bark', 'bark'),
        ('talking talks speaks says', 'speak'),
        ('running runs idling', 'run'),
        ('cries crying wails sobbing', 'cry'),
        ('clapping applause', None),
    ],
)
def test_stems(words, verb):
    stems = {temporal.stem(word) for word in words.split()}
    assert stems == ({verb} if verb else {'applaud', 'applause'})


def test_clauses():
    for clause in ('a dog barks', 'birds chirp', 'the engine is running', 'A voice says: "Go"'):
        assert temporal.is_clause(clause)
    for phrase in ('a dog barking', 'footsteps on gravel', 'the sound of drips', 'loud knocks'):
        assert not temporal.is_clause(phrase)
