"""Checkpoints: written in the background, complete only once a manifest names every file's hash.

``<workdir>/checkpoints/<step>/`` holds what Orbax writes (items 'params', 'extra', 'training') and
``manifest.json``, written last: without it, or when a file differs from it, the checkpoint does not
count and the one before is used. No iterator state is saved; ``data_step`` says which batch is
next.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from alm_jax.config import ConfigError
from alm_jax.training import environment, param_names, whole_copy
from alm_jax.training.state import TrainState

MANIFEST = 'manifest.json'


class CheckpointError(ConfigError):
    """A checkpoint is missing, damaged or of another model; the message says what to do."""


class Checkpointer:
    """Saves the states of one run; use as a context manager, or ``close``.

    After each save only that checkpoint and the newest complete ones before it, ``keep`` in all,
    stay, and of those before it what was saved as ``kept``. Anything else under ``checkpoints/``
    (torn writes, a later step of an abandoned run) goes.
    """

    def __init__(self, workdir: str | os.PathLike, *, keep: int, **context: Any):
        """Args:
        workdir: the run's folder.
        keep: checkpoints to keep, at least 1.
        **context: JSON values for the manifest, such as mesh and config_sha256.
        """
        if keep < 1:
            raise ConfigError(f'config.checkpoint.keep is {keep}; it must be at least 1.')
        self._folder = pathlib.Path(workdir).absolute() / 'checkpoints'
        self._keep = keep
        self._context = context
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._thread = concurrent.futures.ThreadPoolExecutor(1, 'checkpoint')
        self._finishing: concurrent.futures.Future | None = None

    def save(self, state: TrainState, *, kept: bool = False, **context: Any) -> None:
        """Starts to save; returns when ``state`` may be donated. Waits for the save before it.

        Args:
          state: of the run.
          kept: whether it stays, however many come after it.
          **context: more JSON values for the manifest.
        """
        self.wait()
        step, data_step = int(state.step), int(state.data_step)
        path = self._folder / str(step)
        items = _items(state)
        manifest = {
            'step': step,
            'data_step': data_step,
            'tree': _spec(items),
            **environment.entries(),
            'kept': kept,
            **self._context,
            **context,
        }
        # The old manifest must not vouch for a folder that is being written again.
        if jax.process_index() == 0:
            (path / MANIFEST).unlink(missing_ok=True)
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._orbax.save(path, args=ocp.args.Composite(**arguments), force=True)
        self._finishing = self._thread.submit(self._finish, path, manifest)

    def wait(self) -> None:
        """Returns when the last save is complete; raises what went wrong in it."""
        if self._finishing is not None:
            finishing, self._finishing = self._finishing, None
            finishing.result()

    def close(self) -> None:
        """Waits for the last save and frees the threads."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._orbax.close()

    def __enter__(self) -> 'Checkpointer':
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _finish(self, path: pathlib.Path, manifest: dict) -> None:
        self._orbax.wait_until_finished()
        if jax.process_index():
            return
        manifest['files'] = {
            name: {'bytes': (path / name).stat().st_size, 'sha256': _file_sha256(path / name)}
            for name in _files(path)
        }
        partial = path / (MANIFEST + '.partial')
        partial.write_text(json.dumps(manifest, indent=1, sort_keys=True) + '\n')
        partial.replace(path / MANIFEST)
        complete = [step for step in _steps(self._folder) if step <= manifest['step']]
        kept = {
            str(step)
            for rank, step in enumerate(complete)
            if rank < self._keep or read_manifest(self._folder / str(step)).get('kept')
        }
        for entry in self._folder.iterdir():
            if entry.name not in kept:
                shutil.rmtree(entry)


def latest_complete(workdir: str | os.PathLike) -> pathlib.Path | None:
    """The newest checkpoint of a run whose every file is as its manifest says, or None.

    A damaged one is passed over and the reason printed.
    """
    folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    for step in _steps(folder):
        reason = damage(folder / str(step))
        if reason is None:
            return folder / str(step)
        print(f'checkpoint {folder / str(step)} is not used: {reason}', file=sys.stderr, flush=True)
    return None


def resolve(path: str | os.PathLike, step: int | None = None) -> pathlib.Path:
    """The complete checkpoint that ``path`` (a workdir or a checkpoint folder) and ``step`` mean.

    Raises:
      CheckpointError: there is none, or the one named is damaged.
    """
    path = pathlib.Path(path).absolute()
    if not (path / MANIFEST).exists():
        chosen = latest_complete(path) if step is None else path / 'checkpoints' / str(step)
        if chosen is None:
            raise CheckpointError(f'{path} holds no complete checkpoint. Train first, or name one.')
        path = chosen
    reason = damage(path)
    if reason is not None:
        steps = ', '.join(map(str, _steps(path.parent))) or 'none'
        raise CheckpointError(f'checkpoint {path} cannot be used: {reason}. Steps there: {steps}.')
    return path


def damage(path: pathlib.Path) -> str | None:
    """Why the checkpoint at ``path`` does not count, or None when it is whole."""
    try:
        files = read_manifest(path)['files']
    except FileNotFoundError:
        return f'it has no {MANIFEST}, so its writing never finished'
    except (ValueError, KeyError):
        return f'its {MANIFEST} cannot be read'
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            return f'{name} is missing'
        if file.stat().st_size != expected['bytes']:
            return f'{name} has {file.stat().st_size} bytes, not {expected["bytes"]}'
        if _file_sha256(file) != expected['sha256']:
            return f'{name} differs from its sha256'
    return None


def read_manifest(path: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a checkpoint folder."""
    return json.loads((pathlib.Path(path) / MANIFEST).read_text())


def restore(path: str | os.PathLike, abstract_state: TrainState) -> TrainState:
    """The saved state, in the shapes, dtypes and shardings of ``abstract_state``.

    The mesh may differ from the one that saved.

    Raises:
      CheckpointError: the tree in the checkpoint is not that of ``abstract_state``; every
        difference is listed.
    """
    items = _items(abstract_state)
    saved = _restore(pathlib.Path(path), items)
    training = saved['training']
    return TrainState(
        step=training['step'],
        data_step=training['data_step'],
        params=saved['params'],
        opt_state=flax.serialization.from_state_dict(
            abstract_state.opt_state, training['opt_state']
        ),
        extra=saved.get('extra', abstract_state.extra),
    )


def load_params(path: str | os.PathLike) -> tuple[Any, Any]:
    """(params, extra) of a checkpoint folder as numpy arrays, without its optimizer."""
    tree = read_manifest(path)['tree']
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    items = traverse_util.unflatten_dict(
        {
            tuple(name.split('/')): jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=here)
            for name, (dtype, shape) in tree.items()
            if not name.startswith('training/')
        }
    )
    saved = jax.tree.map(np.asarray, _restore(pathlib.Path(path), items, partial=True))
    return saved['params'], saved.get('extra', {})


def checkpoint_sha256(params: Any) -> str:
    """The hash of the logical parameters, as hex.

    Over (canonical name, dtype, shape, little-endian bytes) in the order of names: neither
    sharding nor stacking of layers changes it. One parameter of one layer is on the host at a time.
    Parameters that are split over processes need all of them to call it.
    """
    digest = hashlib.sha256()
    for name, (_, index, leaf) in sorted(param_names.locations(params).items()):
        value = whole_copy.fetch(leaf, index)
        digest.update(f'{name} {value.dtype} {value.shape}\n'.encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _items(state: TrainState) -> dict[str, Any]:
    """A state as plain nested dicts; an item without leaves is left out, Orbax refuses those."""
    items = {
        'params': state.params,
        'extra': state.extra,
        'training': {
            'step': state.step,
            'data_step': state.data_step,
            'opt_state': flax.serialization.to_state_dict(state.opt_state),
        },
    }
    return {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}


def _spec(items: Mapping[str, Any]) -> dict[str, tuple[str, list[int]]]:
    flat = traverse_util.flatten_dict(dict(items), sep='/')
    return {name: (str(leaf.dtype), list(leaf.shape)) for name, leaf in flat.items()}


def _restore(path: pathlib.Path, items: dict[str, Any], partial: bool = False) -> Any:
    path = path.absolute()
    saved = {name: (dtype, shape) for name, (dtype, shape) in read_manifest(path)['tree'].items()}
    wanted = _spec(items)
    problems = [
        f'{name} is {saved.get(name, "missing")} there and {wanted.get(name, "unknown")} here'
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name) and not (partial and name not in wanted)
    ]
    if problems:
        raise CheckpointError(
            f'checkpoint {path} is of another model or optimizer:\n  '
            + '\n  '.join(problems[:20])
            + (f'\n  and {len(problems) - 20} more' if len(problems) > 20 else '')
            + '\nUse the config it was trained with, a new workdir, or config.init_from.'
        )
    arguments = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as orbax:
        return dict(orbax.restore(path, args=ocp.args.Composite(**arguments)).items())


def _steps(folder: pathlib.Path) -> list[int]:
    """Steps whose folders have a manifest, newest first."""
    found = folder.glob(f'*/{MANIFEST}')
    return sorted((int(f.parent.name) for f in found if f.parent.name.isdigit()), reverse=True)


def _files(path: pathlib.Path) -> Iterator[str]:
    for file in sorted(path.rglob('*')):
        if file.is_file() and file.name not in (MANIFEST, MANIFEST + '.partial'):
            yield file.relative_to(path).as_posix()


def _file_sha256(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
