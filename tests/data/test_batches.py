"""Every kind of batch: what the spec promises comes, and is a function of config and data_step."""

import itertools

import numpy as np
import pytest

from alm_jax.config import ConfigError, base
from alm_jax.data import loader, packing, plan

RATE, WINDOW = 16_000, 16_000


def letters(captions, lengths):
    """A tokenizer of code points, so that a batch shows its texts."""
    token_ids = np.zeros((len(captions), *lengths), np.int32)
    for row, caption in enumerate(captions):
        codes = [ord(letter) for letter in caption[: lengths[0]]]
        token_ids[row, : len(codes)] = codes
    return {'token_ids': token_ids, 'token_mask': token_ids > 0}


def text(ids):
    return ''.join(map(chr, ids[ids > 0]))


@pytest.fixture
def config(recordings):
    """Real recordings of 0.1 to 4 s, and rendered scenes whose captions have an order."""
    config = base()
    config.batch_size = 4
    config.text.lengths = (96,)
    config.front_end.seconds = 1.0
    config.data.workers = 0
    config.data.train = (
        {'folder': str(recordings), 'captions': 'captions.csv', 'weight': 0.5},
        {'name': 'synthetic_scenes:train', 'weight': 0.5},
    )
    return config


def first(config, count, **options):
    """Batches, checked against the spec of their window."""
    iterator = loader.batches(
        config, sampling_rate=RATE, window_samples=WINDOW, tokenizer=letters, **options
    )
    made = list(itertools.islice(iterator, count))
    iterator.close()
    specs = loader.batch_specs(config, sampling_rate=RATE, window_samples=WINDOW)
    by_length = {spec['pcm'].shape[1]: spec for spec in specs}
    rows = config.batch_size // options.get('process_count', 1)
    for batch in made:
        spec = by_length[batch['pcm'].shape[1]]
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
            name: ((rows, *array.shape[1:]), array.dtype) for name, array in spec.items()
        }
    return made


def assert_same_on_any_hosts(config, count):
    whole = first(config, count)
    hosts = [first(config, count, process_index=h, process_count=2) for h in range(2)]
    config.data.workers = 1
    by_worker = first(config, 1, start_step=count - 1)
    for step, batch in enumerate(whole):
        for name, array in batch.items():
            joined = np.concatenate([host[step][name] for host in hosts])
            np.testing.assert_array_equal(array, joined, err_msg=name)
            if step == count - 1:
                np.testing.assert_array_equal(array, by_worker[0][name], err_msg=name)
    return whole


def test_a_batch_has_one_of_the_windows(config):
    config.data.buckets = (0.5, 1.5, 3.0)
    whole = assert_same_on_any_hosts(config, 12)
    lengths = [batch['pcm'].shape[1] for batch in whole]
    assert set(lengths) == {8000, 24000, 48000}
    _, mixture = loader.open_mixture(config)
    windows = [plan.window_of(config.seed, step, mixture, 4) for step in range(12)]
    assert lengths == [(8000, 24000, 48000)[window] for window in windows]
    for batch in whole:  # clips are in the shortest window that holds them
        shorter = {8000: 0, 24000: 8000, 48000: 24000}[batch['pcm'].shape[1]]
        assert (batch['num_samples'] > shorter).all()


def test_packed_rows_hold_whole_clips_with_their_texts(config):
    config.data.pack = True
    config.front_end.seconds = 3.0
    config.data.train = config.data.train[:1]
    iterator = loader.batches(
        config, sampling_rate=RATE, window_samples=3 * RATE, tokenizer=letters
    )
    batch = next(iterator)
    iterator.close()
    assert batch['token_ids'].shape == (4, packing.MAX_CLIPS, 96)
    counts = (batch['segment_samples'] > 0).sum(1)
    assert counts.max() > 1
    for row, count in enumerate(counts):
        ends = batch['segment_start'][row] + batch['segment_samples'][row]
        assert (batch['segment_start'][row][1:count] == ends[: count - 1]).all()
        assert ends[count - 1] == batch['num_samples'][row] <= 3 * RATE
        texts = [text(ids) for ids in batch['token_ids'][row]]
        assert all(texts[:count])
        assert not any(texts[count:])
        assert not batch['token_mask'][row, count:].any()


def test_hard_negatives_stand_beside_the_captions(config):
    config.data.text.hard_negatives = 2
    config.data.train = config.data.train[1:]
    batch = assert_same_on_any_hosts(config, 2)[0]
    assert batch['negative_token_ids'].shape == (4, 2, 96)
    made = 0
    for ids, negatives, mask in zip(
        batch['token_ids'], batch['negative_token_ids'], batch['negative_token_mask']
    ):
        for negative, present in zip(negatives, mask.any(1)):
            made += present
            assert bool(text(negative)) == present
            assert text(negative) != text(ids)
    assert made >= 4


def test_instructions_come_with_their_answers(config):
    config.data.text.instruction = True
    for batch in assert_same_on_any_hosts(config, 2):
        assert batch['prompt_token_mask'].any(1).all()
        assert batch['token_mask'].any(1).all()


def test_rows_of_several_clips(config):
    """Records of one clip fill the first place only."""
    config.data.max_clips = 2
    for batch in assert_same_on_any_hosts(config, 2):
        assert batch['pcm'].shape == (4, 2, WINDOW)
        assert (batch['num_samples'][:, 0] > 0).all()
        assert not batch['pcm'][:, 1].any()


def test_noise_and_rooms_change_the_audio_of_their_share(config, recordings):
    clean = first(config, 8)
    config.data.noise.name = f'folder:{recordings}?captions=captions.csv'
    config.data.noise.share = 0.5
    noisy = assert_same_on_any_hosts(config, 8)
    config.data.noise.share = 0.0
    config.data.reverb.name = f'folder:{recordings}?captions=captions.csv'
    config.data.reverb.share = 0.5
    in_rooms = first(config, 8)
    for treated in (noisy, in_rooms):
        changed = [(a['pcm'] != b['pcm']).any(axis=1) for a, b in zip(clean, treated, strict=True)]
        assert 0.2 < np.mean(changed) < 0.8
        for before, after in zip(clean, treated):
            np.testing.assert_array_equal(before['token_ids'], after['token_ids'])


def test_temperature_evens_the_shares_out(config):
    config.data.train = tuple({**entry, 'weight': 1.0} for entry in config.data.train)
    shares = []
    for temperature in (1.0, 3.0, 1e6):
        config.data.temperature = temperature
        opened, mixture = loader.open_mixture(config)
        shares.append(mixture.weights[0] / sum(mixture.weights))
    sizes = [len(source) for source in opened]
    assert shares[0] == pytest.approx(sizes[0] / sum(sizes))
    assert shares[0] < shares[1] < shares[2] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'data.pack': True, 'data.scenes.share': 0.5}, 'exclude each other'),
        ({'data.pack': True, 'data.buckets': (1.0, 2.0)}, 'fills one window'),
        ({'data.buckets': (2.0, 1.0)}, 'rising'),
        ({'data.noise.share': 0.5}, 'noise.name is empty'),
        ({'data.noise.share': 1.5}, '0 to 1'),
        ({'data.schedule': ((0, (1.0, 1.0)),)}, 'rising steps above 0'),
        ({'data.schedule': ((5, (1.0,)),)}, 'not the weights of 2 datasets'),
    ],
)
def test_mistakes_are_found_before_the_first_batch(config, change, message):
    config.update_from_flattened_dict(change)
    with pytest.raises(ConfigError, match=message):
        loader.batches(config, sampling_rate=RATE, window_samples=WINDOW, tokenizer=letters)
