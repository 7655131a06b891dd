"""What --verify_resume runs: the config shortened, where it is killed, and in which environment."""

import pytest

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.training import stages, verify_resume

GPU = '--xla_gpu_deterministic_ops=true'
ZERO_SHOT = {'evaluator': 'zero_shot', 'data': 'packaged_sounds/tiny:test'}


def test_a_config_is_shortened_and_the_rest_of_it_stays():
    config = config_lib.base()
    config.steps, config.seed, config.resume = 1000, 3, 'elsewhere'
    config.optimizer.warmup_steps, config.profile = 100, (10, 13)
    config.evals = {'sounds': dict(ZERO_SHOT)}
    before = config_lib.to_json(config)
    short = verify_resume.shortened(config)
    assert config_lib.to_json(config) == before
    assert (short.steps, short.log_every, short.checkpoint.every) == (6, 1, 2)
    assert (short.resume, tuple(short.profile), len(short.evals)) == ('', (), 0)
    assert short.optimizer.warmup_steps == 5  # below the steps
    assert short.seed == 3
    config_lib.validate(short)
    config.steps = 4
    assert verify_resume.shortened(config).steps == 4


def test_every_stage_is_shortened_and_killed_behind_its_first_checkpoint():
    config = config_lib.base()
    config.optimizer.warmup_steps, config.steps = 50, 100 + 3 + 200
    config.stages = (
        {'name': 'a', 'steps': 100, 'freeze': ('^text/',), 'evals': {'sounds': dict(ZERO_SHOT)}},
        {'name': 'b', 'steps': 3, 'optimizer.warmup_steps': 1},
        {'name': 'c', 'steps': 200, 'optimizer.warmup_steps': 150},
    )
    short = config_lib.from_json(config_lib.to_json(verify_resume.shortened(config)))
    found = stages.of(short)
    assert [(stage.start, stage.stop) for stage in found] == [(0, 6), (6, 9), (9, 15)]
    assert [stage.config.optimizer.warmup_steps for stage in found] == [5, 1, 5]
    assert tuple(found[0].config.freeze) == ('^text/',)
    assert not any(stage.config.evals for stage in found)
    assert verify_resume.kill_points(short) == [2, 8, 10]


def test_a_run_of_two_steps_is_too_short():
    config = config_lib.base()
    config.steps = 2
    with pytest.raises(ConfigError, match=r'config.steps is 2; --verify_resume needs 3'):
        verify_resume.kill_points(config)


@pytest.mark.parametrize(
    ('platform', 'given', 'expected'),
    [
        ('gpu', {}, GPU),
        ('cuda', {'XLA_FLAGS': '--xla_gpu_autotune_level=0'}, f'--xla_gpu_autotune_level=0 {GPU}'),
        ('rocm', {'XLA_FLAGS': '--xla_gpu_deterministic_ops=false'}, None),
        ('cpu', {'XLA_FLAGS': '--xla_x=1'}, '--xla_x=1'),
        ('tpu', {}, ''),
    ],
)
def test_on_a_gpu_operations_are_deterministic(platform, given, expected):
    made = verify_resume.child_environment(platform, {'HOME': '/h', **given})
    assert made['HOME'] == '/h'
    if expected is None:  # the last one counts
        expected = f'--xla_gpu_deterministic_ops=false {GPU}'
    assert made.get('XLA_FLAGS', '') == expected


LOG = 'data: my.csv\nerror: my.csv, row 2: 1.wav is not audio.\n  Mend it.\n'


@pytest.mark.parametrize(
    ('code', 'expected', 'told'),
    [
        (2, True, r'^my.csv, row 2: 1.wav is not audio.\n  Mend it.$'),  # as the run told it
        (1, True, r'^a run ended with code 1; .*whole.log ends:\ndata: my.csv\n'),
        (-9, True, 'a run ended with code -9'),
        (0, False, 'over before it could be killed'),
    ],
)
def test_a_run_that_ends_otherwise_is_told(tmp_path, code, expected, told):
    log = tmp_path / 'whole.log'
    log.write_text(LOG)
    with pytest.raises(ConfigError, match=told):
        verify_resume._check_ended(code, log, expected)
