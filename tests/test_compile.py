"""The program that is compiled ahead is the one that train.py runs; reports; messages."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from alm_jax import compile as compile_lib
from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.training import sharding
from alm_jax.training.perf import hardware, hlo_text, report, topology

ROOT = pathlib.Path(__file__).parents[1]
REPORT_KEYS = {
    *('topology', 'devices', 'peak_bytes_per_device', 'capacity_bytes', 'fits', 'xla_flops'),
    *('model_flops', 'bytes_accessed', 'collectives', 'roofline_seconds', 'roofline_mfu'),
    *('bound_by', 'compile_seconds'),
}


@pytest.fixture(scope='module')
def config():
    config = config_lib.base()
    config.batch_size = 8
    config.front_end.seconds = 1.0
    config.text.lengths = (16,)
    config.model.embed_dim = 16
    config.task.objective = 'multi_positive'  # which reads every array of the batch
    return config


@pytest.fixture(scope='module')
def here():
    """One device of this machine, with the figures of a v5e."""
    return topology.Topology('cpu', hardware.chip('v5e'), (1, 1), tuple(jax.devices()[:1]))


@pytest.fixture(scope='module')
def compiled(config, here):
    planned = compile_lib.program(config, sharding.make_mesh(config.mesh, here.devices))
    lowered = planned.train_step.lower(planned.state, planned.batch)
    return planned, lowered.compile()


def test_the_program_takes_the_state_and_the_batch_of_the_config(config, compiled):
    planned, program = compiled
    module = hlo_text.parse(program.as_text())
    entry = module.computations[module.entry]
    taken = [i.arrays[0].dims for i in entry.instructions if i.opcode == 'parameter']
    for shape in ((8, 16_000), (8, 16)):  # a second of audio, and 16 tokens
        assert shape in [leaf.shape for leaf in jax.tree.leaves(planned.batch)]
        assert shape in taken
    leaves = jax.tree.leaves((planned.state, planned.batch))
    assert sorted(taken) == sorted(leaf.shape for leaf in leaves)
    assert 'input_output_alias' in program.as_text()  # the state is donated


def test_the_report_has_what_other_programs_read_and_flops_agree(compiled, here):
    planned, program = compiled
    found = report.of_program(program, planned.flops, here, 1.5)
    assert set(found) >= REPORT_KEYS
    assert json.loads(json.dumps(found)) == found
    assert found['fits']
    assert found['peak_bytes_per_device'] > 4 * 3 * sum(
        leaf.size for leaf in jax.tree.leaves(planned.state.params)
    )
    assert found['flops_ratio'] == pytest.approx(1, abs=0.05)
    assert found['model_flops'] > 0 < found['front_end_flops']
    text = report.table(found)
    assert 'fits' in text
    assert f'{found["roofline_mfu"]:.1%}' in text


def test_a_program_too_large_is_a_verdict_and_another_error_stays_one(here):
    refused = RuntimeError(
        'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO '
        'temporaries (320.00G) exceeds available HBM (15.75G).'
    )
    found = report.of_failure(refused, here, 2.0)
    assert set(found) >= REPORT_KEYS
    assert not found['fits']
    assert found['peak_bytes_per_device'] == 320 * 2**30
    assert 'OUT OF MEMORY: needs 320.000 GiB of 15.750 GiB' in report.table(found)
    older = RuntimeError('RESOURCE_EXHAUSTED: Used 17.5G of 15.75G hbm. Exceeded by 1.75G.')
    assert report.of_failure(older, here, 2.0)['peak_bytes_per_device'] == int(17.5 * 2**30)
    with pytest.raises(RuntimeError, match='INTERNAL'):
        report.of_failure(RuntimeError('INTERNAL: no'), here, 2.0)


@pytest.mark.parametrize('largest', [0, 16, 48, 64, 1600, 100_000])
def test_the_largest_batch_is_found_to_a_sixteenth(largest):
    asked = []

    def fits(batch):
        asked.append(batch)
        assert batch % 16 == 0
        return batch <= largest

    found = compile_lib.largest_batch(fits, 64, 16)
    assert largest - max(16, largest / 16) < found <= largest
    assert len(asked) < 20


def test_a_sweep_tells_of_each_case_and_of_memory_that_is_too_small(config, here, capfd):
    chip = dataclasses.replace(here.chip, memory_bytes=1000)
    small = dataclasses.replace(here, chip=chip)
    one = compile_lib.changed(config, batch_size=1)
    fits, misfit = compile_lib.sweep(one, here, [{'data': 1}, {'data': 3}], [1], ['block'])
    assert fits['fits']
    assert (fits['batch_size'], fits['remat']) == (1, 'block')
    assert 'does not fit 1 devices' in misfit['error']
    assert 'fits: ' in capfd.readouterr().err
    with pytest.raises(ConfigError, match='not even a batch of 1 fits'):
        compile_lib.find_max_batch(one, small)
    assert 'batch 1: OUT OF MEMORY' in capfd.readouterr().err


def test_a_changed_copy_leaves_the_config(config):
    before = dict(config.mesh)
    copy = compile_lib.changed(config, mesh={'data': 1, 'fsdp': -1}, batch_size=16)
    assert (copy.batch_size, dict(copy.mesh)) == (16, {'data': 1, 'fsdp': -1})
    assert (config.batch_size, dict(config.mesh)) == (8, before)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('v5:16x16', "Did you mean 'v5"),
        ('v5e', 'write one such as v5e:16x16'),
        ('v5e:4x4x4', 'write one such as v5e:16x16'),
        ('h100:12', 'a multiple of it'),
    ],
)
def test_a_topology_that_is_none(name, message):
    with pytest.raises(ConfigError, match=message):
        topology.describe(name)


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is not None, reason='libtpu is installed')
def test_a_missing_compiler_is_told_on_one_screen(tmp_path):
    command = [sys.executable, '-m', 'alm_jax.compile', '--topology=v5e:2x2', f'--out={tmp_path}']
    command += ['--config=configs/clap/tiny.py:smoke']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'error: --topology needs the TPU compiler, which is not installed' in done.stderr
    assert 'pip install "alm_jax[tpu]"' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.slow_local
@pytest.mark.parametrize(('name', 'devices'), [('v5e:16x16', 256), ('h100:8', 8)])
def test_a_real_compiler_takes_the_step(compiler_python, tmp_path, name, devices):
    command = [compiler_python(name), '-m', 'alm_jax.compile']
    command += ['--config=configs/clap/tiny.py:smoke', '--config.batch_size=1024']
    command += [f'--topology={name}', f'--out={tmp_path}']
    plain = {key: value for key, value in os.environ.items() if key != 'XLA_FLAGS'}
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / 'compile' / 'report.json').read_text())
    assert set(found) >= REPORT_KEYS
    assert (found['topology'], found['devices'], found['fits']) == (name, devices, True)
    assert 0.9 < found['flops_ratio'] < 1.4
    assert any(entry['kind'] == 'all-reduce' for entry in found['collectives'])


MESHES = """
from alm_jax import config
from alm_jax.training import sharding
from alm_jax.training.perf import topology
for name in ('v4:4x4x4', 'v5p:4x4x4', 'v6e:4x4', 'v5e:4x4*2'):
    where = topology.describe(name)
    mesh = {'data': -1, 'fsdp': 4, 'dcn': 2 if '*' in name else 1}
    made = sharding.make_mesh(mesh, where.devices)
    print(name, made.shape['data'], made.shape['fsdp'])
for name in ('v5e:3x5', 'v6e:16x16'):
    try:
        where = topology.describe(name)
        sharding.make_mesh({'fsdp': 4}, where.devices)
    except config.ConfigError as error:
        print(error)
"""


@pytest.mark.slow_local
def test_topologies_of_tpus_and_what_cannot_be_laid_on_them(compiler_python):
    python = compiler_python('v5e')
    done = subprocess.run([python, '-c', MESHES], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[:4] == ['v4:4x4x4 16 4', 'v5p:4x4x4 16 4', 'v6e:4x4 4 4', 'v5e:4x4*2 8 4']
    assert 'the compiler refuses it' in lines[4]
    assert 'cuts an axis of the torus of 16x16 chips' in lines[5]
