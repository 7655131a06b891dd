"""Records to rows: audio, caption and groups, all fixed by the key."""

import pickle

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.audio.decode import AudioError
from alm_jax.data import record, row_audio, transforms

RATE, WINDOW = 16_000, 32_000
to_window = transforms.ToWindow(RATE, WINDOW, overlay=0.5)


def example(name='a', seconds=1.0, rate=RATE, pitch=440.0, captions=('A tone sounds.',)):
    t = np.arange(round(seconds * rate)) / rate
    audio = np.round(16_000 * np.sin(2 * np.pi * pitch * t)).astype(np.int16)
    return record.make_record(audio, rate, captions=list(captions), recording_id=name, id=name)


def test_a_short_clip_is_kept_whole_and_padded():
    made = to_window([example(seconds=0.5)], key=1)
    assert made['pcm'].dtype == np.int16
    assert made['pcm'].shape == (WINDOW,)
    assert made['num_samples'] == 8000
    assert (made['pcm'][:8000] == example(seconds=0.5)['audio']).all()
    assert not made['pcm'][8000:].any()
    assert made['caption'] == 'A tone sounds.'


def test_another_rate_is_resampled():
    source = example(seconds=1.0, rate=44_100)
    made = to_window([source], key=1)
    expected = soxr.resample(source['audio'] / 32_768, 44_100, RATE, quality='HQ') * 32_768
    assert made['num_samples'] == RATE
    assert np.abs(made['pcm'][:RATE] - expected).max() <= 1


@pytest.mark.parametrize('rate', [RATE, 44_100, 8_000])
def test_a_long_clip_is_cropped_where_the_key_says(rate):
    source = example(seconds=10, rate=rate)
    source['audio'] = np.arange(10 * rate, dtype=np.int64) * 30_000 // (10 * rate)
    source['audio'] = source['audio'].astype(np.int16)  # a ramp: the level tells the place
    starts = []
    for key in range(40):
        made = to_window([source], key)
        assert made['num_samples'] == WINDOW
        middle = made['pcm'][1000:-1000].astype(float)
        assert middle[-1] - middle[0] == pytest.approx(
            30_000 * (WINDOW - 2000) / (10 * RATE), rel=0.01
        )
        starts.append(middle[0])
    assert max(starts) - min(starts) > 0.6 * 30_000 * (10 * RATE - WINDOW) / (10 * RATE)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 5), st.sampled_from([8_000, 16_000, 22_050, 44_100])),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 2**64 - 1),
)
def test_any_records_make_a_row_that_the_key_fixes(clips, key):
    examples = [example(f'r{i}', s, rate, 200 * i + 300) for i, (s, rate) in enumerate(clips)]
    before = [e['audio'].copy() for e in examples]
    made = to_window(examples, key)
    again = pickle.loads(pickle.dumps(to_window))(examples, key)
    assert all(np.array_equal(made[name], again[name]) for name in made)
    assert made['pcm'].shape == (WINDOW,)
    assert made['pcm'].dtype == np.int16
    assert 1 <= made['num_samples'] <= WINDOW
    assert not made['pcm'][made['num_samples'] :].any()
    assert {made[name].dtype for name in ('num_samples', 'audio_group', 'text_group')} == {
        np.dtype(np.int32)
    }
    assert all((e['audio'] == b).all() for e, b in zip(examples, before))


def test_overlay_probability_and_caption_agree_with_the_sound():
    """A scene whose caption says 'same time' lasts one clip; others last two."""
    examples = [example('a', pitch=300), example('b', pitch=900, captions=['A beep.'])]
    together = 0
    for key in range(200):
        made = to_window(examples, key)
        is_overlaid = 'same time' in made['caption']
        together += is_overlaid
        assert (made['num_samples'] == RATE) == is_overlaid
    assert 75 <= together <= 125


def test_a_joined_scene_holds_a_piece_of_every_clip():
    joining = transforms.ToWindow(RATE, WINDOW, overlay=0.0)
    examples = [
        example('a', 10, pitch=300),
        example('b', 0.5, pitch=900),
        example('c', 10, pitch=2000),
    ]
    made = joining(examples, key=3)
    spectrum = np.abs(np.fft.rfft(made['pcm'].astype(float)))
    bins = [pitch * WINDOW // RATE for pitch in (300, 900, 2000)]
    assert all(spectrum[b - 20 : b + 20].max() > 0.05 * spectrum.max() for b in bins)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(6, 3000))
def test_fair_shares(lengths, room):
    shares = row_audio.fair_shares(lengths, room)
    assert all(1 <= share <= length for share, length in zip(shares, lengths))
    assert sum(shares) <= room
    if sum(lengths) <= room:
        assert shares == lengths
    else:  # what is cut is cut to one length, to a sample a clip
        cut = [share for share, length in zip(shares, lengths) if share < length]
        assert max(cut) - min(cut) <= len(lengths)
        assert sum(shares) >= room - len(lengths)


def test_every_caption_is_chosen_and_no_other():
    source = example(captions=['One.', 'Two.', 'Three.'])
    chosen = [to_window([source], key)['caption'] for key in range(300)]
    assert {caption: 70 <= chosen.count(caption) <= 130 for caption in chosen} == {
        'One.': True,
        'Two.': True,
        'Three.': True,
    }


def test_groups():
    def groups(*examples, key=0):
        made = to_window(examples, key)
        return int(made['audio_group']), int(made['text_group'])

    a, b = example('a'), example('b')
    assert groups(a)[0] != groups(b)[0]
    assert groups(a)[1] == groups(b)[1]  # the same caption
    assert groups(example('a', captions=['a TONE sounds']))[1] == groups(a)[1]
    assert groups(example('a', captions=['Another tone.']))[1] != groups(a)[1]
    assert groups(a, b)[0] == groups(b, a)[0] == groups(a, b, key=9)[0] != groups(a)[0]
    assert groups(a) == (-903656363, -608310419)  # the same in every process and version


@pytest.mark.parametrize(
    ('broken', 'error', 'message'),
    [
        (example(seconds=0.0), AudioError, 'no samples'),
        (example(captions=()), transforms.TextError, 'no caption, no tags and no label'),
    ],
)
def test_an_empty_record_is_an_error(broken, error, message):
    with pytest.raises(error, match=message):
        to_window([broken], key=0)
