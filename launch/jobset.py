"""Submits a training job to Kubernetes: jobset.yaml with the values of one job.

  python launch/jobset.py --name my-run --topology v5e:16x16 --image IMAGE --claim runs \
      -- --config configs/clap/tiny.py --workdir /mnt/runs/my-run

--topology is as in alm_jax.compile: v4:4x4x4, v5e:16x16, v5p:4x4x8, v6e:16x16, with *N for N slices
(v5e:16x16*2), or h100:N, eight GPUs a node. What follows -- are the arguments of alm_jax.train, or
a command. The volume of --claim is mounted at /mnt/runs. --dry_run prints what would be applied.
The same command again, once the job is deleted, goes on from the newest checkpoint.
"""

import argparse
import math
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import yaml

TEMPLATE = pathlib.Path(__file__).with_name('jobset.yaml')
# What GKE calls them, https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
TPUS = {
    'v4': 'tpu-v4-podslice',
    'v5e': 'tpu-v5-lite-podslice',
    'v5p': 'tpu-v5p-slice',
    'v6e': 'tpu-v6e-slice',
}
CHIPS_A_HOST, GPUS_A_NODE = 4, 8
EXAMPLES = 'v4:4x4x4, v5e:16x16, v5e:16x16*2, v5p:4x4x8, v6e:16x16, h100:8, h100:16'
TRAIN = ('python', '-m', 'alm_jax.train')


class ArgumentError(ValueError):
    """An argument that the user can mend."""


def manifest(name: str, topology: str, image: str, claim: str, run: Sequence[str]) -> dict:
    """The JobSet of one job.

    Args:
      name: of the JobSet.
      topology: see the head of this file.
      image: of the container.
      claim: name of the PersistentVolumeClaim.
      run: arguments of alm_jax.train, or a command.

    Raises:
      ArgumentError: names what is wrong and what would be right.
    """
    if not re.fullmatch(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?', name):
        raise ArgumentError(
            f'--name is {name!r}; Kubernetes takes up to 40 lower-case letters, digits and inner '
            'hyphens here.'
        )
    tpu, gpu = yaml.safe_load_all(TEMPLATE.read_text())
    kind, sizes, slices = _parse(topology)
    jobset = gpu if kind == 'h100' else tpu
    jobset['metadata']['name'] = name
    (job,) = jobset['spec']['replicatedJobs']
    pod = job['template']['spec']['template']['spec']
    (container,) = pod['containers']
    container['image'] = image
    pod['volumes'][0]['persistentVolumeClaim']['claimName'] = claim
    command = list(run) if not run[0].startswith('-') else [*TRAIN, *run]
    container['command'], container['args'] = command[:1], command[1:]
    if kind == 'h100':
        hosts = _gpu_nodes(sizes, slices, topology)
        container['resources']['limits']['nvidia.com/gpu'] = min(math.prod(sizes), GPUS_A_NODE)
        _set(container, 'PROCESSES', str(hosts))
        container['args'] += [
            '--coordinator_address=$(COORDINATOR):8476',
            '--num_processes=$(PROCESSES)',
            '--process_id=$(PROCESS)',
        ]
    else:
        hosts = _tpu_hosts(kind, sizes, topology)
        pod['nodeSelector'] = {
            'cloud.google.com/gke-tpu-accelerator': TPUS[kind],
            'cloud.google.com/gke-tpu-topology': 'x'.join(map(str, sizes)),
        }
        container['resources']['limits']['google.com/tpu'] = min(math.prod(sizes), CHIPS_A_HOST)
        job['replicas'] = slices
        if slices == 1:
            container['env'] = [
                entry for entry in container['env'] if not entry['name'].startswith('MEGASCALE')
            ]
    job['template']['spec']['parallelism'] = job['template']['spec']['completions'] = hosts
    return jobset


def _parse(topology: str) -> tuple[str, tuple[int, ...], int]:
    match = re.fullmatch(r'(\w+):([1-9]\d*(?:x[1-9]\d*){0,2})(?:\*([1-9]\d*))?', topology)
    if not match or match[1] not in (*TPUS, 'h100'):
        raise ArgumentError(f'--topology is {topology!r}; write one such as {EXAMPLES}.')
    return match[1], tuple(map(int, match[2].split('x'))), int(match[3] or 1)


def _gpu_nodes(sizes: tuple[int, ...], slices: int, topology: str) -> int:
    (gpus,) = sizes if len(sizes) == 1 else (0,)
    if not gpus or slices > 1 or (gpus > GPUS_A_NODE and gpus % GPUS_A_NODE):
        raise ArgumentError(
            f'--topology is {topology!r}; give GPUs as h100:N, N at most {GPUS_A_NODE} or a '
            'multiple of it, which is as many nodes.'
        )
    return max(1, gpus // GPUS_A_NODE)


def _tpu_hosts(kind: str, sizes: tuple[int, ...], topology: str) -> int:
    chips = math.prod(sizes)
    if len(sizes) != (2 if kind in ('v5e', 'v6e') else 3) or (
        chips > CHIPS_A_HOST and chips % CHIPS_A_HOST
    ):
        raise ArgumentError(f'--topology is {topology!r}; write one such as {EXAMPLES}.')
    return max(1, chips // CHIPS_A_HOST)


def _set(container: dict[str, Any], name: str, value: str) -> None:
    next(entry for entry in container['env'] if entry['name'] == name)['value'] = value


def main(argv: Sequence[str]) -> int:
    own, dashes, run = list(argv), [], []
    if '--' in own:
        at = own.index('--')
        own, dashes, run = own[:at], own[at : at + 1], own[at + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ('name', 'topology', 'image', 'claim'):
        parser.add_argument(f'--{name}', required=True)
    parser.add_argument('--dry_run', action='store_true')
    given = parser.parse_args(own)
    try:
        if not dashes or not run:
            raise ArgumentError(
                'give after -- what to run, such as -- --config FILE --workdir DIR.'
            )
        made = manifest(given.name, given.topology, given.image, given.claim, run)
    except ArgumentError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    text = yaml.safe_dump(made, sort_keys=False)
    if given.dry_run:
        print(text, end='')
        return 0
    try:
        return subprocess.run(['kubectl', 'apply', '-f', '-'], input=text, text=True).returncode
    except FileNotFoundError:
        print('error: kubectl is not installed; --dry_run prints the file.', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
