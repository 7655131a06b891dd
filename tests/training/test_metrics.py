"""metrics.jsonl without duplicates after a restart, rates, the bar's text."""

import json
import time

import jax.numpy as jnp
import pytest

from alm_jax.training import metrics


def _lines(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def test_a_restart_leaves_no_step_twice(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer:
        for step in (10, 20, 30):
            writer.write(step, {'train/loss': jnp.float32(step / 10)})
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 40, "train/lo')  # killed while writing
    with metrics.MetricsWriter(tmp_path, restored_step=20) as writer:
        writer.write(30, {'train/loss': float('nan')})
    assert _lines(tmp_path) == [
        {'step': 10, 'train/loss': 1.0},
        {'step': 20, 'train/loss': 2.0},
        {'step': 30, 'train/loss': None},
    ]
    assert list((tmp_path / 'tensorboard').glob('events*'))


def test_rates_count_waiting_and_leave_out_the_excluded():
    clock = metrics.StepClock(clips_per_step=16)
    start = time.perf_counter()
    for _ in range(2):
        with clock.waiting():
            time.sleep(0.05)
    with clock.excluded():
        time.sleep(0.3)
    time.sleep(0.05)
    rates = clock.rates()
    seconds = time.perf_counter() - start
    assert 32 / seconds < rates['clips_per_s'] <= 32 / 0.15
    assert 0.3 < rates['data_wait'] < 0.9
    assert clock.rates()['clips_per_s'] == 0


class _Step:
    """Stands for the result of a step that takes 0.1 s on the device."""

    def __init__(self):
        self._end = time.perf_counter() + 0.1

    def block_until_ready(self):
        time.sleep(max(self._end - time.perf_counter(), 0))


def test_waiting_while_the_device_is_busy_does_not_count():
    def share(seconds_a_batch):
        clock = metrics.StepClock(clips_per_step=1)
        for _ in range(4):
            clock.stepped(_Step())
            with clock.waiting():
                time.sleep(seconds_a_batch)
        return clock.rates()['data_wait']

    assert share(0.05) == 0
    assert 0.2 < share(0.2) < 0.7  # half of it the device was busy


def test_the_bar_shows_the_numbers(capsys):
    scalars = metrics.to_host({'loss': jnp.float32(0.25), 'grad_norm': jnp.float32(2)})
    assert scalars == {'train/loss': 0.25, 'train/grad_norm': 2.0}
    with metrics.progress_bar(20, start=10) as bar:
        metrics.show(bar, scalars | {'train/clips_per_s': 123.4, 'train/data_wait': 0.034})
        bar.update(5)
        bar.refresh()
    printed = capsys.readouterr().err
    assert '15/20' in printed
    assert 'loss 0.2500, 123 clips/s, data wait 3%' in printed


def test_scalars_only(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer, pytest.raises((TypeError, ValueError)):
        writer.write(1, {'train/loss': 'low'})
