"""Seconds of transfers and of a step on published figures."""

import collections

import pytest

from alm_jax.training.perf import hardware, roofline
from alm_jax.training.perf.hlo_costs import Costs, Transfer

V5E, H100 = hardware.chip('v5e'), hardware.chip('h100')


@pytest.mark.parametrize(
    ('transfer', 'chip', 'torus', 'seconds'),
    [
        # Both axes of the torus: all four links, 200 GB/s; an all-reduce sends nearly twice.
        (Transfer('all-reduce', 256, False), V5E, (16, 16), 2 * 255 / 256 / 200),
        (Transfer('all-gather', 16, False), V5E, (16, 16), 15 / 16 / 100),
        (Transfer('collective-permute', 2, False), V5E, (16, 16), 1 / 50),
        (Transfer('all-reduce', 512, False), V5E, (16, 16), 2 * 511 / 512 / 3.125),  # two slices
        (Transfer('reduce-scatter', 8, False), H100, (), 7 / 8 / 450),
        (Transfer('reduce-scatter', 64, False), H100, (), 63 / 64 / 50),
        (Transfer('all-reduce', 1, False), H100, (), 0),
    ],
)
def test_a_gigabyte_takes(transfer, chip, torus, seconds):
    assert roofline.transfer_seconds(transfer, 1e9, chip, torus) == pytest.approx(seconds)


def test_only_overlapped_transfers_hide_behind_compute():
    costs = Costs(flops=197e12, bytes=819e9 / 2)
    costs.transfers = {
        Transfer('all-gather', 16, True): [3, 25e9 * 16 / 15],  # a quarter of a second
        Transfer('all-reduce', 16, False): [1, 12.5e9 * 16 / 15],  # the same
    }
    found = roofline.estimate(costs, 197e12 * 256, V5E, 256, (16, 16))
    assert (found.compute, found.memory) == (1.0, 0.5)
    assert found.overlapped == pytest.approx(0.25)
    assert found.exposed == pytest.approx(0.25)
    assert found.seconds == pytest.approx(1.25)
    assert found.seconds_at_best == pytest.approx(1.0)
    assert found.seconds_at_worst == pytest.approx(2.0)
    assert found.mfu == pytest.approx(0.8)
    assert found.bound_by == 'compute'


def test_collectives_are_listed_by_kind():
    costs = Costs(uncounted=collections.Counter())
    costs.transfers = {
        Transfer('all-gather', 16, True): [3, 10.0],
        Transfer('all-gather', 4, False): [1, 5.0],
        Transfer('all-reduce', 4, False): [2, 50.0],
    }
    assert costs.collectives() == [
        {'kind': 'all-reduce', 'count': 2, 'bytes': 50},
        {'kind': 'all-gather', 'count': 4, 'bytes': 15},
    ]
