"""Config vocabulary: what is misspelt is named, what is written is read back."""

import json
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax import config as config_lib

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / 'configs').rglob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize('arg', [None, 'smoke'])
def test_every_config_validates_and_round_trips(path, arg):
    config = config_lib.experiment(path).get_config(arg)
    config_lib.validate(config)
    again = config_lib.from_json(config_lib.to_json(config))
    assert config_lib.to_json(again) == config_lib.to_json(config)


@pytest.mark.parametrize(
    ('key', 'value', 'expected'),
    [
        ('stepz', 3, "Did you mean 'steps'"),
        ('steps', 'many', 'expected int'),
        ('steps', 0, 'at least 1'),
        ('optimizer', 3, 'group of keys'),
        ('seed', True, 'expected int'),
    ],
)
def test_a_wrong_key_or_type_is_named(key, value, expected):
    config = config_lib.base()
    with config.ignore_type():
        config[key] = value
    with pytest.raises(config_lib.ConfigError, match=expected):
        config_lib.validate(config)


def test_a_wrong_nested_key_is_named_with_its_path():
    config = config_lib.base()
    config.optimizer.learning_rte = 0.1
    with pytest.raises(config_lib.ConfigError, match=r'optimizer\.learning_rte.*learning_rate'):
        config_lib.validate(config)


@given(st.text(alphabet='abcdefgh_', min_size=1, max_size=12))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_unknown_key_is_refused(key):
    config = config_lib.base()
    if key in config:
        return
    config[key] = 1
    with pytest.raises(config_lib.ConfigError, match=key):
        config_lib.validate(config)


def test_call_with_names_the_nearest_option():
    def build(depth=1, width=2):
        return depth, width

    assert config_lib.call_with(build, {'name': 'x', 'depth': 3}, where='model') == (3, 2)
    with pytest.raises(config_lib.ConfigError, match=r'config\.model\.dept .*depth'):
        config_lib.call_with(build, {'dept': 3}, where='model')
    with pytest.raises(config_lib.ConfigError, match='depth'):
        config_lib.call_with(build, {'depth': 3}, where='model', depth=1)


def test_parse_arg():
    parsed = config_lib.parse_arg('smoke,batch_size=8', smoke=False, batch_size=64)
    assert parsed.smoke is True
    assert parsed.batch_size == 8
    with pytest.raises(config_lib.ConfigError, match="Did you mean 'smoke'"):
        config_lib.parse_arg('smok', smoke=False)
    with pytest.raises(config_lib.ConfigError, match='not a int'):
        config_lib.parse_arg('batch_size=x', batch_size=1)


def test_import_is_cheap_and_free_of_jax():
    code = 'import sys, alm_jax; sys.exit(any(m in sys.modules for m in ("jax", "numpy")))'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--config', 'none.py'], 'does not exist'),
        (['--config', '{tiny}:smok'], "Did you mean 'smoke'"),
        (['--config', '{tiny}', '--config.stepz=3'], "Did you mean 'steps'"),
        (['--config', '{tiny}', '--config.optimiser.learning_rate=1'], "Did you mean 'optimizer"),
        (['--config', '{tiny}', '--config.steps=x'], 'steps=x'),
        (['--confg', 'x'], 'config'),
    ],
)
def test_train_reports_mistakes_on_one_screen(arguments, expected, tmp_path):
    tiny = pathlib.Path(__file__).parents[1] / 'configs' / 'clap' / 'tiny.py'
    arguments = [argument.format(tiny=tiny) for argument in arguments]
    done = subprocess.run(
        [sys.executable, '-m', 'alm_jax.train', *arguments, '--workdir', str(tmp_path / 'w')],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert expected in done.stderr
    assert 'Traceback' not in done.stderr
    assert len(done.stderr.splitlines()) < 24


def test_a_config_of_an_older_version_gets_the_keys_that_it_lacks():
    config = config_lib.base()
    config.steps = 7
    older = json.loads(config_lib.to_json(config))
    del older['remat'], older['task']['form'], older['sharding']
    again = config_lib.from_json(json.dumps(older))
    assert config_lib.plain(again) == config_lib.plain(config)
    older['task']['fom'] = 'ring'
    with pytest.raises(
        config_lib.ConfigError, match=r"config.task.fom is not a key. Did you mean 'form'"
    ):
        config_lib.from_json(json.dumps(older))
