"""Joined and mixed clips, and the English that says so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.data import scenes, temporal

RATE = 16_000
few = settings(max_examples=25, deadline=None, derandomize=True)


def generator(seed=0):
    return np.random.Generator(np.random.Philox(key=seed))


def tone(pitch, seconds, amplitude):
    t = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * pitch * t)).astype(np.float32)


def rms(clip):
    return float(np.sqrt(np.mean(np.square(clip, dtype=np.float64))))


def power_at(clip, pitch):
    t = np.arange(len(clip)) / RATE
    return abs(np.mean(clip * np.exp(-2j * np.pi * pitch * t)))


def test_levels_meet_in_the_middle():
    quiet, loud = scenes.even_levels([tone(300, 1, 0.1), tone(500, 1, 0.4)])
    assert rms(quiet) == pytest.approx(rms(loud), rel=1e-3)
    assert rms(quiet) == pytest.approx(np.sqrt(0.1 * 0.4) / np.sqrt(2), rel=1e-2)


def test_levels_change_by_twelve_decibels_at_most():
    faint, loud = scenes.even_levels([tone(300, 1, 0.0005), tone(500, 1, 0.9)])
    assert rms(faint) == pytest.approx(4 * 0.0005 / np.sqrt(2), rel=1e-2)
    assert rms(loud) == pytest.approx(0.9 / 4 / np.sqrt(2), rel=1e-2)


def test_silence_stays_silence():
    silence, other = scenes.even_levels([np.zeros(100, np.float32), tone(300, 1, 0.5)])
    assert not silence.any()
    assert rms(other) == pytest.approx(0.5 / np.sqrt(2), rel=1e-2)
    assert not any(clip.any() for clip in scenes.even_levels([np.zeros(9, np.float32)] * 2))


@few
@given(
    st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(1e-4, 1.0)), min_size=2, max_size=4),
    st.integers(0, 2**32),
)
def test_scenes_stay_within_full_scale_and_length(clips, seed):
    waveforms = [tone(300 + 200 * i, seconds, a) for i, (seconds, a) in enumerate(clips)]
    lengths = [len(waveform) for waveform in waveforms]
    joined = scenes.join(waveforms, RATE, generator(seed))
    overlaid = scenes.overlay(waveforms, generator(seed))
    assert 0 <= len(joined) - sum(lengths) <= scenes.longest_gaps(len(clips), RATE)
    assert len(overlaid) == max(lengths)
    for made in (joined, overlaid):
        assert made.dtype == np.float32
        assert np.abs(made).max() <= 1.0 + 1e-6


def test_joined_clips_come_in_order_without_clicks():
    clips = [tone(300, 0.5, 0.3), tone(900, 0.5, 0.3)]
    joined = scenes.join(clips, RATE, generator())
    first, last = joined[: RATE // 2], joined[-RATE // 2 :]
    assert power_at(first, 300) > 20 * power_at(first, 900)
    assert power_at(last, 900) > 20 * power_at(last, 300)
    assert np.abs(joined[[0, RATE // 2 - 1, -RATE // 2, -1]]).max() < 1e-3
    assert np.array_equal(clips[0], tone(300, 0.5, 0.3))  # the input is not written to


def test_overlaid_clips_sound_together():
    long, short = tone(300, 1.0, 0.3), tone(900, 0.4, 0.3)
    mixed = scenes.overlay([short, long], generator())
    added = mixed - long
    where = np.flatnonzero(np.abs(added) > 1e-4)
    assert where[-1] - where[0] < len(short)
    assert np.allclose(added[where[0] - 1 : where[0] - 1 + len(short)], short, atol=2e-4)


DOG, GLASS, STEPS = 'A dog barks.', 'Glass breaks', 'Footsteps on gravel.'


def every(function, captions):
    return {function(captions, generator(seed)) for seed in range(100)}


def test_two_joined_captions():
    assert every(scenes.joined_caption, [DOG, STEPS]) == {
        'A dog barks, then footsteps on gravel.',
        'A dog barks, followed by footsteps on gravel.',
        'Footsteps on gravel, preceded by a dog barks.',
        'A dog barks before footsteps on gravel.',
        'Footsteps on gravel after a dog barks.',
    }


def test_three_joined_captions():
    assert every(scenes.joined_caption, [DOG, GLASS, STEPS]) == {
        'A dog barks, then glass breaks, and finally footsteps on gravel.',
        'First a dog barks, then glass breaks, then footsteps on gravel.',
    }


def test_overlaid_captions():
    assert every(scenes.overlaid_caption, [DOG, STEPS]) == {
        'A dog barks and, at the same time, footsteps on gravel.',
        'A dog barks and footsteps on gravel at the same time.',
    }
    assert 'A dog barks while a bell is ringing.' in every(
        scenes.overlaid_caption, [DOG, 'A bell is ringing.']
    )
    assert 'A dog barks, glass breaks and footsteps on gravel at the same time.' in every(
        scenes.overlaid_caption, [DOG, GLASS, STEPS]
    )


def test_misordered_captions_are_false():
    made = scenes.misordered_captions([DOG, STEPS], generator(1))
    assert len(made) == 2
    assert temporal.parse(made[0]).heard() == ('footsteps on gravel', 'a dog barks')
    assert 'same time' in made[1]
    made = scenes.misordered_captions([DOG, GLASS, STEPS], generator(1))
    orders = [temporal.parse(text).heard() for text in made[:-1]]
    true = ('a dog barks', 'glass breaks', 'footsteps on gravel')
    assert true[::-1] in orders
    assert true not in orders
    assert len(set(orders)) == 3
    assert all(sorted(order) == sorted(true) for order in orders)


def test_sentences_are_misordered_too():
    made = scenes.misordered_captions(['A dog barks. It is far away.', GLASS], generator())
    assert made[0] == 'Glass breaks. Then a dog barks. It is far away.'


@pytest.mark.parametrize(
    'captions',
    [
        [DOG, 'a dog barks'],
        [DOG, 'A dog is barking loudly.'],
        [DOG, GLASS, 'Glass is breaking.'],
        ['A man speaks.', 'A man talks.'],
    ],
)
def test_captions_alike_have_no_wrong_order(captions):
    assert scenes.misordered_captions(captions, generator()) == []


def test_every_wording_of_a_scene_tells_its_order():
    """What T-CLAP calls a positive and a negative are told apart by the parser of captions."""
    true = ('a dog barks', 'glass breaks')
    for text in every(scenes.joined_caption, [DOG, GLASS]):
        assert temporal.parse(text).heard() == true
    for text in every(scenes.joined_caption, [GLASS, DOG]):
        assert temporal.parse(text).heard() == true[::-1]
    for text in every(scenes.overlaid_caption, [DOG, GLASS]):
        assert temporal.parse(text) is None


def test_more_captions_than_a_sentence_holds():
    made = scenes.joined_caption([DOG, GLASS, STEPS, DOG], generator())
    assert made == 'A dog barks. Then glass breaks. Then footsteps on gravel. Then a dog barks.'


@pytest.mark.parametrize(
    'composed',
    ['A dog barks. It is far away.', 'A dog barks, then a cat hisses.', 'A bell after a horn.'],
)
def test_composed_captions_stay_sentences(composed):
    made = scenes.joined_caption([composed, GLASS], generator())
    assert made == f'{composed} Then glass breaks.'
    made = scenes.overlaid_caption([GLASS, composed], generator())
    assert made == f'Glass breaks. At the same time, a{composed[1:]}'


@pytest.mark.parametrize(
    ('caption', 'clause'),
    [
        ('A dog barks.', 'a dog barks'),
        ('  Rain falls!  ', 'rain falls'),
        ('I hear a dog.', 'I hear a dog'),
        ("I'm here.", "I'm here"),
        ('English speech.', 'English speech'),
        ('TV noise.', 'TV noise'),
        ("A voice says: 'Added.'", "a voice says: 'Added'"),
        ('A voice says "What?"', 'a voice says "What?"'),
    ],
)
def test_clauses(caption, clause):
    assert scenes.joined_caption([GLASS, caption], generator(_then_seed())) == _ended(
        f'Glass breaks, then {clause}'
    )


def _then_seed():
    """A seed that draws the wording 'A, then B'."""
    return next(
        seed
        for seed in range(100)
        if scenes.joined_caption(['a', 'b'], generator(seed)) == 'A, then b.'
    )


def _ended(text):
    return text if text.endswith(('?"',)) else text + '.'
