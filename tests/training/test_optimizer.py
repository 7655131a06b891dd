"""AdamW against optax's own, schedules, masks, freezing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from alm_jax.config import ConfigError
from alm_jax.training import optimizer as optimizer_lib


def _gradients(params, step):
    return jax.tree.map(lambda x: jnp.cos(x + step), params)


def _norm(tree):
    return np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]))


def _run(config, steps=3):
    _, optimizer, _, state = toy.make(config)
    params, opt_state = state.params, state.opt_state

    @jax.jit
    def update(params, opt_state, step):
        trainable, frozen = optimizer.split(params)
        gradients = _gradients(trainable, step)
        trainable, opt_state, metrics = optimizer.update(
            gradients, opt_state, trainable, step, jnp.float32(1)
        )
        return optimizer.merge(trainable, frozen), opt_state, metrics

    for step in range(steps):
        params, opt_state, metrics = update(params, opt_state, step)
    return state.params, params, opt_state, metrics


def test_equals_optax_adamw():
    config = toy.make_config(optimizer__weight_decay=0.1, optimizer__warmup_steps=2)
    before, after, _, metrics = _run(config)
    decayed = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != 'bias', before)
    schedule = optimizer_lib.make_schedule(config.optimizer, config.steps)
    reference = optax.chain(
        optax.clip_by_global_norm(config.optimizer.clip_norm),
        optax.adamw(schedule, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.1, mask=decayed),
    )

    @jax.jit
    def update(params, state, step):
        gradients = _gradients(params, step)
        updates, state = reference.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, updates, gradients

    params, state = before, reference.init(before)
    for step in range(3):
        params, state, updates, gradients = update(params, state, step)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(params)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(metrics['update_norm'], _norm(updates), rtol=1e-5)
    np.testing.assert_allclose(metrics['grad_norm'], _norm(gradients), rtol=1e-6)


def test_schedules():
    def rates(**changes):
        config = toy.make_config(optimizer__learning_rate=1.0, steps=10, **changes)
        schedule = optimizer_lib.make_schedule(config.optimizer, 10)
        return [float(schedule(jnp.int32(step))) for step in range(11)]

    cosine = [0.5 * (1 + np.cos(np.pi * step / 10)) for step in range(11)]
    np.testing.assert_allclose(rates(), cosine, atol=1e-6)
    assert rates(optimizer__schedule='constant') == [1.0] * 11
    linear = rates(optimizer__schedule='linear', optimizer__warmup_steps=4)
    np.testing.assert_allclose(linear[:5], [0.25, 0.5, 0.75, 1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(linear[4:], np.linspace(1, 0, 7), atol=1e-6)
    assert rates(optimizer__schedule='constant', optimizer__warmup_steps=1) == [1.0] * 11


def test_rates_scale_updates_and_the_first_match_wins():
    before, plain, _, _ = _run(toy.make_config(optimizer__weight_decay=0.0), steps=1)
    rates = ((r'layers/1/', 0.5), (r'^tower/', 0.1))
    _, scaled, _, _ = _run(
        toy.make_config(optimizer__weight_decay=0.0, optimizer__rates=rates), steps=1
    )
    factors = {'kernel': np.array([0.1, 0.5, 0.1])[:, None, None]}
    moved = scaled['tower']['layers']['kernel'] - before['tower']['layers']['kernel']
    full = plain['tower']['layers']['kernel'] - before['tower']['layers']['kernel']
    np.testing.assert_allclose(moved, factors['kernel'] * full, rtol=1e-3)
    np.testing.assert_array_equal(scaled['head']['kernel'], plain['head']['kernel'])


def test_frozen_leaves_keep_their_bits_and_have_no_moments():
    config = toy.make_config(freeze=(r'^tower/patches', r'layers/[02]/kernel'))
    before, after, opt_state, metrics = _run(config)
    moments = opt_state['transform'][1]
    assert 'patches' not in moments.mu['tower']
    assert 'patches' not in moments.nu['tower']
    patches = (before['tower']['patches']['kernel'], after['tower']['patches']['kernel'])
    np.testing.assert_array_equal(*patches)
    old, new = before['tower']['layers']['kernel'], after['tower']['layers']['kernel']
    np.testing.assert_array_equal(new[np.array([0, 2])], old[np.array([0, 2])])
    assert np.abs(new[1] - old[1]).min() > 0
    np.testing.assert_array_equal(moments.mu['tower']['layers']['kernel'][0], 0)
    assert metrics['grad_norm'] < _norm(_gradients(after, 2))  # the frozen layers are not in it


def test_frozen_leaves_are_stored_in_the_compute_dtype():
    config = toy.make_config(freeze=(r'^tower/patches',), compute_dtype='bfloat16')
    _, _, _, state = toy.make(config)
    assert state.params['tower']['patches']['kernel'].dtype == jnp.bfloat16
    assert state.params['tower']['layers']['kernel'].dtype == jnp.float32


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'freeze': ('towwer',)}, r"config\.freeze: the regex 'towwer' matches no parameter"),
        ({'freeze': ('.',)}, 'nothing is left to train'),
        ({'optimizer__no_decay': ('biass$',)}, r'config\.optimizer\.no_decay'),
        ({'optimizer__rates': (('hed/', 0.1),)}, r"config\.optimizer\.rates: the regex 'hed/'"),
        ({'optimizer__schedule': 'cosin'}, "Did you mean 'cosine'"),
        ({'optimizer__warmup_steps': 40}, 'warmup_steps is 40'),
        ({'optimizer__clip_norm': 0.0}, 'clip_norm'),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        toy.make(toy.make_config(**changes))
