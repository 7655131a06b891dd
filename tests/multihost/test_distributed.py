"""How the processes of a job find each other, and that they end together."""

import pathlib
import re
import socket
import time

import pytest

from alm_jax import distributed
from alm_jax.config import ConfigError

ENDING = pathlib.Path(__file__).with_name('ending.py')
SLURM = {'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4', 'SLURM_STEP_NUM_NODES': '2'}


@pytest.mark.parametrize(
    'environment',
    [
        {},
        SLURM,  # the script of sbatch
        {**SLURM, 'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'},  # a shell of salloc
        {'OMPI_COMM_WORLD_SIZE': '1'},
        {'TPU_ML_PLATFORM': 'JAX', 'TPU_WORKER_HOSTNAMES': 'localhost'},
    ],
)
def test_alone(environment):
    assert distributed.detected(environment) is None


@pytest.mark.parametrize(
    ('more', 'devices'),
    [
        ({'SLURM_STEP_NUM_TASKS': '4'}, None),  # no GPUs are told
        ({'SLURM_STEP_NUM_TASKS': '4', 'CUDA_VISIBLE_DEVICES': '0,1'}, None),  # jax gives each one
        ({'SLURM_STEP_NUM_TASKS': '4', 'CUDA_VISIBLE_DEVICES': '1'}, [0]),
        ({'SLURM_STEP_NUM_TASKS': '2', 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}, [0, 1, 2, 3]),
    ],
)
def test_a_step_of_slurm_and_its_gpus(more, devices):
    expected = {'cluster_detection_method': 'slurm', 'local_device_ids': devices}
    assert distributed.detected({**SLURM, **more}) == expected


def test_open_mpi_and_tpus():
    mpi = {'OMPI_COMM_WORLD_SIZE': '2'}
    with pytest.raises(ConfigError, match='OMPI_COMM_WORLD_RANK'):
        distributed.detected(mpi)
    mpi['OMPI_MCA_orte_hnp_uri'] = '1;tcp://10.0.0.1:1'
    assert distributed.detected(mpi) == {'cluster_detection_method': 'ompi'}
    tpu = {'TPU_ML_PLATFORM': 'JAX'}
    for more in ({}, {'TPU_WORKER_HOSTNAMES': 'a,b'}, {'MEGASCALE_NUM_SLICES': '2'}):
        assert distributed.detected({**tpu, **more}) == {}


@pytest.mark.parametrize(
    ('flags', 'told'),
    [
        (('--num_processes=2',), '--coordinator_address and --process_id must be given too'),
        (
            ('--coordinator_address=localhost:1', '--num_processes=2', '--process_id=2'),
            'ids go from 0 to 1',
        ),
        (('--coordinator_address=host', '--num_processes=2', '--process_id=0'), 'HOST:PORT'),
        (
            ('--coordinator_address=localhost:1', '--num_processes=2', '--process_id=1'),
            'the coordinator localhost:1 cannot be reached in 1 s',
        ),
        (
            ('--coordinator_address=localhost:{port}', '--num_processes=2', '--process_id=0'),
            'not all processes have come to the coordinator at localhost:',
        ),
    ],
)
def test_wrong_flags_and_absent_processes(jobs, flags, told, unused_tcp_port):
    flags = [flag.format(port=unused_tcp_port) for flag in flags]
    job = jobs.start(1, 1, ENDING, 0, 'mistake', 'sleep', *flags, '--join_seconds=1')
    assert job.wait() == [2]
    assert 'Traceback' not in job.output(0)
    assert re.search(f'error: .*{re.escape(told)}', job.output(0))


@pytest.fixture
def unused_tcp_port():
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ('which', 'how', 'where', 'code'),
    [
        (0, 'mistake', 'sleep', 2),
        (1, 'mistake', 'collective', 2),
        (0, 'defect', 'collective', 1),
        (1, 'defect', 'sleep', 1),
    ],
)
def test_all_end_when_one_fails(jobs, which, how, where, code):
    job = jobs.start(2, 1, ENDING, which, how, where)
    begun = time.monotonic()
    assert job.wait() == [code] * 2
    assert time.monotonic() - begun < 60
    other = job.output(1 - which)
    assert re.search(
        f'process {which} on .*: .*This is wrong.\nprocess {1 - which} ends too', other
    )
    assert ('Traceback' in job.output(which)) == (how == 'defect')


@pytest.mark.parametrize('which', [0, 1])
def test_all_end_when_one_is_killed(jobs, which):
    job = jobs.start(2, 1, ENDING, which, 'kill', 'collective')
    begun = time.monotonic()
    codes = job.wait()
    assert codes[which] == 9
    assert codes[1 - which] not in (0, 9)
    assert time.monotonic() - begun < 60
