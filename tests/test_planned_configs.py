"""Every config that declares a topology: the step is the one it describes, and fits there."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from alm_jax import config as config_lib
from alm_jax.training import stages

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = pathlib.Path(__file__).with_name('plan_configs.py')
CONFIGS = {  # 'configs/clap/tiny.py', or with stages 'configs/generative/ltu.py@warm_up'
    str(path.relative_to(ROOT)) + f'@{stage.name}' * bool(stage.name): stage.config
    for path in sorted(ROOT.glob('configs/**/*.py'))
    for stage in stages.of(config_lib.experiment(path).get_config())
    if stage.config.topology
}
# One for each compiler is small enough for every run of the tests.
COMPILED_ALWAYS = ('configs/clap/vit_b_v5e.py', 'configs/clap/vit_b_h100.py')
HEADROOM = 0.9  # of the memory that a program may use
MOST_FLOPS = 1.4  # of the program, over those of the model


def plan(python, *arguments, **environment):
    plain = {key: value for key, value in os.environ.items() if key != 'XLA_FLAGS'}
    command = [python, str(SCRIPT), *arguments]
    environment = {**plain, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT), **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope='module')
def planned():
    forced = '--xla_force_host_platform_device_count=512'
    return plan(sys.executable, *CONFIGS, XLA_FLAGS=forced)


def test_flagships_are_among_them():
    assert set(COMPILED_ALWAYS) <= set(CONFIGS)


@pytest.mark.parametrize('path', CONFIGS)
def test_the_step_takes_what_the_config_describes(planned, path):
    found, config = planned[path], CONFIGS[path]
    rows = config.batch_size
    assert rows % found['devices'] == 0
    samples, text = found['batch']['pcm'], found['batch']['token_ids']
    assert samples[0][0] == text[0][0] == rows
    assert text[0][1] == max(config.text.lengths)
    assert samples[1] == 'int16'
    assert found['state_stays_as_it_is']
    assert {'loss', 'grad_norm'} <= set(found['metrics'])
    assert ('logit_scale' in found['metrics']) == (config.task.name == 'contrastive')
    assert found['model_flops'] > 0 == found['uncounted']
    assert 'attn/query/kernel' in found['table']
    # Parameters and moments are shared where the config says so.
    fsdp = config.mesh.fsdp
    assert ('fsdp' in found['table'].split('\n', 1)[1]) == (fsdp != 1)


def arguments_of_compiled():
    for path, config in CONFIGS.items():
        mark = pytest.mark.slow if path in COMPILED_ALWAYS else pytest.mark.slow_local
        yield pytest.param(path, config.topology, marks=mark)


@pytest.mark.parametrize(('path', 'topology'), list(arguments_of_compiled()))
def test_it_fits_with_room_to_spare(compiler_python, path, topology):
    found = plan(compiler_python(topology), 'compile', path)[path]
    report = found['report']
    print(json.dumps(report))
    # What the compiled program takes is what the config describes, as one device holds it.
    unread = [shape for shape, _ in found['local_batch'] + found['local_state']]
    for shape in found['taken']:
        unread.remove(shape)
    # For infonce every pair is a group of its own, and answers have no groups: their numbers are
    # not read.
    config, rows = CONFIGS[path], found['local_batch'][0][0][0]
    assert unread == ([[rows]] * 2 if config.task.objective == 'infonce' else [])
    assert report['peak_bytes_per_device'] <= HEADROOM * report['capacity_bytes']
    assert 0.9 < report['flops_ratio'] <= MOST_FLOPS
    assert not report['uncounted']
