"""Batches for models that write: their shapes, what is packed, and what is left out."""

import itertools
import json
import pickle
import subprocess
import sys

import chat_templates
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax import config as config_lib
from alm_jax.audio.decode import AudioError
from alm_jax.audio.presets import PRESETS
from alm_jax.config import ConfigError
from alm_jax.data import (
    dialogue_packs,
    dialogue_rows,
    index,
    loader,
    plan,
    record,
    row_keys,
    sources,
    transforms,
)
from alm_jax.data.captions import TextError
from alm_jax.data.dialogue_tokens import AUDIO
from alm_jax.text.dialogue import Dialogue

RATE, WINDOW = 16_000, 16_000
VECTORS = ((np.arange(101) + 7) // 8).astype(np.int32)  # of 100 frames a second
TOKENIZER = chat_templates.byte_level()
FRONT_END = {'sampling_rate': RATE, 'window_samples': WINDOW}
few = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture
def config(recordings):
    config = config_lib.base()
    config.batch_size = 4
    config.text.lengths = (128,)
    config.front_end.preset = 'whisper_80'
    config.front_end.seconds = 1.0
    config.data.workers = 0
    config.data.text.dialogue = 'chat'
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv'},)
    return config


def first(config, count, **options):
    """Batches, checked against the spec."""
    made = loader.batches(
        config, **FRONT_END, tokenizer=TOKENIZER, vectors_of_frames=VECTORS, **options
    )
    batches = list(itertools.islice(made, count))
    made.close()
    spec = loader.batch_spec(config, window_samples=WINDOW)
    rows = config.batch_size // options.get('process_count', 1)
    for batch in batches:
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
            name: ((rows, *array.shape[1:]), array.dtype) for name, array in spec.items()
        }
    return batches


def written(batch, row, number=1):
    """The text of a sequence; ♪ for audio."""
    ids = batch['token_ids'][row][batch['segments'][row] == number]
    text = ''
    for is_audio, part in itertools.groupby(ids.tolist(), lambda i: i == AUDIO):
        part = list(part)
        text += '♪' * len(part) if is_audio else TOKENIZER.decode(part, False)
    return text


def rows_of(config):
    return dialogue_rows.build(config, **FRONT_END, tokenizer=TOKENIZER, vectors_of_frames=VECTORS)


def test_a_batch(config):
    (batch,) = first(config, 1)
    frames = PRESETS['whisper_80'].num_frames(batch['num_samples'])
    for row in range(4):
        text = written(batch, row)
        vectors = VECTORS[frames[row]].sum()
        assert text.startswith(
            '<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n' + '♪' * vectors
        )
        assert text.count('♪') == vectors
        answer = TOKENIZER.decode(batch['token_ids'][row][batch['loss_mask'][row]], False)
        assert text.endswith(f'<|im_start|>assistant\n{answer}\n')
        assert answer.endswith('.<|im_end|>')
        assert not batch['token_ids'][row][batch['segments'][row] == 0].any()


@pytest.mark.parametrize('pack', [False, True])
def test_batches_are_the_same_on_any_hosts_and_with_workers(config, pack):
    config.data.pack, config.data.max_clips = pack, 3
    config.data.text.instruction = True
    alone = first(config, 3)
    halves = [first(config, 3, process_index=i, process_count=2) for i in range(2)]
    config.data.workers = 2
    for want, left, right, made in zip(alone, *halves, first(config, 3), strict=True):
        for name, array in want.items():
            np.testing.assert_array_equal(array, np.concatenate([left[name], right[name]]))
            np.testing.assert_array_equal(array, made[name])
    late = first(config, 1, start_step=2)[0]
    np.testing.assert_array_equal(late['token_ids'], alone[2]['token_ids'])


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


def test_slots_for_clips_that_are_not_there_are_bad_records(config):
    config.data.text.instruction = True
    question = {'question': 'Is <audio> like <audio>?', 'answer': 'No.', 'dialogue': 0}
    example = record.make_record(np.ones(8000, np.int16), RATE, turns=[question])
    rows = rows_of(config)
    assert rows.text_tokens(example) == (0, 1)
    with pytest.raises(TextError, match='a place for clip 2, but 1 are heard'):
        rows([example], 0)


def test_what_does_not_fit_is_told(config, tmp_path):
    config.text.lengths = (56,)
    quarantine = tmp_path / 'bad.jsonl'
    config.data.max_bad_share = 1.0
    made = loader.batches(
        config,
        **FRONT_END,
        tokenizer=TOKENIZER,
        vectors_of_frames=VECTORS,
        quarantine=quarantine,
    )
    for _ in range(3):
        next(made)
    assert made.skipped
    made.close()
    reasons = {json.loads(line)['reason'] for line in quarantine.read_text().splitlines()}
    assert all('does not fit' in reason and 'gives 56' in reason for reason in reasons)
    config.data.on_bad = 'fail'
    with pytest.raises(ConfigError, match=r'record .* does not fit'):
        first(config, 3)


def test_clips_of_no_vector_are_told(config):
    rows = dialogue_rows.build(
        config, **FRONT_END, tokenizer=TOKENIZER, vectors_of_frames=np.maximum(VECTORS - 3, 0)
    )
    short = record.make_record(np.ones(800, np.int16), RATE, captions=['A click.'])
    with pytest.raises(AudioError, match='too short for one vector'):
        rows([short], 0)


def test_models_whose_audio_is_no_token(config):
    rows = dialogue_rows.build(
        config, **FRONT_END, tokenizer=TOKENIZER, vectors_of_frames=np.zeros(101, np.int32)
    )
    sound = record.make_record(np.ones(800, np.int16), RATE, captions=['A click.'])
    made = rows([sound], 0)
    assert not (made['token_ids'] == AUDIO).any()
    assert made['num_samples'].tolist() == [800]


def test_clips_lie_in_the_order_of_their_places(config):
    config.data.max_clips = 2
    config.data.text.instruction = True
    pcm = np.concatenate([np.full(1600, 1000, np.int16), np.full(4800, -1000, np.int16)])
    question = {'question': 'Is <sound-2> like <sound-1>?', 'answer': 'No.', 'dialogue': 0}
    example = record.make_record(pcm, RATE, clip_samples=(1600, 4800), turns=[question])
    made = rows_of(config)([example], 0)
    assert made['num_samples'].tolist() == [4800, 1600]
    assert made['pcm'][0, 0] < 0 < made['pcm'][1, 0]
    text = written({name: array[None] for name, array in made.items()}, 0)
    assert f'Is {"♪" * VECTORS[30]} like {"♪" * VECTORS[10]}?<|im_end|>' in text


def test_long_clips_are_several_windows(config):
    """Their vectors stand together, and a rest too short for one is left out."""
    config.data.max_clips = config.data.max_windows = 3
    rows = rows_of(config)
    pcm = np.arange(1, 40_001).astype(np.int16)
    made = rows([record.make_record(pcm[:36_000], RATE, captions=['A click.'])], 0)
    assert made['num_samples'].tolist() == [16_000, 16_000, 4000]
    np.testing.assert_array_equal(made['pcm'].ravel()[:36_000], pcm[:36_000])
    assert (made['token_ids'] == AUDIO).sum() == 13 + 13 + 4
    text = written({name: array[None] for name, array in made.items()}, 0)
    assert f'user\n{"♪" * 30}<|im_end|>' in text
    longer = rows([record.make_record(np.tile(pcm, 2), RATE, captions=['A click.'])], 0)
    assert longer['num_samples'].tolist() == [WINDOW] * 3
    few = dialogue_rows.build(
        config, **FRONT_END, tokenizer=TOKENIZER, vectors_of_frames=np.maximum(VECTORS - 4, 0)
    )
    made = few([record.make_record(pcm[:36_000], RATE, captions=['A click.'])], 0)
    assert made['num_samples'].tolist() == [16_000, 16_000, 0]
    pair = record.make_record(pcm, RATE, clip_samples=(20_000, 20_000), captions=['Two.'])
    with pytest.raises(TextError, match=r'4 windows of audio, and config\.data\.max_clips gives 3'):
        rows([pair], 0)
    config.data.max_windows = 4
    with pytest.raises(ConfigError, match=r'config\.data\.max_windows is 4'):
        rows_of(config)


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


def test_dialogues_of_several_turns(config):
    config.data.text.instruction = True
    turns = [
        {'question': f'Question {i}?', 'answer': f'Answer {i}.', 'dialogue': 0} for i in range(3)
    ]
    example = record.make_record(np.ones(8000, np.int16), RATE, turns=turns)
    made = rows_of(config)([example], 0)
    answers = TOKENIZER.decode(made['token_ids'][made['loss_mask']], False)
    assert answers == ''.join(f'Answer {i}.<|im_end|>' for i in range(3))


def test_options_that_exclude_each_other(config):
    config.data.text.hard_negatives = 1
    with pytest.raises(ConfigError, match=r'text\.dialogue and config\.data\.text\.hard_neg'):
        rows_of(config)
    config.data.text.hard_negatives = 0
    with pytest.raises(ConfigError, match='for models that write'):
        dialogue_rows.build(config, **FRONT_END, tokenizer=TOKENIZER, vectors_of_frames=None)
    config.data.pack, config.data.buckets = True, (0.5, 1.0)
    with pytest.raises(ConfigError, match='one window'):
        loader.open_mixture(config, rows_of(config))


def test_rows_are_made_without_jax(config, tmp_path):
    """What travels to a worker, and what it does there."""
    path = tmp_path / 'rows.pickle'
    sound = record.make_record(np.ones(800, np.int16), RATE, captions=['A click.'])
    path.write_bytes(pickle.dumps((rows_of(config), sound)))
    program = (
        f'import pickle, sys; rows, sound = pickle.load(open({str(path)!r}, "rb"));'
        'rows([sound], 0); assert "jax" not in sys.modules, "jax"'
    )
    subprocess.run([sys.executable, '-c', program], check=True)
