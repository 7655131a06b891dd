"""Every config that declares a topology: the step is the one it describes, and fits there."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from alm_jax import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = pathlib.Path(__file__).with_name('plan_configs.py')
TOPOLOGIES = {
    str(path.relative_to(ROOT)): topology
    for path in sorted(ROOT.glob('configs/**/*.py'))
    if (topology := config_lib.experiment(path).get_config().topology)
}
# One for each compiler is small enough for every run of the tests.
COMPILED_ALWAYS = ('configs/clap/htsat_roberta_large_batch.py', 'configs/clap/vit_b_h100.py')
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
    return plan(sys.executable, *TOPOLOGIES, XLA_FLAGS=forced)


def test_flagships_are_among_them():
    assert set(COMPILED_ALWAYS) <= set(TOPOLOGIES)


@pytest.mark.parametrize('path', TOPOLOGIES)
def test_the_step_takes_what_the_config_describes(planned, path):
    found = planned[path]
    config = config_lib.experiment(ROOT / path).get_config()
    rows = config.batch_size
    assert rows % found['devices'] == 0
    samples, text = found['batch']['pcm'], found['batch']['token_ids']
    assert samples[0][0] == text[0][0] == rows
    assert text[0][1] == max(config.text.lengths)
    assert samples[1] == 'int16'
    assert found['state_stays_as_it_is']
    assert {'loss', 'grad_norm', 'logit_scale'} <= set(found['metrics'])
    assert found['model_flops'] > 0 == found['uncounted']
    assert 'attn/query/kernel' in found['table']
    # Parameters and moments are shared where the config says so.
    fsdp = config.mesh.fsdp
    assert ('fsdp' in found['table'].split('\n', 1)[1]) == (fsdp != 1)


def arguments_of_compiled():
    for path, topology in TOPOLOGIES.items():
        mark = pytest.mark.slow if path in COMPILED_ALWAYS else pytest.mark.slow_local
        yield pytest.param(path, topology, marks=mark)


@pytest.mark.parametrize(('path', 'topology'), list(arguments_of_compiled()))
def test_it_fits_with_room_to_spare(compiler_python, path, topology):
    found = plan(compiler_python(topology), 'compile', path)[path]
    report = found['report']
    print(json.dumps(report))
    # What the compiled program takes is what the config describes, as one device holds it.
    unread = [shape for shape, _ in found['local_batch'] + found['local_state']]
    for shape in found['taken']:
        unread.remove(shape)
    # For infonce every pair is a group of its own, so that the groups' numbers are not read.
    config = config_lib.experiment(ROOT / path).get_config()
    rows = found['local_batch'][0][0][0]
    assert unread == ([[rows]] * 2 if config.task.objective == 'infonce' else [])
    assert report['peak_bytes_per_device'] <= HEADROOM * report['capacity_bytes']
    assert 0.9 < report['flops_ratio'] <= MOST_FLOPS
    assert not report['uncounted']
