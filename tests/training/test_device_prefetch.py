"""Batches that are put on the devices by a thread: order, depth, errors, the end."""

import threading
import time

import jax
import numpy as np
import pytest

from alm_jax.config import ConfigError, base
from alm_jax.data import loader
from alm_jax.training import sharding
from alm_jax.training.device_prefetch import DevicePrefetch


class Batches:
    """Numbered batches; counts what was asked for, and fails or ends when told to."""

    def __init__(self, end=10**6, error=None):
        self.asked, self.closed, self.end, self.error = 0, False, end, error

    def __iter__(self):
        return self

    def __next__(self):
        if self.asked == self.end:
            raise self.error or StopIteration
        self.asked += 1
        return {'x': np.full((4, 3), self.asked - 1, np.float32)}

    def close(self):
        self.closed = True


@pytest.fixture
def put():
    mesh = sharding.make_mesh({'data': -1})
    return lambda batch: sharding.put_batch(batch, mesh)


def test_batches_come_in_order_on_the_device(put):
    batches = Batches()
    ahead = DevicePrefetch(batches, put)
    for number in range(20):
        batch = next(ahead)
        assert isinstance(batch['x'], jax.Array)
        np.testing.assert_array_equal(batch['x'], number)
    ahead.close()
    assert batches.closed
    with pytest.raises(StopIteration):
        next(ahead)


def test_no_more_than_asked_for_is_made_ahead(put):
    batches = Batches()
    ahead = DevicePrefetch(batches, put, ahead=2)
    next(ahead)
    time.sleep(0.5)
    assert batches.asked <= 4  # one used, two ready, one in the hands of the thread
    ahead.close()


@pytest.mark.parametrize('error', [ConfigError('record x: cut off'), KeyboardInterrupt()])
def test_an_error_is_raised_when_its_batch_is_due(put, error):
    ahead = DevicePrefetch(Batches(end=3, error=error), put)
    for number in range(3):
        np.testing.assert_array_equal(next(ahead)['x'], number)
    with pytest.raises(type(error)):
        next(ahead)
    assert not ahead._thread.is_alive()


def test_the_end_of_the_batches_is_the_end(put):
    assert len(list(DevicePrefetch(Batches(end=3), put))) == 3


def test_closing_while_the_loader_hangs(put):
    released = threading.Event()

    class Hanging(Batches):
        def __next__(self):
            if self.asked == 1:
                released.wait(30)
                raise StopIteration
            return super().__next__()

        def close(self):
            released.set()

    ahead = DevicePrefetch(Hanging(), put)
    next(ahead)
    begin = time.monotonic()
    ahead.close()
    assert time.monotonic() - begin < 5
    assert not ahead._thread.is_alive()


def no_tokens(captions, lengths):
    return {'token_ids': np.zeros((len(captions), *lengths), np.int32)}


@pytest.mark.parametrize('workers', [0, 1])
def test_batches_of_the_loader_reach_the_device_as_they_are(recordings, put, workers):
    config = base()
    config.batch_size, config.data.workers = 4, workers
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv'},)
    made = [
        loader.batches(config, sampling_rate=16000, window_samples=8000, tokenizer=no_tokens)
        for _ in range(2)
    ]
    ahead = DevicePrefetch(made[0], put)
    kept = [next(ahead) for _ in range(12)]  # more than the shared memory has room for
    for batch in kept:
        expected = next(made[1])
        for name in expected:
            np.testing.assert_array_equal(batch[name], expected[name])
    ahead.close()
    made[1].close()
