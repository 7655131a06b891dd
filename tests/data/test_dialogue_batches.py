"""Batches for models that write: their shapes, what is packed, and what is left out."""

import itertools
import json

import numpy as np
import pytest
import travelling
from dialogue_config import FRONT_END, RATE, TOKENIZER, VECTORS, WINDOW, make_config, rows_of

from alm_jax.audio.decode import AudioError
from alm_jax.audio.presets import PRESETS
from alm_jax.config import ConfigError
from alm_jax.data import (
    dialogue_rows,
    loader,
    record,
)
from alm_jax.data.captions import TextError
from alm_jax.data.dialogue_tokens import AUDIO


@pytest.fixture
def config(recordings):
    return make_config(recordings)


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
    rows = rows_of(config, np.maximum(VECTORS - 3, 0))
    short = record.make_record(np.ones(800, np.int16), RATE, captions=['A click.'])
    with pytest.raises(AudioError, match='too short for one vector'):
        rows([short], 0)


def test_models_whose_audio_is_no_token(config):
    rows = rows_of(config, np.zeros(101, np.int32))
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
    few = rows_of(config, np.maximum(VECTORS - 4, 0))
    made = few([record.make_record(pcm[:36_000], RATE, captions=['A click.'])], 0)
    assert made['num_samples'].tolist() == [16_000, 16_000, 0]
    pair = record.make_record(pcm, RATE, clip_samples=(20_000, 20_000), captions=['Two.'])
    with pytest.raises(TextError, match=r'4 windows of audio, and config\.data\.max_clips gives 3'):
        rows([pair], 0)
    config.data.max_windows = 4
    with pytest.raises(ConfigError, match=r'config\.data\.max_windows is 4'):
        rows_of(config)


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


def test_rows_are_made_without_jax(config):
    """What travels to a worker, and what it does there."""
    sound = record.make_record(np.ones(800, np.int16), RATE, captions=['A click.'])
    program = 'rows, sound = value; rows([sound], 0); print("jax" in sys.modules)'
    assert travelling.printed_elsewhere((rows_of(config), sound), program) == 'False\n'
