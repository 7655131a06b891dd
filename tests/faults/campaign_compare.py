"""Whether a run that was disturbed is, to the last bit, the one that was not."""

import json
import pathlib

import numpy as np

from alm_jax.training import checkpoint
from alm_jax.training.compared_runs import leaf
from tests.faults import campaign_config as small
from tests.train_program import numbers

OF_THE_COMMAND = 'train/bad_records'  # counts what this command, not the run, has read


def differences(reference: pathlib.Path, run: pathlib.Path) -> list[str]:
    """What differs, one line each, the first of its kind; [] when nothing does.

    Compared are all numbers of metrics.jsonl but speeds, every array of the last checkpoint
    (parameters, ``extra``, optimizer, counts of steps and batches), the hash of its parameters, and
    the results of evaluations.
    """
    found = []
    wanted, got = (
        {k: v for k, v in numbers(w).items() if k[1] != OF_THE_COMMAND} for w in (reference, run)
    )
    differ = sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k))
    if differ:
        first = differ[0]
        found.append(
            f'{len(differ)} numbers differ, first at step {first[0]}: {first[1]} is '
            f'{got.get(first)}, not {wanted.get(first)}'
        )
    last = f'checkpoints/{small.STEPS}'
    arrays, others = (_arrays(workdir / last) for workdir in (reference, run))
    differ = sorted(k for k in arrays.keys() | others.keys() if not _same(arrays, others, k))
    if differ:
        found.append(f'{len(differ)} arrays of the last checkpoint differ, first {differ[0]}')
    hashes = {_sha256(workdir / last) for workdir in (reference, run)}
    if len(hashes) > 1:
        found.append(f'checkpoint_sha256 differs: {hashes}')
    return found + [
        f'{path.relative_to(reference)} differs'
        for path in sorted(reference.glob('evals/*/*.json'))
        if json.loads(path.read_text()) != _read(run / path.relative_to(reference))
    ]


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its name."""
    return {name: leaf(path, name) for name in checkpoint.read_manifest(path)['tree']}


def _same(arrays: dict, others: dict, name: str) -> bool:
    if name not in arrays or name not in others:
        return False
    one, other = arrays[name], others[name]
    same = (one.dtype, one.shape) == (other.dtype, other.shape)
    return same and one.tobytes() == other.tobytes()


def _sha256(path: pathlib.Path) -> str:
    return checkpoint.checkpoint_sha256(checkpoint.load_params(path)[0])


def _read(path: pathlib.Path):
    return json.loads(path.read_text()) if path.exists() else None
