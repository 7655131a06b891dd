"""Rendered scenes: the audio is what the caption says."""

import numpy as np
import pytest

from alm_jax.data import sources, synthetic
from alm_jax.data.synthetic import LOUDNESS, RATE, SOUNDS, Event, describe, render_scene


@pytest.fixture(scope='module')
def test_split():
    return sources.open_source('synthetic_scenes:test', '/nowhere')


def test_a_record_is_a_function_of_split_and_index(test_split):
    again = synthetic.SyntheticScenes('test')
    other = synthetic.SyntheticScenes('validation')
    assert (test_split[3]['audio'] == again.read(3)['audio']).all()
    assert test_split[3]['captions'] == again.read(3)['captions']
    assert any(test_split[i]['captions'] != other.read(i)['captions'] for i in range(5))


def test_columns_hold_the_lengths_without_rendering(test_split):
    for i in range(20):
        assert len(test_split[i]['audio']) == test_split.columns['num_samples'][i]
    assert len(set(test_split.columns['id'])) == len(test_split)


def test_scenes_vary(test_split):
    captions = {test_split._reader._fields(i)['captions'][0] for i in range(len(test_split))}
    assert len(captions) > 0.6 * len(test_split)  # there are 90 scenes of one event


@pytest.mark.parametrize('sound', SOUNDS)
def test_the_count_of_repetitions_is_the_count_of_bursts(sound):
    for count in (1, 2, 3):
        audio = render_scene([Event(sound, count, 'loud', key=1)])
        once = round(SOUNDS[sound].seconds * RATE)
        step = once + round(synthetic._GAP * RATE)
        assert len(audio) == (count - 1) * step + once
        for i in range(count):
            assert (audio[i * step : i * step + once] == audio[:once]).all()
            assert not audio[i * step + once : (i + 1) * step].any()


@pytest.mark.parametrize('sound', SOUNDS)
def test_loudness_words_order_the_peaks(sound):
    peaks = {
        word: np.abs(render_scene([Event(sound, 1, word, key=1)])).max() / 32_767
        for word in LOUDNESS
    }
    for word, peak in peaks.items():
        assert peak == pytest.approx(LOUDNESS[word], abs=1e-4)


def test_sounds_of_different_names_sound_different():
    """A spectrogram's mean, spread and course over 20 pitches finds its sound from 20 others."""

    def profile(name, key):
        audio = render_scene([Event(name, 1, 'loud', key)])[:4000] / 32_768
        frames = np.lib.stride_tricks.sliding_window_view(audio, 256)[::128] * np.hanning(256)
        spectrogram = np.log10(np.abs(np.fft.rfft(frames)) ** 2 + 1e-6)
        early, late = np.array_split(spectrogram, 2)
        spread = spectrogram.std(0)
        return np.concatenate([spectrogram.mean(0), spread, late.mean(0) - early.mean(0)])

    first, second = (
        np.array([np.mean([profile(name, key) for key in keys], axis=0) for name in SOUNDS])
        for keys in (range(20), range(20, 40))
    )
    distances = ((first[:, None] - second[None]) ** 2).sum(-1)
    others = distances + np.diag(np.full(len(SOUNDS), np.inf))
    assert (np.diag(distances) < 0.5 * others.min(axis=1)).all()


def test_sweeps_go_where_they_say():
    for name, direction in (('rising sweep', 1), ('falling sweep', -1)):
        audio = render_scene([Event(name, 1, 'loud', key=5)])
        crossings = [np.count_nonzero(np.diff(np.sign(half))) for half in np.array_split(audio, 2)]
        assert np.sign(crossings[1] - crossings[0]) == direction


def test_captions():
    bell = Event('bell', 2, 'loud', key=0)
    alarm = Event('engine', 1, '', key=0)
    assert describe([bell], 0) == 'Two loud bell strokes.'
    assert describe([bell, alarm], 0) == 'Two loud bell strokes, then an engine hum.'
    assert describe([bell, alarm], 3) == 'An engine hum after two loud bell strokes.'


def test_probe_pairs_differ_in_binding_alone():
    pairs = synthetic.probe_pairs(40, seed=0)
    assert [pair['probe'] for pair in pairs] == ['order', 'attribute'] * 20
    for pair in pairs:
        assert pair['caption'] == pair['captions'][0] != pair['swapped_caption']
        words = [sorted(_words(pair[name])) for name in ('caption', 'swapped_caption')]
        assert words[0] == words[1]
        assert len(pair['audio']) == len(pair['swapped_audio'])
        assert (pair['audio'] != pair['swapped_audio']).any()
        if pair['probe'] == 'order':  # the same samples, elsewhere
            assert (np.sort(pair['audio']) == np.sort(pair['swapped_audio'])).all()
    again = synthetic.probe_pairs(40, seed=0)
    assert all((a['audio'] == b['audio']).all() for a, b in zip(pairs, again))
    assert synthetic.probe_pairs(1, seed=1)[0]['caption'] != pairs[0]['caption']


def _words(caption):
    return caption.lower().replace(',', '').replace('.', '').replace('an ', 'a ').split()
