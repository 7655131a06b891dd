"""Packs of several records in one row, and the transform that a config asks for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from travelling import travelled

from alm_jax.audio import decode
from alm_jax.config import ConfigError, base
from alm_jax.data import record, transforms

RATE, WINDOW = 16_000, 32_000


to_pack = transforms.ToPack(RATE, WINDOW)


def example(name='a', seconds=1.0, rate=RATE, pitch=440.0, captions=('A tone sounds.',)):
    t = np.arange(round(seconds * rate)) / rate
    audio = np.round(16_000 * np.sin(2 * np.pi * pitch * t)).astype(np.int16)
    return record.make_record(audio, rate, captions=list(captions), recording_id=name, id=name)


@pytest.fixture(scope='module')
def files(recordings):
    """Records of real OGG files, stored as bytes."""
    made = {}
    for name in ('default_break_glass.1', 'fire_small'):
        content = (recordings / f'{name}.ogg').read_bytes()
        num_samples, rate = decode.header(content)
        made[name] = record.make_record(
            content, rate, num_samples=num_samples, captions=['Fire.'], id=name, recording_id=name
        )
    return made


def test_a_pack_lays_whole_records_end_to_end(files):
    rates = (RATE, 44_100, 8_000)
    examples = [example(f'r{i}', 0.3, rate, 300 * i + 300) for i, rate in enumerate(rates)]
    examples.append(files['default_break_glass.1'])
    made = to_pack(examples, 9)
    alone = [transforms.ToWindow(RATE, WINDOW)([e], 1) for e in examples]
    starts, lengths = made['segment_start'], made['segment_samples']
    assert starts.dtype == lengths.dtype == np.int32
    assert starts.shape == lengths.shape == (8,)
    assert not lengths[4:].any()
    assert not starts[4:].any()
    position = 0
    for i, row in enumerate(alone):
        assert starts[i] == position
        assert lengths[i] == row['num_samples']
        segment = made['pcm'][position : position + lengths[i]]
        assert np.array_equal(segment, row['pcm'][: lengths[i]])
        position += lengths[i]
    assert made['num_samples'] == position
    assert not made['pcm'][position:].any()
    assert made['captions'] == [*(row['caption'] for row in alone), '', '', '', '']
    assert made['audio_group'].tolist() == [*(int(row['audio_group']) for row in alone), 0, 0, 0, 0]
    assert made['text_group'].tolist() == [*(int(row['text_group']) for row in alone), 0, 0, 0, 0]


def test_a_pack_that_does_not_fit_is_cut():
    examples = [example('a', 0.5), example('b', 5.0), example('c', 5.0)]
    made = to_pack(examples, 9)
    assert made['segment_samples'].tolist() == [8_000, 12_000, 12_000, 0, 0, 0, 0, 0]
    assert made['num_samples'] == WINDOW
    with pytest.raises(ValueError, match='9 records for 8 segments'):
        to_pack([example()] * 9, 0)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 1), st.sampled_from([8_000, 16_000, 22_050, 44_100])),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.booleans(),
)
def test_any_pack_is_fixed_by_its_key(files, clips, key, with_noise, with_negatives):
    examples = [example(f'r{i}', s, rate, 200 * i + 300) for i, (s, rate) in enumerate(clips)]
    text = transforms.RowText(hard_negatives=2 * with_negatives)
    transform = transforms.ToPack(RATE, WINDOW, text=text, treatment=transforms.Treatment(RATE, 3))
    noise = files['fire_small'] if with_noise else None
    made = transform(examples, key, noise=noise)
    again = travelled(transform)(examples, key, noise=noise)
    assert made.keys() == again.keys()
    assert all(np.array_equal(made[name], again[name]) for name in made if name != 'negatives')
    assert made.get('negatives') == again.get('negatives')
    assert ('negatives' in made) == with_negatives
    assert made['segment_samples'].sum() == made['num_samples'] <= WINDOW
    assert (made['segment_samples'] > 0).sum() == len(clips)


def test_segments_draw_their_texts_apart():
    """Two alike records in a pack are not bound to take the same of their captions."""
    both = [example(captions=['One.', 'Two.'])] * 2
    drawn = {tuple(to_pack(both, key)['captions'][:2]) for key in range(40)}
    assert len(drawn) == 4


@pytest.fixture
def config():
    return base()


def test_build_follows_the_config(config):
    assert transforms.build(config, RATE, WINDOW) == transforms.ToWindow(
        RATE, WINDOW, 0.3, treatment=transforms.Treatment(RATE)
    )
    config.data.scenes.overlay = 0.25
    config.data.gain_db = 6.0
    config.data.noise.snr_db = (0.0, 10.0)
    config.data.text.keyword_share = 0.1
    config.data.text.hard_negatives = 2
    text = transforms.RowText(keyword_share=0.1, hard_negatives=2)
    treatment = transforms.Treatment(RATE, 6.0, (0.0, 10.0))
    assert transforms.build(config, RATE, WINDOW) == transforms.ToWindow(
        RATE, WINDOW, 0.25, text=text, treatment=treatment
    )
    config.data.pack = True
    assert transforms.build(config, RATE, WINDOW) == transforms.ToPack(
        RATE, WINDOW, text=text, treatment=treatment
    )


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('scenes.overlay', 1.5, r'config\.data\.scenes\.overlay is 1\.5'),
        ('text.keyword_share', -0.1, r'config\.data\.text\.keyword_share is -0\.1'),
        ('gain_db', -3.0, r'config\.data\.gain_db is -3\.0'),
        ('text.hard_negatives', -1, r'config\.data\.text\.hard_negatives is -1'),
        ('noise.snr_db', (20.0, 5.0), r'config\.data\.noise\.snr_db is \(20\.0, 5\.0\)'),
        ('noise.snr_db', (20.0,), r'config\.data\.noise\.snr_db is'),
    ],
)
def test_values_out_of_range(config, key, value, message):
    config.data.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=message):
        transforms.build(config, RATE, WINDOW)


@pytest.mark.parametrize(('key', 'value'), [('pack', True), ('text.hard_negatives', 1)])
def test_options_that_exclude_each_other(config, key, value):
    config.data.text.instruction = True
    config.data.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=rf'instruction and config\.data\.{key} exclude'):
        transforms.build(config, RATE, WINDOW)
