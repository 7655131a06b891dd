"""Checkpoints: written in the background, complete only once a manifest names every file's hash.

``<workdir>/checkpoints/<step>/`` holds what Orbax writes (items 'params', 'extra', 'training') and
``manifest.json``, see ``training.manifest``: without it, or when a file differs from it, the
checkpoint does not count and the one before is used. No iterator state is saved; ``data_step`` says
which batch is next.
"""

import concurrent.futures
import hashlib
import logging
import os
import pathlib
import re
import shutil
import sys
import threading
from collections.abc import Mapping
from typing import Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from alm_jax import distributed
from alm_jax.training import environment, manifest, param_names, retention, whole_copy
from alm_jax.training.manifest import (
    MANIFEST,
    CheckpointError,
    damage,
    latest_complete,
    read_manifest,
    resolve,
    to_continue,
)
from alm_jax.training.retention import Retention
from alm_jax.training.save_barrier import SaveBarrier
from alm_jax.training.state import TrainState

__all__ = [
    'MANIFEST',
    'CheckpointError',
    'Checkpointer',
    'checkpoint_sha256',
    'damage',
    'latest_complete',
    'load_params',
    'read_manifest',
    'resolve',
    'restore',
    'to_continue',
]


class Checkpointer:
    """Saves the states of one run; use as a context manager, or ``close``.

    After each save those stay that ``Retention`` names. Others go, as do torn writes and later
    steps of an abandoned run, and nothing goes before the new one is complete.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        keep: int = 2,
        keep_every: int = 0,
        best: str = '',
        on_error: str = 'stop',
        restored_step: int = 0,
        **context: Any,
    ):
        """Args:
        workdir: the run's folder.
        keep: see ``Retention``, as for the two that follow.
        on_error: what a save that fails does: 'stop' raises, 'go_on' tells.
        restored_step: of the checkpoint that the run goes on from; what lies between it and the
          first save is of an abandoned run.
        **context: JSON values for the manifest, such as mesh and config_sha256.
        """
        self.retention = Retention(keep, keep_every, best)
        self._workdir = pathlib.Path(workdir).absolute()
        self._folder = self._workdir / 'checkpoints'
        self._stops = on_error == 'stop'
        self._restored = restored_step
        self._saved: set[int] = set()
        self._context = context
        self._workdir.mkdir(parents=True, exist_ok=True)
        logging.getLogger('absl').addFilter(_is_news)
        self._barrier = SaveBarrier()
        options = ocp.options.AsyncOptions(barrier_sync_fn=self._barrier.wait)
        self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), async_options=options)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, 'checkpoint')
        self._finishing: concurrent.futures.Future | None = None
        self._path = self._folder  # of the last save
        self._failed = ''  # why it failed, if it did

    def save(self, state: TrainState, *, kept: bool = False, **context: Any) -> None:
        """Starts to save; returns when ``state`` may be donated. Waits for the save before it.

        Args:
          state: of the run.
          kept: whether it stays, however many come after it.
          **context: more JSON values for the manifest.

        Raises:
          CheckpointError: as ``wait``, of the save before; or there is no room for this one.
        """
        self.wait()
        step, data_step = int(state.step), int(state.data_step)
        path = self._folder / str(step)
        items = _items(state)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
        self._path = path
        if self._settle(self._lack_of_room(path, size)):
            return
        entries = {
            'step': step,
            'data_step': data_step,
            'tree': _spec(items),
            **environment.entries(),
            'kept': kept,
            **self._context,
            **context,
        }
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._barrier.begin()
        try:
            # The old manifest must not vouch for a folder that is being written again.
            if jax.process_index() == 0:
                (path / MANIFEST).unlink(missing_ok=True)
            self._orbax.save(path, args=ocp.args.Composite(**arguments), force=True)
        except Exception as error:
            problem = self._problem(path, size, error)
            self._finishing = self._thread.submit(lambda: problem)
        else:
            self._finishing = self._thread.submit(self._finish, path, size, entries)

    def wait(self) -> None:
        """Returns when the last save is over. All processes must call it.

        Raises:
          CheckpointError: it failed in one of them, where that stops the run.
        """
        if self._finishing is not None:
            finishing, self._finishing = self._finishing, None
            self._settle(finishing.result())

    def check(self) -> None:
        """Raises what the save under way has failed with by now, where that stops the run.

        All processes must call it, at the same step; it waits for none of their disks.
        """
        over = self._stops and self._finishing is not None and self._finishing.done()
        self._settle(self._finishing.result() if over else '', over=False)

    def close(self) -> None:
        """Waits for the last save and frees the threads.

        Raises:
          CheckpointError: the last save failed, whatever ``on_error`` says: none comes after it.
        """
        try:
            self.wait()
            if self._failed:
                raise CheckpointError(f'the last save failed: {self._failed}')
            if self._saved and self.retention.best and jax.process_index() == 0:
                self._tidy(max(self._saved))  # what was measured after it is known now
        finally:
            self._free()

    def __enter__(self) -> 'Checkpointer':
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
            return
        try:  # others may be elsewhere: nothing is agreed on
            if self._finishing is not None and (problem := self._finishing.result()):
                _tell(problem)
        finally:
            self._free()

    def _free(self) -> None:
        self._thread.shutdown()
        self._orbax.close()
        logging.getLogger('absl').removeFilter(_is_news)

    def _finish(self, path: pathlib.Path, size: int, entries: dict) -> str:
        """In the thread: makes a save complete. Returns why it could not be."""
        try:
            self._orbax.wait_until_finished()
            if jax.process_index() == 0:
                manifest.complete(path, entries)
                self._saved = {step for step in self._saved if step < entries['step']}
                self._saved.add(entries['step'])
                self._tidy(entries['step'])
        except Exception as error:
            return self._problem(path, size, error)
        return ''

    def _tidy(self, now: int) -> None:
        """Removes what need not stay beside the complete checkpoint at step ``now``."""
        manifests = {}
        for step in manifest.steps(self._folder):
            if step in self._saved or step <= min(self._restored, now):
                try:
                    manifests[step] = read_manifest(self._folder / str(step))
                except (OSError, ValueError) as error:
                    _tell(f'checkpoint {self._folder / str(step)} goes: {error}')
        values = retention.measured(self._workdir, self.retention.metric)
        reasons = self.retention.reasons(manifests, values)
        for path in manifest.folders(self._folder):
            if not (path.name.isdigit() and reasons.get(int(path.name))):
                retention.remove(path)

    def _settle(self, problem: str, over: bool = True) -> bool:
        """Whether a save failed in any process, on all; raises where that stops the run.

        Args:
          problem: of this process, '' is none.
          over: whether the save is over, so that its failure is told and remembered.
        """
        problems = [found.decode() for found in distributed.gather_bytes(problem.encode())]
        found = next(filter(None, problems), '')
        if found and over and jax.process_index() == 0:  # nobody writes any more
            for torn in manifest.folders(self._folder):
                is_of_it = torn.name.partition('.')[0] == self._path.name
                if is_of_it and not (torn / MANIFEST).exists():
                    retention.remove(torn)
        if found and self._stops:
            self._failed = ''
            raise CheckpointError(
                f'{found} Make room, and the same command goes on from the newest; '
                "config.checkpoint.on_error='go_on' trains on without a checkpoint."
            )
        if over:
            self._failed = found
            if found and jax.process_index() == 0:
                _tell(f'{found} Training goes on (config.checkpoint.on_error).')
        return bool(found)

    def _lack_of_room(self, path: pathlib.Path, size: int) -> str:
        """Why there is none for ``size`` bytes, before they fill the disk of the metrics, too."""
        if jax.process_index() or shutil.disk_usage(self._workdir).free >= size:
            return ''
        return self._told(path, size, 'there is too little room')

    def _problem(self, path: pathlib.Path, size: int, error: Exception) -> str:
        """What to tell of a save that failed, whose folder goes; a defect is raised."""
        code = re.search(r"os_error_code='(\d+)'", str(error))  # of tensorstore
        why = os.strerror(int(code[1])) if code else str(error)
        self._barrier.fail(why)
        _wait_for_writers()
        if not (code or isinstance(error, OSError)):
            raise error
        return self._told(path, size, why)

    def _told(self, path: pathlib.Path, size: int, why: str) -> str:
        free = shutil.disk_usage(self._workdir).free
        before = ', '.join(map(str, manifest.steps(self._folder))) or 'none'
        return (
            f'checkpoint {path} cannot be saved: {why} (it takes up to {size:,} bytes, {free:,} '
            f'are free). Checkpoints that are there: {before}.'
        )


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
    """(params, extra) of a checkpoint folder as numpy arrays, without its optimizer.

    Raises:
      CheckpointError: the arrays in it are not those that its manifest describes.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        items = traverse_util.unflatten_dict(
            {
                tuple(name.split('/')): jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=here)
                for name, (dtype, shape) in read_manifest(path)['tree'].items()
                if not name.startswith('training/')
            }
        )
        saved = jax.tree.map(np.asarray, _restore(pathlib.Path(path), items, partial=True))
        return saved['params'], saved.get('extra', {})
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise CheckpointError(
            f'checkpoint {path}: its arrays are not those of its {MANIFEST} ({reason}).'
        ) from error


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


def _wait_for_writers() -> None:
    """Orbax raises the first error while other threads of its save still write."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith('orbax'):
            threading.Thread.join(thread, timeout=60)


def _is_news(record: logging.LogRecord) -> bool:
    """Orbax logs pages about the errors that it raises as well."""
    return not (record.exc_info and 'orbax' in record.pathname)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
