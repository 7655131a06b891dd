"""Runs whose numbers go bad: they stop and name the records, or go back and leave batches out."""

import json
import pathlib
import signal
import time

import pytest
from train_program import SECONDS, Program, numbers

from alm_jax.data import sources
from alm_jax.training import checkpoint

STEPS, EVERY = 14, 4
RECORDED = pathlib.Path(__file__).with_name('recorded_train.py')
CONFIG = f"""
from alm_jax.config import base


def get_config(arg=None):
    c = base()
    c.steps = {STEPS}
    c.batch_size = 4
    c.log_every = 1
    c.data.train = ({{'name': 'packaged_sounds/tiny:train'}},)
    c.data.workers = 0
    c.front_end.seconds = 1.0
    c.augment.gain_db = 6.0
    c.model.embed_dim = 32
    c.model.dropout = 0.1
    c.checkpoint.every = {EVERY}
    if arg == 'diverges':  # the first update is of the size of 1e36
        c.optimizer.learning_rate = 1e36
        c.bad_numbers.max_in_a_row = 3
    if arg == 'spikes':  # what batches of four differ by
        c.bad_numbers.spike_factor = 1.2
        c.bad_numbers.spike_window = 3
        c.bad_numbers.rollback = True
        c.bad_numbers.max_rollbacks = 20
    return c
"""
SPIKES = ('--config', 'small.py:spikes')


@pytest.fixture(scope='module')
def program(tmp_path_factory, packaged_tiny):
    return Program(tmp_path_factory.mktemp('bad_numbers'), packaged_tiny, CONFIG)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def sha256(workdir):
    params, _ = checkpoint.load_params(checkpoint.resolve(workdir, STEPS))
    return checkpoint.checkpoint_sha256(params)


def test_a_run_that_diverges_stops_and_names_the_records(program, packaged_tiny):
    """On two devices."""
    flags = program.environment['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=2'
    workdir = program.folder / 'diverges'
    done = program.train(workdir, '--config', 'small.py:diverges', XLA_FLAGS=flags)
    assert done.returncode == 3, done.stderr
    assert 'Traceback' not in done.stderr
    assert '3 updates in a row were skipped' in done.stderr
    assert "mesh {'data': 2" in done.stderr
    found = lines(workdir / 'bad_numbers.jsonl')
    steps = [line['step'] for line in found]
    assert steps == [steps[0], steps[0] + 1, steps[0] + 2]
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    known = {source.id(index) for index in range(len(source))}
    for line in found:
        assert line['what'] == 'not_finite'
        assert line['data_step'] == line['step'] - 1
        assert None in (line['loss'], line['grad_norm'], line['update_norm'])
        assert list(line['records']) == ['packaged_sounds/tiny:train']
        assert len(line['records']['packaged_sounds/tiny:train']) == 4
        assert set(line['records']['packaged_sounds/tiny:train']) <= known
    assert found[-1]['records']['packaged_sounds/tiny:train'][0] in done.stderr
    assert not (workdir / 'rollbacks.jsonl').exists()


@pytest.fixture(scope='module')
def spiked(program):
    """The workdir of a run that goes back after spikes, and what it took at each step."""
    workdir, record = program.folder / 'spiked', program.folder / 'spiked.taken'
    done = program.run(str(RECORDED), record, *SPIKES, '--workdir', workdir)
    assert done.returncode == 0, done.stderr
    assert 'times the median' in done.stderr
    return workdir, lines(record)


def left_out(workdir):
    found = set()
    for entry in lines(workdir / 'rollbacks.jsonl'):
        batches = set(range(entry['from_data_step'], entry['to_data_step']))
        assert batches
        assert not batches & found
        found |= batches
    return found


def test_batches_before_a_rollback_never_come_again_and_the_others_once(spiked):
    workdir, taken = spiked
    kept = {step: data_step for step, data_step, _ in taken}  # the last time is the one that counts
    assert list(kept) == list(range(STEPS))
    used, skipped = list(kept.values()), left_out(workdir)
    assert used == sorted(set(used))
    assert not skipped & set(used)
    assert skipped | set(used) == set(range(STEPS + len(skipped)))
    for number, (_, data_step, content) in enumerate(taken):
        again = [d for _, d, other in taken[number:] if other == content]
        assert set(again) == {data_step}  # what is read is what data_step says
    manifest = checkpoint.read_manifest(workdir / 'checkpoints' / str(STEPS))
    assert (manifest['step'], manifest['data_step']) == (STEPS, STEPS + len(skipped))


def test_spikes_and_rollbacks_are_recorded(spiked):
    workdir, _ = spiked
    spikes, rollbacks = lines(workdir / 'bad_numbers.jsonl'), lines(workdir / 'rollbacks.jsonl')
    assert [spike['what'] for spike in spikes] == ['spike'] * len(rollbacks)
    for spike, rollback in zip(spikes, rollbacks):
        assert spike['loss'] > 1.2 * spike['median']
        assert rollback['to_data_step'] == spike['data_step'] + 1
        assert rollback['step'] < spike['step']
        assert rollback['step'] % EVERY == 0
        assert f'step {spike["step"]} (batch {spike["data_step"]})' in rollback['reason']
    steps = [step for step, name in numbers(workdir) if name == 'train/loss']
    assert steps == list(range(1, STEPS + 1))


def test_killed_after_a_rollback_it_goes_on_from_an_older_checkpoint_to_the_same_bits(
    program, spiked
):
    """From before the place where batches are left out."""
    workdir, rollbacks = program.folder / 'killed', program.folder / 'killed' / 'rollbacks.jsonl'
    process = program.start('train', *SPIKES, '--workdir', workdir)
    deadline = time.monotonic() + SECONDS
    try:
        while not rollbacks.exists() or len(rollbacks.read_bytes().splitlines()) < 2:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    before = lines(rollbacks)[1]
    (workdir / 'checkpoints' / str(before['step']) / 'manifest.json').unlink()

    record = program.folder / 'resumed.taken'
    done = program.run(str(RECORDED), record, *SPIKES, '--workdir', workdir)
    assert done.returncode == 0, done.stderr
    assert f'state: {workdir}/checkpoints/{before["step"] - EVERY}' in done.stderr
    assert numbers(workdir) == numbers(spiked[0])
    assert sha256(workdir) == sha256(spiked[0])
    assert lines(rollbacks) == lines(spiked[0] / 'rollbacks.jsonl')
    assert lines(workdir / 'bad_numbers.jsonl') == lines(spiked[0] / 'bad_numbers.jsonl')
    again = {data_step for _, data_step, _ in lines(record)}
    assert not again & set(range(before['from_data_step'], before['to_data_step']))
