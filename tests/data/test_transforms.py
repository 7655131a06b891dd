"""Records to rows: audio, caption and groups, all fixed by the key."""

import dataclasses

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from travelling import travelled

from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError
from alm_jax.data import record, row_audio, row_keys, temporal, transforms

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
    again = travelled(to_window)(examples, key)
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


@pytest.fixture(scope='module')
def files(recordings):
    """Records of real OGG files, stored as bytes."""
    made = {}
    for name in ('default_break_glass.1', 'fire_large', 'doors_door_open', 'fire_small'):
        content = (recordings / f'{name}.ogg').read_bytes()
        num_samples, rate = decode.header(content)
        captions = [f'The sound of {name.split("_")[1]}.']
        made[name] = record.make_record(
            content, rate, num_samples=num_samples, captions=captions, id=name, recording_id=name
        )
    return made


def test_a_file_gives_the_row_of_its_samples(files):
    for name, file in files.items():
        for key in range(5):
            of_file, of_samples = to_window([file], key), to_window([record.decoded(file)], key)
            assert np.abs(of_file['pcm'].astype(int) - of_samples['pcm']).max() <= 1, name
            assert all(np.array_equal(of_file[k], of_samples[k]) for k in of_file if k != 'pcm')


def test_files_and_samples_mix_in_a_scene(files):
    made = to_window([files['fire_large'], example()], key=5)
    again = to_window([record.decoded(files['fire_large']), example()], key=5)
    assert np.abs(made['pcm'].astype(int) - again['pcm']).max() <= 2
    assert made['caption'] == again['caption']


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**64 - 1), st.floats(-5, 40), st.sampled_from(['fire_large', 'fire_small']))
def test_noise_has_the_ratio_in_the_stored_row(files, key, snr_db, noise):
    """Measured back from the int16 row: what was added is the row less the clip without noise."""
    treatment = transforms.Treatment(RATE, snr_db=(snr_db, snr_db))
    quiet = example(seconds=1.0)
    quiet['audio'] = quiet['audio'] // 8  # so that no sum needs the guard
    clip = quiet['audio'].astype(float)
    made = transforms.ToWindow(RATE, WINDOW, treatment=treatment)([quiet], key, noise=files[noise])
    added = made['pcm'][:RATE] - clip
    assert np.abs(made['pcm'].astype(int)).max() < 32_767
    measured = 10 * np.log10(np.mean(clip**2) / np.mean(added**2))
    assert measured == pytest.approx(snr_db, abs=0.01)
    assert not made['pcm'][RATE:].any()


def test_noise_above_full_scale_is_scaled_with_its_clip(files):
    treatment = transforms.Treatment(RATE, snr_db=(-20, -20))
    source = example(seconds=1.0)
    made = transforms.ToWindow(RATE, WINDOW, treatment=treatment)(
        [source], 1, noise=files['fire_large']
    )
    clip, mixed = source['audio'].astype(float), made['pcm'][:RATE].astype(float)
    assert np.abs(mixed).max() in (32_766, 32_767)
    scale = float(mixed @ clip / (clip @ clip))
    measured = 10 * np.log10(np.mean((scale * clip) ** 2) / np.mean((mixed - scale * clip) ** 2))
    assert measured == pytest.approx(-20, abs=1.0)  # the scale is but estimated


def test_noise_does_not_change_what_else_the_key_chooses(files):
    long = example(seconds=10, captions=['One.', 'Two.', 'Three.'])
    for key in range(20):
        plain = to_window([long], key)
        noisy = to_window([long], key, noise=files['fire_large'])
        assert plain['caption'] == noisy['caption']
        assert not np.array_equal(plain['pcm'], noisy['pcm'])
        correlation = np.corrcoef(plain['pcm'], noisy['pcm'])[0, 1]
        assert correlation > 0.8  # the same place of the tone: 5 dB at the worst


def test_purposes_draw_apart():
    def first(key, purpose):
        return int(row_keys.generator(key, purpose).integers(2**63))

    for key in (0, 1, 2**64 - 1):
        drawn = [first(key, purpose) for purpose in row_keys.Purpose]
        assert len(set(drawn)) == len(row_keys.Purpose)
        assert drawn == [first(np.uint64(key), purpose) for purpose in row_keys.Purpose]


def test_gain_stays_in_its_range():
    louder = transforms.ToWindow(RATE, WINDOW, treatment=transforms.Treatment(RATE, 6.0))
    clip = example(seconds=0.5)
    plain = np.sum(to_window([clip], 0)['pcm'].astype(float) ** 2)
    changes = []
    for key in range(300):
        made = louder([clip], key)['pcm']
        changes.append(10 * np.log10(np.sum(made.astype(float) ** 2) / plain))
        assert np.abs(made.astype(int)).max() <= 32_767
    assert -6 <= min(changes) < -5.5
    assert 5.5 < max(changes) <= 6.01
    assert abs(np.mean(changes)) < 0.6


def test_a_room_keeps_the_start_and_adds_a_tail(files):
    room = np.zeros(24_000)
    room[99], room[99 + 8_001] = 20_000, 10_000  # an echo after a sixth of a second, at 48 kHz
    response = record.make_record(room.astype(np.int16), 48_000, id='room', recording_id='room')
    glass = files['default_break_glass.1']
    plain, wet = to_window([glass], 3), to_window([glass], 3, impulse_response=response)
    late = 8_001 // 3
    assert int(wet['num_samples']) - int(plain['num_samples']) == pytest.approx(late, abs=100)
    clip = plain['pcm'].astype(float)
    echo = clip + 0.5 * np.concatenate([np.zeros(late), clip[:-late]])
    assert np.corrcoef(echo, wet['pcm'])[0, 1] > 0.99
    long = to_window([example(seconds=10)], 3, impulse_response=response)
    assert long['num_samples'] == WINDOW


def test_companions_are_named_when_they_fail(files):
    silent = record.make_record(np.zeros(100, np.int16), RATE, id='hall 7')
    with pytest.raises(AudioError, match="impulse response 'hall 7': it is silent"):
        to_window([example()], 0, impulse_response=silent)
    empty = record.make_record(np.zeros(0, np.int16), RATE, id='hiss')
    with pytest.raises(AudioError, match="noise 'hiss': the record holds no samples"):
        to_window([example()], 0, noise=empty)
    made = to_window([example()], 0, noise=silent)
    assert np.array_equal(made['pcm'], to_window([example()], 0)['pcm'])


def several_clips():
    audio = np.concatenate([np.full(n, v, np.int16) for n, v in ((4000, 1), (50_000, 2), (10, 3))])
    fields = {'clip_samples': [4000, 50_000, 10], 'captions': ['Three.'], 'recording_id': 'r'}
    return record.make_record(audio, RATE, **fields)


def test_one_of_several_clips():
    lengths = {1: 4000, 2: WINDOW, 3: 10}
    seen = []
    for key in range(150):
        made = to_window([several_clips()], key)
        (level,) = set(made['pcm'][: made['num_samples']].tolist())
        assert made['num_samples'] == lengths[level]
        seen.append(level)
    assert all(30 <= seen.count(level) <= 70 for level in lengths)


@pytest.mark.parametrize('max_clips', [2, 3, 5])
def test_several_of_several_clips(max_clips):
    transform = transforms.ToWindow(RATE, WINDOW, max_clips=max_clips)
    found = set()
    for key in range(60):
        made = transform([several_clips()], key)
        assert made['pcm'].shape == (max_clips, WINDOW)
        assert made['num_samples'].shape == (max_clips,)
        held = made['num_samples'] > 0
        assert held.sum() == min(3, max_clips)
        assert held[: min(3, max_clips)].all()
        assert not made['pcm'][~held].any()
        levels = made['pcm'][held, 0].tolist()
        assert levels == sorted(levels)  # in their order
        found.add(tuple(levels))
    assert found == ({(1, 2), (1, 3), (2, 3)} if max_clips == 2 else {(1, 2, 3)})


def test_one_clip_in_a_row_of_several(files):
    made = transforms.ToWindow(RATE, WINDOW, max_clips=2)([files['fire_large']], 8)
    alone = transforms.ToWindow(RATE, WINDOW)([files['fire_large']], 8)
    assert np.array_equal(made['pcm'][0], alone['pcm'])
    assert made['num_samples'].tolist() == [alone['num_samples'], 0]


NEGATIVES = transforms.ToWindow(RATE, WINDOW, text=transforms.RowText(hard_negatives=3))


def test_negatives_of_a_record():
    source = example(captions=['A loud dog barks before a cat meows.', 'A dog, then a cat.'])
    for key in range(10):
        made = NEGATIVES([source], key)
        assert made['caption'] == to_window([source], key)['caption']
        assert 1 <= len(made['negatives']) <= 3
        assert len(set(made['negatives'])) == len(made['negatives'])
        assert not set(made['negatives']) & set(source['captions'])
    assert NEGATIVES([example(captions=['Hum.'])], 0)['negatives'] == []


def test_the_first_negative_of_a_joined_scene_has_another_order():
    examples = [example('a', captions=['A dog barks.']), example('b', captions=['Rain falls.'])]
    for key in range(30):
        made = NEGATIVES(examples, key)
        true = temporal.parse(made['caption']).heard()
        assert true == ('a dog barks', 'rain falls')
        orders = [temporal.parse(text) for text in made['negatives']]
        assert orders[0].heard() == true[::-1]


def test_no_order_is_wrong_for_clips_heard_together():
    together = dataclasses.replace(NEGATIVES, overlay=1.0)
    examples = [example('a', captions=['A dog barks.']), example('b', captions=['Rain falls.'])]
    for key in range(30):
        for text in together(examples, key)['negatives']:
            assert temporal.parse(text) is None


INSTRUCTIONS = transforms.ToWindow(RATE, WINDOW, text=transforms.RowText(instruction=True))


def test_instruction_rows():
    made = INSTRUCTIONS([example()], 0)
    assert made['task'] == 'captioning'
    assert made['response'] == made['caption'] == 'A tone sounds.'
    assert made['instruction'].endswith(('.', '?'))
    assert made['turns'] == [{'instruction': made['instruction'], 'response': made['response']}]
    scene = INSTRUCTIONS([example('a'), example('b')], 0)
    assert scene['task'] == 'captioning'
    assert scene['response'].lower().count('a tone sounds') == 2


def test_dialogue_rows_keep_their_turns():
    turns = [{'question': f'Q{i}?', 'answer': f'A{i}.', 'dialogue': 0} for i in range(3)]
    made = INSTRUCTIONS([{**example(), 'turns': turns}], 0)
    assert made['task'] == 'dialogue'
    assert [turn['instruction'] for turn in made['turns']] == ['Q0?', 'Q1?', 'Q2?']
    assert (made['instruction'], made['response']) == ('Q0?', 'A0.')
    other = INSTRUCTIONS([{**example(), 'turns': turns[:1]}], 0)
    assert other['text_group'] != made['text_group']


def test_the_same_answer_to_another_question_is_another_text():
    def group(question):
        turns = [{'question': question, 'answer': 'Yes.', 'dialogue': 0}]
        return INSTRUCTIONS([{**example(), 'turns': turns}], 0)['text_group']

    assert group('Is it a dog?') == group('is it a dog')
    assert group('Is it a dog?') != group('Is it a cat?')


def test_questions_about_more_clips_than_a_row_holds():
    asked = {**several_clips(), 'turns': [{'question': 'Which?', 'answer': 'The', 'dialogue': 0}]}
    with pytest.raises(transforms.TextError, match='about 3 clips; a row holds 1'):
        INSTRUCTIONS([asked], 0)
    assert dataclasses.replace(INSTRUCTIONS, max_clips=3)([asked], 0)['response'] == 'The'


def test_a_transcript_is_not_told_of_a_part():
    said = {**example(seconds=1.0, captions=()), 'transcript': 'Hello.', 'kind': 'speech'}
    assert 'Hello.' in to_window([said], 0)['caption']
    assert INSTRUCTIONS([said], 0)['task'] == 'transcription'
    long = {**said, 'audio': np.zeros(WINDOW + 1, np.int16)}
    for transform in (to_window, INSTRUCTIONS):
        with pytest.raises(transforms.TextError, match='transcript'):
            transform([long], 0)
    assert 'Hello.' in to_window([long], 0, window_samples=WINDOW + 1)['caption']


def test_the_caption_without_the_audio():
    tagged = {**example(), 'tags': ['dog']}
    transform = transforms.ToWindow(RATE, WINDOW, text=transforms.RowText(keyword_share=0.5))
    kinds = set()
    for key in range(40):
        caption = transform.caption(tagged, key)
        assert caption.text == transform([tagged], key)['caption']
        kinds.add(caption.made_from)
    assert kinds == {'caption', 'keywords'}


def test_another_window():
    made = to_window([example(seconds=10)], 4, window_samples=5000)
    assert made['pcm'].shape == (5000,)
    assert made['num_samples'] == 5000
