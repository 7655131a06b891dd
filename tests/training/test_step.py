"""The jitted step: donation, NaN guard, restart at the same bits."""

import jax
import numpy as np
import pytest
import toy

from alm_jax.training import checkpoint, sharding, step
from alm_jax.training import state as state_lib


def _bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def _train(train_step, state, mesh, steps, bad=()):
    losses = []
    for _ in range(steps):
        data_step = int(state.data_step)
        batch = toy.batch(data_step)
        if data_step in bad:
            batch['x'][3, 1] = np.nan
        state, metrics = train_step(state, sharding.put_batch(batch, mesh))
        losses.append(np.asarray(metrics['loss']).tobytes())
    return state, losses, metrics


def test_the_loss_falls_and_the_state_is_donated():
    task, optimizer, mesh, state = toy.make(toy.make_config())
    train_step = step.make_train_step(task, optimizer, seed=0, mesh=mesh)
    first = state
    state, losses, metrics = _train(train_step, state, mesh, 40)
    values = np.frombuffer(b''.join(losses), np.float32)
    assert values[-5:].mean() < 0.7 * values[:5].mean()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    assert (int(state.step), int(state.data_step)) == (40, 40)
    assert set(metrics) == {
        *('loss', 'grad_norm', 'update_norm', 'param_norm', 'learning_rate', 'skipped', 'mean_y')
    }
    np.testing.assert_allclose(state.extra['seen']['mean'], toy.batch(39)['x'].mean(), rtol=1e-5)


def test_a_bad_batch_skips_its_update_and_is_counted():
    task, optimizer, mesh, state = toy.make(toy.make_config())
    train_step = step.make_train_step(task, optimizer, seed=0, mesh=mesh)
    state, _, _ = _train(train_step, state, mesh, 3)
    before = _bits((state.params, state.opt_state['transform'], state.extra))
    state, _, metrics = _train(train_step, state, mesh, 2, bad=(3, 4))
    assert not np.isfinite(metrics['loss'])
    assert _bits((state.params, state.opt_state['transform'], state.extra)) == before
    assert (int(state.step), int(state.opt_state['skipped'])) == (5, 2)
    state, _, metrics = _train(train_step, state, mesh, 1)
    assert _bits(state.params) != before
    assert int(metrics['skipped']) == 2
    assert np.isfinite(metrics['loss'])


def test_frozen_parameters_keep_their_bits_through_the_step():
    config = toy.make_config(freeze=(r'^tower/patches', r'layers/1/'))
    task, optimizer, mesh, state = toy.make(config)
    train_step = step.make_train_step(task, optimizer, seed=0, mesh=mesh)
    before = jax.device_get(state.params)
    state, _, _ = _train(train_step, state, mesh, 5)
    after = jax.device_get(state.params)
    assert _bits(after['tower']['patches']) == _bits(before['tower']['patches'])
    for name in ('kernel', 'bias'):
        old, new = before['tower']['layers'][name], after['tower']['layers'][name]
        assert new[1].tobytes() == old[1].tobytes()
        assert new[0].tobytes() != old[0].tobytes()


def test_a_restored_run_gives_the_same_bits(tmp_path):
    task, optimizer, mesh, state = toy.make(toy.make_config())
    train_step = step.make_train_step(task, optimizer, seed=0, mesh=mesh)
    state, _, _ = _train(train_step, state, mesh, 4)
    with checkpoint.Checkpointer(tmp_path, keep=1) as checkpoints:
        checkpoints.save(state)
        # The save is under way while the next step donates the buffers it came from.
        state, losses, _ = _train(train_step, state, mesh, 6)
    abstract = state_lib.abstract(
        lambda: task.init(jax.random.key(0)), optimizer, sharding.replicated(mesh)
    )
    restored = checkpoint.restore(checkpoint.latest_complete(tmp_path), abstract)
    assert int(restored.data_step) == 4
    restored, again, _ = _train(train_step, restored, mesh, 6)
    assert again == losses
    assert _bits(restored) == _bits(state)


def test_the_seed_and_the_data_step_decide_the_rng():
    task, optimizer, mesh, state = toy.make(toy.make_config())
    host, batch = jax.device_get(state), sharding.put_batch(toy.batch(0), mesh)
    seeds = [step.make_train_step(task, optimizer, seed=seed, mesh=mesh) for seed in (0, 1)]

    def loss(seed, data_step):
        state = jax.device_put(host, sharding.replicated(mesh))
        state = state.replace(data_step=state.data_step + data_step)
        return float(seeds[seed](state, batch)[1]['loss'])

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(1, 0), loss(0, 1)}) == 3


def test_every_shape_is_compiled_before_the_first_step():
    """Batches of two sizes take turns; a third size is an error, never a compilation."""
    task, optimizer, mesh, plain = toy.make(toy.make_config())
    _, _, _, ahead = toy.make(toy.make_config())
    jitted = step.make_train_step(task, optimizer, seed=0, mesh=mesh)
    specs = [toy.batch(0, rows) for rows in (8, 16)]
    compiled = step.compile_shapes(jitted, ahead, specs, mesh)
    for data_step, rows in enumerate((8, 16, 8)):
        made = sharding.put_batch(toy.batch(data_step, rows), mesh)
        plain, expected = jitted(plain, made)
        ahead, numbers = compiled(ahead, made)
        assert jax.device_get(numbers) == jax.device_get(expected)
    with pytest.raises(RuntimeError, match='no step was compiled'):
        compiled(ahead, sharding.put_batch(toy.batch(0, 24), mesh))
