"""Stages: their configs, what may change, what goes on over a boundary."""

import jax
import numpy as np
import pytest
import toy

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.training import optimizer as optimizer_lib
from alm_jax.training import param_sharding, profile, stages
from alm_jax.training import state as state_lib


def small(*own):
    config = config_lib.base()
    config.stages = tuple({'name': f's{i}', 'steps': 10, **keys} for i, keys in enumerate(own))
    config.steps = 10 * len(own)
    return config


@pytest.mark.parametrize(
    ('own', 'message'),
    [
        ({'optimizer.learning_rte': 1e-3}, r"stages\[1\].*Did you mean 'optimizer.learning_rate'"),
        ({'model.embed_dim': 8}, r'model.embed_dim is the same in all stages'),
        ({'seed': 8}, r'seed is the same in all stages'),
        ({'text.tokenizer': 'x'}, r'text.tokenizer is the same in all stages'),
        ({'data.dir': 'x'}, r'data.dir is the same in all stages'),
        ({'freeze': 3}, r"stage 's1': config.freeze is 3 \(int\); expected tuple"),
        ({'name': 's0'}, r'named s0, s0; give each its own name'),
        ({'name': ''}, r'give it both'),
        ({'steps': 0}, r'give it both'),
        ({'steps': 11}, r'config.steps is 20, but the steps of config.stages sum to 21'),
    ],
)
def test_what_is_wrong_with_a_stage_is_told(own, message):
    with pytest.raises(ConfigError, match=message):
        stages.of(small({}, own))


def test_a_stage_is_the_config_with_its_own_values():
    config = small(
        {}, {'optimizer.learning_rate': 0.5, 'data.text.instruction': True, 'remat': 'x'}
    )
    config.profile = (8, 12)
    first, second = stages.of(config)
    assert (first.start, first.stop, second.start, second.stop) == (0, 10, 10, 20)
    assert (second.config.steps, second.config.remat) == (10, 'x')
    assert second.config.optimizer.learning_rate == 0.5
    assert second.config.data.text.instruction
    assert first.config.optimizer.learning_rate == config.optimizer.learning_rate == 1e-3
    assert [stages.number_at(config, step) for step in (0, 9, 10, 11, 20, 30)] == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ConfigError, match='trace steps of one stage'):
        profile.window(config, 0)
    assert profile.window(config, 5, profile_steps=4) == (14, 17)  # too few are left of the first


def test_stages_that_have_not_begun_may_change():
    before, after = small({}, {}), small({}, {'remat': 'block'})
    stages.check_begun(after, {'step': 10, **stages.entries(before, 0)})
    with pytest.raises(ConfigError, match=r"stages\[1\] \('s1'\).*remat was None, is 'block'"):
        stages.check_begun(after, {'step': 11, **stages.entries(before, 1)})
    with pytest.raises(ConfigError, match=r"is of stage 's0', but config.stages has 0"):
        stages.check_begun(config_lib.base(), {'step': 1, **stages.entries(before, 0)})
    with pytest.raises(ConfigError, match=r'is of a run without stages, but'):
        stages.check_begun(before, {'step': 1})


class WithAdapter(toy.ToyTask):
    """The toy with leaves that it lacks."""

    def init(self, rng):
        params, extra = super().init(rng)
        params['head']['lora_a'] = jax.random.normal(rng, (toy.WIDTH, 2))
        return params, extra


def test_a_hand_off_keeps_by_name_and_begins_what_is_new():
    frozen = toy.make_config(compute_dtype='bfloat16', freeze=('^tower/',))
    _, _, mesh, before = toy.make(frozen)
    kernel = before.params['tower']['patches']['kernel']
    assert kernel.dtype == 'bfloat16'
    before = before.replace(
        step=before.step + 7,
        data_step=before.data_step + 9,
        extra={'seen': {'mean': before.extra['seen']['mean'] + 3}},
        opt_state={**before.opt_state, 'skipped': before.opt_state['skipped'] + 2},
    )
    head = np.asarray(before.params['head']['kernel'])
    config = toy.make_config(compute_dtype='bfloat16', freeze=('^head/kernel',))

    def init():
        return WithAdapter().init(jax.random.key(1))

    optimizer = optimizer_lib.make_optimizer(config, jax.eval_shape(init)[0], first_step=7)
    planned = state_lib.abstract(init, optimizer)
    placement = param_sharding.of_state(planned, mesh, config.sharding.params)
    after, new = stages.hand_off(before, init, optimizer, planned, placement)
    assert new == ['head/lora_a']
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), planned
    )
    assert after.params['tower']['patches']['kernel'].dtype == 'float32'  # it is trained now
    np.testing.assert_array_equal(after.params['tower']['patches']['kernel'], kernel)
    np.testing.assert_array_equal(
        np.asarray(after.params['head']['kernel'], np.float32), head.astype('bfloat16')
    )
    np.testing.assert_array_equal(after.params['head']['lora_a'], init()[0]['head']['lora_a'])
    assert (int(after.step), int(after.data_step), int(after.opt_state['skipped'])) == (7, 9, 2)
    assert float(after.extra['seen']['mean']) == 3
    assert not any(np.any(x) for x in jax.tree.leaves(after.opt_state['transform']))
    assert float(optimizer.schedule(7)) == pytest.approx(config.optimizer.learning_rate)


def test_a_leaf_of_another_size_is_told():
    before, after = {'text': {'lora_a': np.ones((4, 8))}}, {'text': {'lora_a': np.ones((4, 16))}}
    with pytest.raises(ConfigError, match=r'text/lora_a has shape \(4, 16\), and \(4, 8\) in the'):
        stages.check_shapes(before, after)
    stages.check_shapes(before, {'text': {}}, after)
