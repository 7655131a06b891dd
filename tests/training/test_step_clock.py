"""Rates of steps against known sleeps, batches and FLOPs."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.training import goodput, padding, step, step_clock
from alm_jax.training.perf import hardware

BATCH = {
    'pcm': np.zeros((2, 100), np.int16),
    'num_samples': np.array([100, 50], np.int32),
    'token_mask': np.array([[True, True, False, False], [True, True, True, False]]),
}


def clock_of(tmp_path, **options):
    return step_clock.StepClock(16, goodput.Goodput(tmp_path), **options)


def test_rates_count_waiting_and_leave_out_the_excluded(tmp_path):
    clock = clock_of(tmp_path)
    start = time.perf_counter()
    for _ in range(2):
        with clock.waiting():
            time.sleep(0.05)
    with clock.excluded('evaluation'):
        time.sleep(0.3)
    time.sleep(0.05)
    rates = clock.rates()
    seconds = time.perf_counter() - start
    assert 32 / seconds < rates['clips_per_s'] <= 32 / 0.15
    assert 0.15 <= 2 * rates['step_seconds'] < seconds - 0.3 + 1e-6
    assert 0.3 < rates['data_wait'] < 0.9
    assert clock.rates()['clips_per_s'] == 0


class _Step:
    """Stands for the result of a step that takes 0.1 s on the device."""

    def __init__(self):
        self._end = time.perf_counter() + 0.1

    def block_until_ready(self):
        time.sleep(max(self._end - time.perf_counter(), 0))


def test_waiting_while_the_device_is_busy_does_not_count(tmp_path):
    def share(seconds_a_batch):
        clock = clock_of(tmp_path)
        for _ in range(4):
            clock.stepped({'loss': _Step()}, {})
            with clock.waiting():
                time.sleep(seconds_a_batch)
        return clock.rates()['data_wait']

    assert share(0.05) == 0
    assert 0.2 < share(0.2) < 0.7  # half of it the device was busy


def test_a_step_that_still_runs_is_not_excluded(tmp_path):
    clock = clock_of(tmp_path)
    with clock.waiting():
        pass
    clock.stepped({'loss': _Step()}, {})
    with clock.excluded('checkpoint'):
        time.sleep(0.05)
    assert clock.rates()['step_seconds'] >= 0.1


def test_tokens_padding_and_flops_are_of_all_steps_between_two_lines(tmp_path):
    full = {**BATCH, 'num_samples': np.array([100, 100], np.int32)}
    long = {**full, 'pcm': np.zeros((2, 200), np.int16)}
    flops = {step.shapes(BATCH): 3e9, step.shapes(long): 5e9}
    clock = clock_of(tmp_path, model_flops=flops, peak_flops=1e12)
    start = time.perf_counter()
    for batch in (BATCH, full, long):
        clock.stepped(jax.jit(padding.shares)(batch), batch)
    time.sleep(0.05)
    rates = clock.rates()
    seconds = time.perf_counter() - start
    assert rates['padding_audio'] == pytest.approx((50 + 0 + 200) / 800)
    assert rates['padding_text'] == pytest.approx(3 / 8)
    assert 15 / seconds <= rates['tokens_per_s'] <= 15 / 0.05
    assert 11e-3 / seconds <= rates['model_tflops_per_s'] <= 11e-3 / 0.05
    assert rates['mfu'] == pytest.approx(rates['model_tflops_per_s'])  # of a peak of 1 TFLOP/s
    after = clock.rates()
    assert not {'mfu', 'tokens_per_s'} & set(after)


def test_there_is_no_mfu_on_a_device_whose_peak_is_not_known(tmp_path):
    peak = step_clock.peak_flops(jax.devices())
    assert peak is None
    clock = clock_of(tmp_path, model_flops={step.shapes(BATCH): 1e9}, peak_flops=peak)
    clock.stepped({}, BATCH)
    rates = clock.rates()
    assert rates['model_tflops_per_s'] > 0
    assert 'mfu' not in rates


def test_padding_of_a_host_front_end_and_of_several_texts():
    batch = {
        'mel': jnp.zeros((2, 10, 8)),
        'num_frames': jnp.array([10, 5]),
        'token_mask': jnp.ones((2, 4), bool),
        'negative_token_mask': jnp.zeros((2, 3, 4), bool),
    }
    assert padding.sizes(batch) == {'padding_audio': 20, 'padding_text': 32}
    found = {name: float(share) for name, share in padding.shares(batch).items()}
    assert found == {'padding_audio': 0.25, 'padding_text': 0.75}
    rows = {'segments': jnp.array([[1, 1, 2, 0], [1, 0, 0, 0]])}
    assert padding.shares(rows) == {'padding_text': 0.5}
    assert padding.sizes(rows) == {'padding_text': 8}
    assert padding.shares({'x': jnp.zeros(3)}) == padding.sizes({'x': jnp.zeros(3)}) == {}


@pytest.mark.parametrize(
    ('device_kind', 'name'),
    [
        ('TPU v4', 'v4'),
        ('TPU v5 lite', 'v5e'),
        ('TPU v5', 'v5p'),
        ('TPU v6 lite', 'v6e'),
        ('NVIDIA H100 80GB HBM3', 'h100'),
    ],
)
def test_devices_are_known_by_what_they_call_themselves(device_kind, name):
    assert hardware.chip_of(device_kind) is hardware.CHIPS[name]


@pytest.mark.parametrize('device_kind', ['cpu', 'NVIDIA H100 PCIe', 'TPU v7'])
def test_the_peak_of_other_devices_is_not_invented(device_kind):
    assert hardware.chip_of(device_kind) is None
