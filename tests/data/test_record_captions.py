"""The caption of a record: its own, or made from keywords or a transcript."""

import numpy as np
import pytest

from alm_jax.data import captions, record, sources

SECOND = np.zeros(16_000, np.int16)


def made_of(**fields):
    return record.make_record(SECOND, 16_000, **fields)


def every(draws=150, keyword_share=0.0, is_whole=True, **fields):
    """All captions that 150 keys give."""
    source = made_of(**fields)
    generators = (np.random.Generator(np.random.Philox(key=key)) for key in range(draws))
    return [captions.choose(source, rng, keyword_share, is_whole) for rng in generators]


def said(**fields):
    return {caption.text for caption in every(**fields)}


@pytest.mark.parametrize(
    ('text', 'clean'),
    [
        ('A dog\u00a0barks.', 'A dog barks.'),
        ('  a\tdog \r\n barks\x00\x1b ', 'a dog barks'),
        ('\ufeffA d\u00adog\u200b barks', 'A dog barks'),
        ('Größe — “quoted”', 'Größe — “quoted”'),
        ('\u2028', ''),
    ],
)
def test_clean(text, clean):
    assert captions.clean(text) == clean


def test_own_captions_are_cleaned_and_chosen_alike():
    chosen = every(300, captions=[' One.', 'Two.\n', '  '], tags=['dog'])
    assert {caption.made_from for caption in chosen} == {'caption'}
    texts = [caption.text for caption in chosen]
    assert set(texts) == {'One.', 'Two.'}
    assert 120 < texts.count('One.') < 180


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
def test_keyword_share(share):
    chosen = every(400, share, captions=['One.'], tags=['dog'])
    count = sum(caption.made_from == 'keywords' for caption in chosen)
    assert abs(count - 400 * share) <= 4 * np.sqrt(400 * share * (1 - share))
    assert all(('dog' in c.text) == (c.made_from == 'keywords') for c in chosen)


def test_no_tags_no_keywords():
    assert {c.made_from for c in every(keyword_share=1.0, captions=['One.'])} == {'caption'}


def test_sounds():
    assert said(tags=['Dog', 'rain', 'owl']) == {
        'The sound of a dog, rain and an owl.',
        'A recording of a dog, rain and an owl.',
        'One can hear a dog, rain and an owl.',
        'A dog, rain and an owl can be heard.',
        'Audio with the sound of a dog, rain and an owl.',
        'A dog, rain and an owl.',
    }


@pytest.mark.parametrize(
    ('tag', 'phrase'),
    [
        ('Male speech, man speaking', 'male speech'),
        ('dog_bark', 'a dog bark'),
        ('crying_baby', 'a crying baby'),
        ('Dog (domestic)', 'a dog'),
        ('air_conditioner', 'an air conditioner'),
        ('vacuum_cleaner', 'a vacuum cleaner'),
        ('dog barking', 'a dog barking'),
        ('church_bells', 'church bells'),
        ('Applause', 'applause'),
        ('the sea', 'the sea'),
        ('two dogs', 'two dogs'),
        ('FM radio', 'FM radio'),
        ('#field-recording;', 'field-recording'),
        ('birds chirp', 'birds chirp'),
        ('a dog barks', 'a dog barks'),
        ('A', 'A'),
    ],
)
def test_phrases(tag, phrase):
    assert captions.phrase(captions.plain_words(tag)) == phrase


def test_label_with_tags():
    texts = said(label='piano', tags=['low', 'A', 'soft'], kind='instrument')
    assert texts == {
        'The sound of a piano: low, A, soft.',
        'A recording of a piano, tagged low, A, soft.',
        'A piano can be heard: low, A, soft.',
    }


def test_music_and_speech_make_no_claim_of_what_a_tag_is():
    assert 'Music: rock, mellow.' in said(label='rock', tags=['mellow'], kind='music')
    assert 'Speech: angry.' in said(label='angry', kind='speech')
    assert not any('sound of' in text for text in said(label='angry', kind='speech'))


def test_a_label_among_the_tags_is_said_once():
    assert 'The sound of a dog.' in said(label='dog', tags=['Dog', 'dog', ''])


def test_times_are_the_last_keywords():
    times = [{'onset': 0.0, 'offset': 1.0, 'text': 'a dog barks'}]
    assert said(times=times) == {'A dog barks.', 'Sounds: a dog barks.'}
    assert not any('bark' in text for text in said(times=times, tags=['rain']))


def test_many_tags_are_drawn_in_order():
    tags = [f'tag{letter}' for letter in 'abcdefgh']
    seen = set()
    for text in map(str.lower, said(tags=tags)):
        found = [tag for tag in tags if tag in text]
        seen |= set(found)
        assert len(found) == 5
        assert [text.index(tag) for tag in found] == sorted(text.index(tag) for tag in found)
    assert seen == set(tags)


def test_braces_are_text():
    assert 'The sound of {0} and {x}.' in said(tags=['{0}', '{x}'])
    assert 'A voice says: "Say {label} {}"' in said(transcript='Say {label} {}')


def test_transcripts():
    chosen = every(transcript=' Hello\nthere. ')
    assert {caption.made_from for caption in chosen} == {'transcript'}
    assert 'A person says: "Hello there."' in {caption.text for caption in chosen}
    with pytest.raises(captions.TextError, match='longer than the window'):
        every(transcript='Hello there.', is_whole=False)


@pytest.mark.parametrize('fields', [{}, {'captions': [' \n']}, {'tags': ['', '(x)']}])
def test_no_text(fields):
    with pytest.raises(captions.TextError, match='no caption, no tags and no label'):
        every(**fields)


def test_keywords_of_real_records(packaged_tiny):
    """Every label and tag of the packaged recordings makes a sentence."""
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    rng = np.random.default_rng(0)
    made = 0
    for row in range(0, len(source), 5):
        example = source.read(row)
        if example['label'] or example['tags']:
            text, made_from = captions.choose(example, rng, 1.0)
            assert made_from == 'keywords'
            assert text[0].isupper()
            assert text.endswith('.')
            assert example['label'].lower() in text.lower()
            made += 1
    assert made > 50
