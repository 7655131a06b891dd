"""jobset.yaml and what jobset.py makes of it, against the published schemas.

The Job inside is checked by Kubernetes' own JSON schemas, the JobSet around it by the models that
Kubeflow generates from JobSet's OpenAPI document.
"""

import copy
import pathlib
import subprocess
import sys

import pytest
import yaml

from alm_jax.config import experiment

kubernetes_validate = pytest.importorskip('kubernetes_validate', reason='not installed: [dev]')
trainer_api = pytest.importorskip('kubeflow_trainer_api.models', reason='not installed: [dev]')

LAUNCH = pathlib.Path(__file__).parents[2] / 'launch'
jobset = experiment(LAUNCH / 'jobset.py')
RUN = ('--config', 'configs/clap/tiny.py', '--workdir', '/mnt/runs/x')
TOPOLOGIES = {  # hosts of a slice, slices, devices of a host
    'v4:4x4x4': (16, 1, 4),
    'v5e:2x2': (1, 1, 4),
    'v5e:16x16': (64, 1, 4),
    'v5e:16x16*2': (64, 2, 4),
    'v5p:4x4x8': (32, 1, 4),
    'v6e:16x16': (64, 1, 4),
    'h100:8': (1, 1, 8),
    'h100:16': (2, 1, 8),
}


def check(document: dict) -> None:
    """Raises when a field is unknown, missing or of another type."""
    outer = copy.deepcopy(document)
    for job in outer['spec']['replicatedJobs']:
        whole = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': job['name']}}
        kubernetes_validate.validate(
            {**whole, **job['template']}, kubernetes_validate.latest_version(), strict=True
        )
        job['template'] = {}
    model = trainer_api.JobsetV1alpha2JobSet.from_dict(outer)
    assert model.to_dict() == outer  # the model leaves out a field that JobSet does not know


@pytest.mark.parametrize('number', [0, 1])
def test_the_file_itself_is_valid(number):
    documents = list(yaml.safe_load_all((LAUNCH / 'jobset.yaml').read_text()))
    assert len(documents) == 2
    check(documents[number])


@pytest.mark.parametrize('topology', TOPOLOGIES)
def test_what_is_made_of_it_is_valid_and_of_the_right_size(topology):
    made = jobset.manifest('my-run', topology, 'image:1', 'claim', RUN)
    check(made)
    (job,) = made['spec']['replicatedJobs']
    spec = job['template']['spec']
    (container,) = spec['template']['spec']['containers']
    (devices,) = container['resources']['limits'].values()
    assert (spec['completions'], job['replicas'], devices) == TOPOLOGIES[topology]
    assert spec['parallelism'] == spec['completions']
    assert container['image'] == 'image:1'
    claim = spec['template']['spec']['volumes'][0]['persistentVolumeClaim']
    assert claim == {'claimName': 'claim'}
    started = [*container['command'], *container['args']]
    assert started[: 3 + len(RUN)] == ['python', '-m', 'alm_jax.train', *RUN]
    names = {entry['name'] for entry in container['env']}
    assert ('MEGASCALE_SLICE_ID' in names) == ('*' in topology)
    assert ('--process_id=$(PROCESS)' in started) == topology.startswith('h100')


@pytest.mark.parametrize(
    'path',
    [
        ('spec', 'failurePolicy', 'maxRestarts'),
        ('spec', 'failurePolicy', 'rules', 0, 'onJobFailureReasons'),
        ('spec', 'replicatedJobs', 0, 'template', 'spec', 'podFailurePolicy'),
        ('spec', 'replicatedJobs', 0, 'template', 'spec', 'template', 'spec', 'nodeSelector'),
    ],
)
def test_a_misspelt_field_is_found(path):
    made = jobset.manifest('my-run', 'v5e:16x16', 'image', 'claim', RUN)
    *parents, last = path
    here = made
    for key in parents:
        here = here[key]
    here[last + 'x'] = here.pop(last)
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError)):
        check(made)


def test_a_command_replaces_the_training():
    made = jobset.manifest('a', 'v5e:2x2', 'i', 'c', ('python', 'launch/preflight.py', '--x'))
    pod = made['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
    container = pod['containers'][0]
    assert container['command'] + container['args'] == ['python', 'launch/preflight.py', '--x']


@pytest.mark.parametrize(
    ('topology', 'told'),
    [
        ('v5e', 'write one such as'),
        ('v5e:4x4x4', 'write one such as'),
        ('v5p:3x3x3', 'write one such as'),
        ('a100:8', 'write one such as'),
        ('h100:12', 'multiple'),
        ('h100:8*2', 'multiple'),
    ],
)
def test_a_wrong_topology_is_told(topology, told):
    with pytest.raises(jobset.ArgumentError, match=told):
        jobset.manifest('a', topology, 'i', 'c', RUN)


def test_a_dry_run_prints_what_would_be_applied():
    command = [sys.executable, LAUNCH / 'jobset.py', '--name', 'my-run', '--image', 'i']
    command += ['--topology', 'h100:16', '--claim', 'c', '--dry_run']
    done = subprocess.run([*command, '--', *RUN], capture_output=True, text=True, check=True)
    assert yaml.safe_load(done.stdout) == jobset.manifest('my-run', 'h100:16', 'i', 'c', RUN)
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ['error: give after -- what to run, such as -- --config FILE --workdir DIR.'],
    )
