"""metrics.jsonl without duplicates after a restart, the bar's text."""

import json

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
    assert 'MFU' not in printed
    with metrics.progress_bar(20) as bar:
        speed = {'train/clips_per_s': 123.4, 'train/data_wait': 0.034, 'train/mfu': 0.62}
        metrics.show(bar, scalars | speed)
        bar.refresh()
    assert 'data wait 3%, MFU 62%' in capsys.readouterr().err


def test_scalars_only(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer, pytest.raises((TypeError, ValueError)):
        writer.write(1, {'train/loss': 'low'})
