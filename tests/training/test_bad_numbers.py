"""What is judged bad, what is remembered of it, and which batches are left out."""

import json
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest
import toy

from alm_jax.config import ConfigError
from alm_jax.training import bad_numbers, rollback
from alm_jax.training.state import TrainState

ALIKE = pathlib.Path(__file__).with_name('skipped_alike.py')
NAN = float('nan')


def test_an_update_is_skipped_on_every_device_alike():
    """On four devices, of which one has a row that is not a number; copies and parts of leaves."""
    done = subprocess.run([sys.executable, ALIKE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['alike', 'alike']


def state_at(step, data_step):
    opt_state = {'skipped': jnp.int32(0)}
    return TrainState(jnp.int32(step), jnp.int32(data_step), {}, opt_state, {})


class Judged:
    """A judge fed with losses; None is an update that was skipped."""

    def __init__(self, workdir, manifest=None, data_step=0, **options):
        self.said, self.workdir = [], workdir
        config = toy.make_config(**{f'bad_numbers__{key}': v for key, v in options.items()})
        self.judge = bad_numbers.BadNumbers(config.bad_numbers, workdir, self.said.append)
        self.judge.restore(manifest or {}, lambda batch: batch < data_step)
        self.step, self.skipped = 0, 0
        self.judge.begin(
            state_at(0, data_step), lambda batch: {'sounds': [f'{batch}a', f'{batch}b']}
        )

    def take(self, *losses, all_steps=False):
        for loss in losses:
            self.step += 1
            self.skipped += loss is None
            numbers = {'loss': NAN if loss is None else loss, 'grad_norm': 1.0, 'update_norm': 1.0}
            numbers = {name: jnp.float32(value) for name, value in numbers.items()}
            numbers['skipped'] = jnp.int32(self.skipped)
            if found := self.judge.look(self.step, numbers, all_steps=all_steps):
                return found
        return None

    @property
    def lines(self):
        path = self.workdir / bad_numbers.FILE
        return [json.loads(line) for line in path.read_text().splitlines()]


def test_too_many_skipped_updates_in_a_row_stop_the_run(tmp_path):
    judged = Judged(tmp_path, data_step=70, max_in_a_row=3)
    judged.take(1.0, None, None, 1.0, None, None)
    with pytest.raises(bad_numbers.BadNumbersError, match='3 updates in a row') as error:
        judged.take(None, all_steps=True)
    assert error.value.exit_code == 3
    assert "The last batch, 76, is of '76a' of sounds, '76b' of sounds;" in str(error.value)
    assert [(line['step'], line['data_step']) for line in judged.lines] == [
        *((2, 71), (3, 72), (5, 74), (6, 75), (7, 76))
    ]
    assert judged.lines[0] == {
        **{'step': 2, 'data_step': 71, 'what': 'not_finite', 'loss': None},
        **{'grad_norm': 1.0, 'update_norm': 1.0, 'records': {'sounds': ['71a', '71b']}},
    }


def test_a_step_is_looked_at_two_steps_later_and_all_before_a_checkpoint(tmp_path):
    judged = Judged(tmp_path, max_in_a_row=1)
    judged.take(None, 1.0)
    assert not (tmp_path / bad_numbers.FILE).exists()
    with pytest.raises(bad_numbers.BadNumbersError):
        judged.take(1.0)
    judged = Judged(tmp_path, max_in_a_row=1)
    with pytest.raises(bad_numbers.BadNumbersError):
        judged.take(None, all_steps=True)


SPIKES = {'spike_factor': 2.0, 'spike_window': 3}


def test_a_spike_is_a_loss_far_above_the_median_of_a_whole_window(tmp_path):
    judged = Judged(tmp_path, **SPIKES)
    assert judged.take(1.0, 9.0, 1.2, 2.3, None, 2.5, all_steps=True) is None  # no rollback
    assert judged.said == []  # and 9.0 came before a window was full
    judged.take(2.4, 5.0, all_steps=True)
    assert judged.said == [
        'The loss of step 8 (batch 7) is 5, 2.08 times the median 2.4 of those before.'
    ]
    assert [line['what'] for line in judged.lines] == ['not_finite', 'spike']
    assert judged.lines[1]['median'] == pytest.approx(2.4)


def test_a_rollback_follows_a_spike_and_what_came_after_it_is_not_looked_at(tmp_path):
    judged = Judged(tmp_path, rollback=True, **SPIKES)
    spike = judged.take(1.0, 1.0, 1.0, 5.0, None, None)
    assert (spike.step, spike.data_step, judged.step) == (4, 3, 6)
    assert len(judged.lines) == 1


def test_what_a_checkpoint_remembers_decides_as_if_nothing_had_been_interrupted(tmp_path):
    whole = Judged(tmp_path, max_in_a_row=2, **SPIKES)
    whole.take(1.0, 2.0, 3.0, None, all_steps=True)
    manifest = json.loads(json.dumps(whole.judge.entries()))
    for workdir in ('spike', 'skipped'):
        (tmp_path / workdir).mkdir()
    again = Judged(tmp_path / 'spike', manifest, **SPIKES)
    again.take(4.1, all_steps=True)
    assert '2.05 times the median 2 ' in again.said[0]
    again = Judged(tmp_path / 'skipped', manifest, max_in_a_row=2)
    with pytest.raises(bad_numbers.BadNumbersError):
        again.take(None, all_steps=True)
    assert [line['data_step'] for line in whole.lines] == [3]
    whole.judge.restore(manifest, lambda batch: batch < 3)  # goes on from before
    assert whole.lines == []


def test_a_rollback_needs_spikes(tmp_path):
    with pytest.raises(ConfigError, match='rollback needs config'):
        Judged(tmp_path, rollback=True)


def test_batches_are_left_out_wherever_the_run_goes_on_from(tmp_path):
    state = state_at(0, 0)
    found = rollback.Rollbacks(tmp_path)
    assert found.skip(state) is state
    assert found.next_skip(state, 40) == 40
    found.add(4, 4, 6, 'a spike')
    found.add(4, 4, 9, 'another')  # from the same checkpoint
    with (tmp_path / rollback.FILE).open('a') as file:
        file.write('{"step": 4, "from_da')  # killed
    again = rollback.Rollbacks(tmp_path, at_most=3)
    assert [again.behind(batch) for batch in (3, 4, 5, 6, 8, 9)] == [3, 9, 9, 9, 9, 9]
    assert again.next_skip(state, 40) == 4  # after step 4, whose batch is 3
    assert again.next_skip(state, 3) == 3
    skipped = again.skip(state_at(4, 4))
    assert (int(skipped.step), int(skipped.data_step)) == (4, 9)
    assert skipped.data_step.dtype == jnp.int32
    assert again.next_skip(skipped, 40) == 40
    again.add(8, 13, 14, 'a third')
    with pytest.raises(bad_numbers.BadNumbersError, match='max_rollbacks'):
        again.add(8, 13, 15, 'a fourth')
    lines = (tmp_path / rollback.FILE).read_text().splitlines()
    assert [json.loads(line)['from_data_step'] for line in lines] == [4, 6, 13]


def test_a_run_that_goes_on_from_another_leaves_out_what_that_did(tmp_path):
    rollback.Rollbacks(tmp_path / 'one')
    (tmp_path / 'one' / 'checkpoints' / '4').mkdir(parents=True)
    rollback.Rollbacks(tmp_path / 'one').add(4, 4, 6, 'a spike')
    (tmp_path / 'other').mkdir()
    other = rollback.Rollbacks(tmp_path / 'other', tmp_path / 'one' / 'checkpoints' / '4')
    assert other.behind(4) == 6
    assert rollback.Rollbacks(tmp_path / 'other').behind(4) == 6
