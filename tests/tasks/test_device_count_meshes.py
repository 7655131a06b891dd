"""Meshes with every axis give the losses of one device, and split what they say they split."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name('mesh_run.py')


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('meshes')
    # Without optimisation compilation, which is nearly all of the time, is shortest.
    flags = '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, SCRIPT, folder], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / 'found.npz') as arrays:
        return dict(arrays)


@pytest.mark.parametrize('mesh', ['data', 'fsdp', 'tensor'])
def test_losses_are_those_of_one_device(found, mesh):
    """With dropout, frozen parts and, on two of the meshes, another form of the objective."""
    one = found['losses_one']
    assert len(one) == 10
    assert np.ptp(one) > 0.1  # it does train
    np.testing.assert_allclose(found[f'losses_{mesh}'], one, rtol=0, atol=1e-5)


def test_each_device_holds_its_part_only(found):
    assert found['query_one'].tolist() == [2, 64, 64]
    assert found['query_data'].tolist() == [2, 64, 64]
    assert found['query_fsdp'].tolist() == [2, 16, 64]
    assert found['query_tensor'].tolist() == [2, 32, 32]
    for part in ('params', 'moments'):
        one = found[f'{part}_one']
        assert found[f'{part}_data'] == one
        assert one / 4 < found[f'{part}_fsdp'] < one / 3  # all but norms, biases and convolutions
        assert one / 4 < found[f'{part}_tensor'] < one / 1.9  # vocabularies over fsdp 2 only


def test_the_table_tells_the_bytes(found):
    for mesh in ('one', 'data', 'fsdp', 'tensor'):
        held = [found[f'params_{mesh}'], found[f'moments_{mesh}']]
        assert found[f'table_{mesh}'].tolist() == held


def test_a_checkpoint_restores_on_other_meshes(found):
    assert found['wrong_restores'].tolist() == []


def test_clips_embed_to_the_same_bits_with_a_tensor_axis(found):
    assert not found['embeddings_differ']


def test_named_activations_are_split_where_they_divide(found):
    assert found['placed']
