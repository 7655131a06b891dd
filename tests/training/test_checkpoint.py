"""Checkpoints: complete or not counted, kept by number, loaded without an optimizer, hashed."""

import hashlib
import json

import jax
import numpy as np
import pytest
import toy

from alm_jax import run_setup
from alm_jax.training import checkpoint, sharding
from alm_jax.training import state as state_lib


@pytest.fixture(scope='module')
def run():
    task, optimizer, mesh, state = toy.make(toy.make_config(freeze=('patches',)))
    abstract = state_lib.abstract(
        lambda: task.init(jax.random.key(0)), optimizer, sharding.replicated(mesh)
    )
    return state, abstract


def _at(state, step):
    return state.replace(step=state.step + step, data_step=state.data_step + step)


def _save(workdir, state, steps, keep=5):
    with checkpoint.Checkpointer(workdir, keep=keep, mesh={'data': 1}) as checkpoints:
        for step in steps:
            checkpoints.save(_at(state, step))


def _names(workdir):
    return sorted(path.name for path in (workdir / 'checkpoints').iterdir())


def test_the_best_stays_after_a_restart_and_until_there_is_a_better_one(tmp_path, run):
    """Each is measured after it was saved, as in the loop."""

    def go_on(restored, steps):
        choice = {'keep': 1, 'keep_every': 4, 'best': '-valid/rank', 'restored_step': restored}
        with checkpoint.Checkpointer(tmp_path, **choice) as checkpoints:
            for step, rank in steps.items():
                checkpoints.save(_at(run[0], step), kept=step == 2)
                with (tmp_path / 'metrics.jsonl').open('a') as file:
                    file.write(json.dumps({'step': step, 'valid/rank': rank}) + '\n')

    go_on(0, {1: 9.0, 2: 8.0, 3: 5.0, 4: 7.0, 5: 6.0})
    assert _names(tmp_path) == ['2', '3', '4', '5']  # end of a stage, best, fourth, last
    go_on(5, {6: 8.0, 7: 4.0})
    assert _names(tmp_path) == ['2', '4', '7']  # 3 is not the best any more


def _largest(path):
    files = [f for f in path.rglob('*') if f.is_file() and f.name != 'manifest.json']
    return max(files, key=lambda f: f.stat().st_size)


def test_a_state_comes_back_whole(tmp_path, run):
    state, abstract = run
    _save(tmp_path, state, [7])
    path = checkpoint.latest_complete(tmp_path)
    restored = checkpoint.restore(path, abstract)
    assert jax.tree.structure(restored) == jax.tree.structure(_at(state, 7))
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(_at(state, 7))):
        assert a.dtype == b.dtype
        assert a.sharding == abstract.step.sharding
        np.testing.assert_array_equal(a, b)
    manifest = checkpoint.read_manifest(path)
    assert (manifest['step'], manifest['data_step'], manifest['mesh']) == (7, 7, {'data': 1})
    assert manifest['versions']['jax'] == jax.__version__
    assert manifest['tree']['params/head/kernel'] == ['float32', [4, 1]]
    on_disk = {f.relative_to(path).as_posix() for f in path.rglob('*') if f.is_file()}
    assert on_disk == set(manifest['files']) | {'manifest.json'}


def test_an_empty_extra(tmp_path, run):
    state, abstract = run
    _save(tmp_path, state.replace(extra={}), [1])
    path = checkpoint.latest_complete(tmp_path)
    assert checkpoint.restore(path, abstract.replace(extra={})).extra == {}
    assert checkpoint.load_params(path)[1] == {}


def test_only_the_newest_are_kept(tmp_path, run):
    _save(tmp_path, run[0], [1, 2, 3, 4], keep=2)
    assert _names(tmp_path) == ['3', '4']
    for name in ('3.orbax-checkpoint-tmp', 'mine'):
        (tmp_path / 'checkpoints' / name).mkdir()
    _save(tmp_path, run[0], [3], keep=2)  # a run that fell back to an earlier step goes on from it
    assert _names(tmp_path) == ['3', 'mine']


def test_what_lies_between_the_one_gone_on_from_and_the_next_goes(tmp_path, run):
    """It is damaged, or of before a rollback, and must not take the place of a whole one."""
    _save(tmp_path, run[0], [1, 2, 3])
    with checkpoint.Checkpointer(tmp_path, keep=3, restored_step=2) as checkpoints:
        checkpoints.save(_at(run[0], 4))
        checkpoints.wait()
        assert _names(tmp_path) == ['1', '2', '4']
        checkpoints.save(_at(run[0], 5))
        checkpoints.wait()
        checkpoints.save(_at(run[0], 3))  # back to 2, and on
    assert _names(tmp_path) == ['2', '3']


def _truncate(path):
    file = _largest(path)
    file.write_bytes(file.read_bytes()[:-1])
    return f'{file.relative_to(path)} has {file.stat().st_size} bytes, not'


def _flip(path):
    file = _largest(path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return f'{file.relative_to(path)} differs from its sha256'


def _remove(path):
    file = _largest(path)
    file.unlink()
    return f'{file.relative_to(path)} is missing'


def _no_manifest(path):
    (path / 'manifest.json').unlink()
    return 'it has no manifest.json'


def _torn_manifest(path):
    (path / 'manifest.json').write_text('{"files": {')
    return 'its manifest.json cannot be read'


def _flip_manifest(path):
    text = (path / 'manifest.json').read_text()
    (path / 'manifest.json').write_text(text.replace('"data_step": 2', '"data_step": 3'))
    return 'its manifest.json differs from its own sha256'


HARMS = [_truncate, _flip, _remove, _no_manifest, _torn_manifest, _flip_manifest]


@pytest.mark.parametrize('harm', HARMS)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, run, capsys, harm):
    _save(tmp_path, run[0], [1, 2])
    assert checkpoint.latest_complete(tmp_path).name == '2'
    reason = harm(tmp_path / 'checkpoints' / '2')
    assert checkpoint.latest_complete(tmp_path).name == '1'
    printed = capsys.readouterr().err
    assert f'checkpoint {tmp_path}/checkpoints/2 is not used: ' in printed
    assert reason in printed
    with pytest.raises(checkpoint.CheckpointError, match='cannot be used'):
        checkpoint.resolve(tmp_path, step=2)


@pytest.mark.parametrize('harm', HARMS)
def test_where_none_is_whole_a_run_does_not_begin_anew(tmp_path, run, capsys, harm):
    """But where none was ever complete it does, and says so."""
    config = toy.make_config()
    assert run_setup.checkpoint_to_continue(config, tmp_path) is None
    _save(tmp_path, run[0], [2])
    _save(tmp_path / 'other', run[0], [1])
    path = tmp_path / 'checkpoints' / '2'
    reason = harm(path)
    if harm is _no_manifest:
        assert run_setup.checkpoint_to_continue(config, tmp_path) is None
        assert f'{path} is not used: {reason}' in capsys.readouterr().err
        return
    with pytest.raises(checkpoint.CheckpointError) as error:
        run_setup.checkpoint_to_continue(config, tmp_path)
    assert f'2: {reason}' in str(error.value)
    assert f'Move {path.parent} away' in str(error.value)
    config.resume = str(tmp_path / 'other')
    found = run_setup.checkpoint_to_continue(config, tmp_path)
    assert found == tmp_path / 'other' / 'checkpoints' / '1'


def test_a_manifest_from_before_there_were_environments_needs_no_hash(tmp_path, run):
    _save(tmp_path, run[0], [2])
    path = tmp_path / 'checkpoints' / '2'
    manifest = checkpoint.read_manifest(path)
    del manifest['manifest_sha256']
    (path / 'manifest.json').write_text(json.dumps(manifest))
    assert 'differs from its own' in checkpoint.damage(path)
    del manifest['environment']
    (path / 'manifest.json').write_text(json.dumps(manifest))
    assert checkpoint.damage(path) is None


def test_resolve(tmp_path, run):
    with pytest.raises(checkpoint.CheckpointError, match='no complete checkpoint'):
        checkpoint.resolve(tmp_path)
    _save(tmp_path, run[0], [1, 2])
    folder = tmp_path / 'checkpoints'
    assert checkpoint.resolve(tmp_path) == folder / '2'
    assert checkpoint.resolve(tmp_path, step=1) == folder / '1'
    assert checkpoint.resolve(folder / '1') == folder / '1'
    with pytest.raises(checkpoint.CheckpointError, match='Steps there: 2, 1'):
        checkpoint.resolve(tmp_path, step=5)


def test_load_params_needs_no_optimizer(tmp_path, run):
    state = run[0]
    _save(tmp_path, state, [1])
    params, extra = checkpoint.load_params(tmp_path / 'checkpoints' / '1')
    assert jax.tree.structure((params, extra)) == jax.tree.structure((state.params, state.extra))
    for a, b in zip(jax.tree.leaves((params, extra)), jax.tree.leaves((state.params, state.extra))):
        assert isinstance(a, np.ndarray)
        np.testing.assert_array_equal(a, b)


def test_another_model_is_an_error_that_lists_the_differences(tmp_path, run):
    state, abstract = run
    _save(tmp_path, state, [1])
    other = dict(abstract.params)
    other['tail'] = other.pop('head')
    with pytest.raises(checkpoint.CheckpointError, match='params/head/kernel') as error:
        checkpoint.restore(tmp_path / 'checkpoints' / '1', abstract.replace(params=other))
    assert 'params/tail/kernel is missing there' in str(error.value)


def test_the_hash_is_of_the_logical_parameters(run):
    params = jax.device_get(run[0].params)
    digest = checkpoint.checkpoint_sha256(params)
    assert digest == checkpoint.checkpoint_sha256(run[0].params)
    # By the definition, from the layers one by one.
    expected = hashlib.sha256()
    tower = params['tower']
    named = {
        f'tower/layers/{i}/{k}': tower['layers'][k][i] for k in tower['layers'] for i in range(3)
    }
    named |= {
        'tower/patches/kernel': tower['patches']['kernel'],
        'head/kernel': params['head']['kernel'],
    }
    for name in sorted(named):
        expected.update(f'{name} float32 {named[name].shape}\n'.encode() + named[name].tobytes())
    assert digest == expected.hexdigest()
    changed = jax.tree.map(np.copy, params)
    changed['tower']['layers']['bias'][1, 0] = np.nextafter(np.float32(0), np.float32(1))
    assert checkpoint.checkpoint_sha256(changed) != digest
    halves = jax.tree.map(lambda x: x.astype(np.float16), params)
    assert checkpoint.checkpoint_sha256(halves) != digest
