"""Two runs compared: one bit is found, by the step or the layer that it is in; timings are not."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
import toy

from alm_jax.training import checkpoint, compared_runs

STEPS, KILLED = 3, 2  # of a run, and behind which of them it was killed


def write(workdir, state, losses, clips_per_s):
    """The files of a run that logged ``losses`` and ended in ``state``."""
    lines = [
        {'step': step, 'train/loss': loss, 'train/skipped': 0.0, 'train/clips_per_s': clips_per_s}
        for step, loss in enumerate(losses, 1)
    ]
    workdir.mkdir()
    (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    with checkpoint.Checkpointer(workdir, keep=1) as checkpointer:
        checkpointer.save(state.replace(step=state.step + len(losses)))
    return compared_runs.read(workdir)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """The state of both, the run that was not killed, and the parts of the other."""
    folder = tmp_path_factory.mktemp('runs')
    _, _, _, state = toy.make(toy.make_config())
    whole = write(folder / 'whole', state, [0.5, 0.25, 0.125], 100.0)
    killed = write(folder / 'killed', state, [0.5, 0.25, 0.125], 90.0)
    logged = {step: killed.logged[step] for step in range(1, KILLED + 1)}
    before = dataclasses.replace(killed, logged=logged, saved=1)
    return state, whole, [before, killed]


def test_runs_that_differ_in_their_timings_alone_are_alike(runs):
    _, whole, parts = runs
    assert compared_runs.compare(whole, parts, STEPS) == []


def with_loss(part, step, loss):
    return dataclasses.replace(
        part, logged={**part.logged, step: {**part.logged[step], 'train/loss': loss}}
    )


def test_the_first_step_that_differs_is_told_before_the_kill_and_after_it(runs):
    _, whole, (before, after) = runs
    parts = [before, with_loss(after, 3, float(np.nextafter(0.125, 1)))]
    (told,) = compared_runs.compare(whole, parts, STEPS)
    assert told == (
        'The first step that differs is 3: train/loss is 0.125 without a kill, '
        '0.12500000000000003 with one; numbers that differ: 1.'
    )
    parts = [with_loss(before, 2, None), after]  # None is not finite
    step, why = compared_runs.compare(whole, parts, STEPS)
    assert step.startswith(
        'The first step that differs is 2: train/loss is 0.25 without a kill, No'
    )
    assert why == 'That is before the first kill: two such runs differ by themselves.'


def test_a_step_that_is_not_there_and_a_number_that_is_not_differ(runs):
    _, whole, (before, after) = runs
    part = dataclasses.replace(after, logged={1: after.logged[1], 2: after.logged[2]})
    (told,) = compared_runs.compare(whole, [before, part], STEPS)
    assert 'differs is 3: train/loss is 0.125 without a kill, None with one' in told
    lacks = {k: v for k, v in after.logged[2].items() if k != 'train/skipped'}
    part = dataclasses.replace(after, logged={**after.logged, 2: lacks})
    (told,) = compared_runs.compare(whole, [before, part], STEPS)
    assert 'differs is 2: train/skipped is 0.0 without a kill, None with one' in told


def test_a_run_that_began_anew_did_not_resume(runs):
    _, whole, (before, after) = runs
    again = {step: {**values, 'train/clips_per_s': 80.0} for step, values in after.logged.items()}
    part = dataclasses.replace(after, logged=again)
    (told,) = compared_runs.compare(whole, [before, part], STEPS)
    assert told == 'It did not go on from checkpoint 1, which was complete.'


@pytest.mark.parametrize(
    ('path', 'at', 'told'),
    [
        (
            ('params', 'tower', 'layers', 'kernel'),
            (1, 2, 3),
            r'first parameter .* at the end is tower/layers/1/kernel, in 1 of 16 values; 1 of ',
        ),
        (
            ('opt_state', 'transform', 'mu', 'head', 'kernel'),
            (0, 0),
            r'first part of the state .* is training/opt_state/.*mu/head/kernel, in 1 of 4 values',
        ),
        (
            ('extra', 'seen', 'mean'),
            (),
            r'first part of the state .* is extra/seen/mean, in 1 of 1',
        ),
    ],
)
def test_one_bit_of_the_last_state_is_found(runs, tmp_path, path, at, told):
    state, whole, (before, _) = runs

    def flip(key_path, leaf):
        names = {str(getattr(key, 'key', getattr(key, 'name', ''))) for key in key_path}
        if not set(path) <= names:
            return leaf
        value = np.array(leaf)
        value.reshape(-1).view(np.uint32)[np.ravel_multi_index(at, value.shape) if at else 0] ^= 1
        return jax.device_put(value, leaf.sharding)

    changed = jax.tree_util.tree_map_with_path(flip, state)
    part = write(tmp_path / 'changed', changed, [0.5, 0.25, 0.125], 90.0)
    lines = compared_runs.compare(whole, [before, part], STEPS)
    assert len(lines) == 1
    assert re.search(told, lines[0])
