"""Which records share a row: each once, none with more than a row holds."""

import numpy as np
import pytest
from dialogue_config import RATE, TOKENIZER, VECTORS, WINDOW, make_config, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.audio.presets import PRESETS
from alm_jax.data import (
    dialogue_packs,
    index,
    loader,
    plan,
    record,
    row_keys,
    sources,
    transforms,
)
from alm_jax.data.dialogue_tokens import AUDIO
from alm_jax.text.dialogue import Dialogue

few = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture
def config(recordings):
    return make_config(recordings)


def test_packed_rows_hold_what_rows_of_one_would(config):
    """Each sequence of a pack, and its clip, is the row that its record has alone."""
    config.data.pack, config.data.max_clips = True, 3
    packed = rows_of(config)
    opened, mixture = loader.open_mixture(config, packed)
    config.data.pack = False
    alone = rows_of(config)
    several = 0
    for row in plan.plan(0, 1, mixture, 4):
        examples = [opened[d].read(i) for d, i in row.records]
        whole = packed(examples, row.key)
        several += len(examples) > 1
        clip = 0
        for number, example in enumerate(examples):
            one = alone([example], row_keys.nth(row.key, number))
            here, there = whole['segments'] == number + 1, one['segments'] == 1
            for name in ('token_ids', 'loss_mask'):
                np.testing.assert_array_equal(whole[name][here], one[name][there])
            np.testing.assert_array_equal(whole['pcm'][clip], one['pcm'][0])
            assert whole['num_samples'][clip] == one['num_samples'][0]
            clip += 1
        assert (whole['num_samples'] > 0).sum() == clip
        assert whole['segments'].max() == len(examples)
    assert several


def test_every_record_comes_once_an_epoch(config):
    config.data.pack, config.data.max_clips = True, 4
    opened, mixture = loader.open_mixture(config, rows_of(config))
    units = len(mixture.pools[0])
    config.batch_size = units
    seen = [record for row in plan.plan(0, 0, mixture, units) for record in row.records]
    assert sorted(seen) == [(0, i) for i in range(len(opened[0]))]
    assert units < len(opened[0])


class Planned:
    """Records that say how long they are, and rows that believe it."""

    length, vectors_of_frames, tail_seconds, window_samples = 64, VECTORS, 0.0, WINDOW
    front_end = PRESETS['whisper_80']

    def __init__(self, sizes, max_clips):
        records = [
            {**record.DEFAULTS, 'id': str(i), 'duration': seconds, 'tokens': (tokens, clips)}
            for i, (seconds, tokens, clips) in enumerate(sizes)
        ]
        self.records, self.index = records, index.Index.of(records)
        self.window = transforms.ToWindow(RATE, WINDOW, max_clips=max_clips)
        self.dialogue = Dialogue('chat', TOKENIZER)
        self.reads = 0

    def __len__(self):
        return len(self.records)

    def read(self, row):
        self.reads += 1
        return self.records[row]

    def text_tokens(self, example):
        return example['tokens']


@few
@given(
    st.lists(
        st.tuples(
            st.floats(1 / 64, 0.25, width=32) | st.floats(1 / 64, 3, width=32),
            st.integers(1, 4) | st.integers(1, 80),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(3, 8),
)
def test_plans_hold_every_record_once_and_fit(sizes, max_clips):
    rows = Planned(sizes, max_clips)
    pool = dialogue_packs.make_pool(sources.Source('planned', rows), rows, '')
    seen = []
    for unit in range(len(pool)):
        members = pool.records(0, unit)
        clips = [sizes[i][2] for i in members]
        tokens = [
            sizes[i][1] + sizes[i][2] * VECTORS[min(int(sizes[i][0] * 100), 100)] for i in members
        ]
        assert sum(clips) <= max_clips or len(members) == 1
        assert sum(tokens) <= rows.length or len(members) == 1
        seen += members
    assert sorted(seen) == list(range(len(sizes)))


def test_lengths_are_counted_once(config, small_data_dir, monkeypatch, tmp_path):
    config.data.dir = str(small_data_dir)
    config.data.train = ({'name': 'small_sounds/small:train'},)
    source = loader.open_mixture(config)[0][0]
    rows = rows_of(config)
    texts, clips = dialogue_packs.lengths(source, rows, tmp_path)
    assert (texts > 10).all()
    assert (clips == 1).all()
    monkeypatch.setattr(sources.Source, 'read', None)
    again, _ = dialogue_packs.lengths(source, rows, tmp_path)
    np.testing.assert_array_equal(texts, again)
    bound, places = dialogue_packs.audio_bound(source, rows, clips)
    assert (places == 1).all()
    monkeypatch.undo()
    for i in range(len(source)):
        made = rows([source.read(i)], 5)
        assert (made['token_ids'] == AUDIO).sum() <= bound[i] <= VECTORS[100]
        assert (made['segments'] > 0).sum() <= texts[i] + bound[i]


def test_texts_longer_than_planned_are_drawn_again(config):
    """A pack that one text in eight bursts still has all its records."""
    config.data.pack, config.data.max_clips = True, 2
    examples = [
        record.make_record(
            np.ones(8000, np.int16),
            RATE,
            id=str(i),
            recording_id=str(i),
            captions=['A dog barks in the rain for a very long time. ' * 3] + ['A dog.'] * 7,
        )
        for i in range(2)
    ]
    config.text.lengths = (400,)
    wanted = [(rows_of(config)(examples, key)['segments'] > 0).sum() for key in range(30)]
    config.text.lengths = (140,)
    made = [(rows_of(config)(examples, key)['segments'] > 0).sum() for key in range(30)]
    assert max(wanted) > 140
    assert all(got == want if want <= 140 else got <= 140 for want, got in zip(wanted, made))


def test_rooms_lengthen_what_is_planned(config, small_data_dir, tmp_path):
    config.data.dir = str(small_data_dir)
    config.data.train = ({'name': 'small_sounds/small:train'},)
    config.data.pack, config.data.max_clips = True, 4
    source = loader.open_mixture(config)[0][0]
    echo = record.make_record(np.linspace(20_000, 0, 8000).astype(np.int16), RATE)
    config.data.reverb.share = 1.0
    rows = rows_of(config)
    texts, clips = dialogue_packs.lengths(source, rows, tmp_path)
    bound = texts + dialogue_packs.audio_bound(source, rows, clips)[0]
    for i in range(5):
        dry = (rows([source.read(i)], 3)['segments'] > 0).sum()
        wet = (rows([source.read(i)], 3, impulse_response=echo)['segments'] > 0).sum()
        assert dry < wet <= bound[i]


def test_packs_of_long_clips_fit(config):
    config.data.pack = True
    config.data.max_clips, config.data.max_windows = 6, 3
    config.data.on_bad = 'fail'
    config.text.lengths = (200,)
    opened, mixture = loader.open_mixture(config, rows_of(config))
    seen = [mixture.pools[0].records(0, unit) for unit in range(len(mixture.pools[0]))]
    assert sorted(i for records in seen for i in records) == list(range(len(opened[0])))
    rows = rows_of(config)
    windows = []
    for records in seen:
        made = rows([opened[0].read(i) for i in records], 1)
        windows.append((made['num_samples'] > 0).sum())
        assert made['segments'].max() == len(records)
    assert max(windows) > max(map(len, seen))
