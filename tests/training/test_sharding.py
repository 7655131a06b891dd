"""Meshes and batches: what fits, and what the errors say."""

import numpy as np
import pytest
from jax.sharding import AbstractMesh

from alm_jax.config import ConfigError
from alm_jax.training import sharding


def test_minus_one_takes_the_rest():
    mesh = sharding.make_mesh({'data': -1})
    assert dict(mesh.shape) == {'data': 1, 'fsdp': 1, 'tensor': 1, 'sequence': 1}
    batch = sharding.put_batch({'x': np.arange(6).reshape(3, 2)}, mesh)
    np.testing.assert_array_equal(batch['x'], np.arange(6).reshape(3, 2))
    assert batch['x'].sharding == sharding.batch_sharding(mesh)


@pytest.mark.parametrize(
    ('axes', 'message'),
    [
        ({'data': 3}, 'xla_force_host_platform_device_count=3'),
        ({'modle': -1}, "'modle' is no axis"),
        ({'data': -1, 'fsdp': -1}, 'at most one is -1'),
        ({'data': 0}, 'sizes are positive'),
        ({'data': -1, 'dcn': 2}, r'1 slice\(s\) and 1 process\(es\). Use dcn=-1'),
    ],
)
def test_a_mesh_that_does_not_fit(axes, message):
    with pytest.raises(ConfigError, match=message):
        sharding.make_mesh(axes)


def test_a_batch_that_does_not_divide_names_one_that_does():
    four = AbstractMesh((4,), ('data',))
    sharding.check_batch_size(64, four)
    with pytest.raises(ConfigError, match='Use a multiple of 4, such as 64'):
        sharding.check_batch_size(65, four)
    with pytest.raises(ConfigError, match='such as 4'):
        sharding.put_batch({'x': np.zeros((3, 2))}, four)


def test_rows_go_over_data_and_fsdp():
    mesh = AbstractMesh((2, 4, 2, 1), sharding.AXES)
    assert sharding.batch_devices(mesh) == 8
    with pytest.raises(ConfigError, match=r'8 devices \(data 2 x fsdp 4\). Use a multiple of 8'):
        sharding.check_batch_size(12, mesh)
    sharding.check_batch_size(16, mesh, processes=4)
    with pytest.raises(ConfigError, match='Make it a multiple of 3'):
        sharding.check_batch_size(24, mesh, processes=3)
