"""What makes a checkpoint complete: ``manifest.json``, written last, with every file's hash.

A folder ``checkpoints/<step>`` without it, or that differs from it, does not count. Nothing here
needs jax.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import tqdm

from alm_jax.config import ConfigError

MANIFEST = 'manifest.json'
SHA256 = 'manifest_sha256'  # of the rest of it
READERS = 4  # threads that hash: one reads slower than a disk does


class CheckpointError(ConfigError):
    """A checkpoint is missing, damaged or of another model; the message says what to do."""


def read_manifest(path: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a checkpoint folder."""
    return json.loads((pathlib.Path(path) / MANIFEST).read_text())


def complete(path: pathlib.Path, manifest: dict[str, Any]) -> None:
    """Makes a written checkpoint count, once all of it would survive a loss of power.

    Args:
      path: its folder.
      manifest: without 'files', which is added.
    """
    names = sorted(_files(path))
    digests = _sha256(path, names, keep=True)
    files = {
        name: {'bytes': (path / name).stat().st_size, 'sha256': digests[name]} for name in names
    }
    for folder in {path, path.parent, *(file for file in path.rglob('*') if file.is_dir())}:
        _sync(folder)
    manifest = json.loads(json.dumps({**manifest, 'files': files}))  # as it will be read
    text = json.dumps({**manifest, SHA256: _own_sha256(manifest)}, indent=1, sort_keys=True)
    partial = path / (MANIFEST + '.partial')
    partial.write_text(text + '\n')
    _sync(partial)
    partial.replace(path / MANIFEST)
    _sync(path)


def damage(path: pathlib.Path, *, every_byte: bool = True) -> str | None:
    """Why the checkpoint at ``path`` does not count, naming its files, or None when it is whole.

    Args:
      path: its folder.
      every_byte: whether contents are compared, too, and not only sizes.
    """
    try:
        manifest = read_manifest(path)
        files = {
            name: (entry['bytes'], entry['sha256']) for name, entry in manifest['files'].items()
        }
        own = manifest.pop(SHA256, None)
    except FileNotFoundError:
        return f'it has no {MANIFEST}, so its writing never finished'
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f'its {MANIFEST} cannot be read'
    # Those from before there were environments in them have no hash of their own.
    if own != _own_sha256(manifest) and (own or 'environment' in manifest):
        return f'its {MANIFEST} differs from its own sha256'
    problems = [p for name in files if (p := _wrong_size(path / name, name, files[name][0]))]
    if not problems and every_byte:
        found = _sha256(path, files)
        problems = [
            f'{name} differs from its sha256' if found[name] else f'{name} cannot be read'
            for name, (_, expected) in files.items()
            if found[name] != expected
        ]
    more = f' and {len(problems) - 3} files more' * (len(problems) > 3)
    return '; '.join(problems[:3]) + more or None


def steps(folder: pathlib.Path) -> list[int]:
    """Steps whose folders under ``checkpoints`` have a manifest, newest first."""
    found = folder.glob(f'*/{MANIFEST}')
    return sorted((int(f.parent.name) for f in found if f.parent.name.isdigit()), reverse=True)


def folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Folders of steps under ``checkpoints``, newest first, and of saves that never finished."""
    found = [p for p in folder.glob('*') if re.match(r'\d+(\.|$)', p.name) and p.is_dir()]
    return sorted(found, key=lambda p: (int(p.name.partition('.')[0]), p.name), reverse=True)


def latest_complete(workdir: str | os.PathLike) -> pathlib.Path | None:
    """The newest checkpoint of a run whose every file is as its manifest says, or None.

    A damaged one is passed over and the reason printed.
    """
    return _newest_whole(workdir)[0]


def to_continue(workdir: str | os.PathLike) -> pathlib.Path | None:
    """``latest_complete``, where None means that no checkpoint was ever complete.

    Raises:
      CheckpointError: there are complete ones, and all are damaged.
    """
    found, damaged = _newest_whole(workdir)
    if found is None and damaged:
        folder = pathlib.Path(workdir).absolute() / 'checkpoints'
        listed = '\n  '.join(f'{path.name}: {reason}' for path, reason in damaged.items())
        raise CheckpointError(
            f'no checkpoint in {folder} is whole, and a run that has some does not begin anew:\n'
            f'  {listed}\nMove {folder} away to begin anew, or give --config.resume=PATH, a '
            'checkpoint or a workdir to go on from.'
        )
    return found


def resolve(path: str | os.PathLike, step: int | None = None) -> pathlib.Path:
    """The complete checkpoint that ``path`` (a workdir or a checkpoint folder) and ``step`` mean.

    Raises:
      CheckpointError: there is none, or the one named is damaged.
    """
    path = pathlib.Path(path).absolute()
    if not (path / MANIFEST).exists():
        if step is None:
            if (chosen := latest_complete(path)) is None:
                raise CheckpointError(
                    f'{path} holds no complete checkpoint. Train first, or name one.'
                )
            return chosen
        path = path / 'checkpoints' / str(step)
    reason = damage(path)
    if reason is not None:
        listed = ', '.join(map(str, steps(path.parent))) or 'none'
        raise CheckpointError(f'checkpoint {path} cannot be used: {reason}. Steps there: {listed}.')
    return path


def _newest_whole(
    workdir: str | os.PathLike,
) -> tuple[pathlib.Path | None, dict[pathlib.Path, str]]:
    """The newest whole checkpoint, and why later ones that were complete are not."""
    damaged = {}
    for path in folders(pathlib.Path(workdir).absolute() / 'checkpoints'):
        reason = damage(path)
        if reason is None:
            return path, damaged
        print(f'checkpoint {path} is not used: {reason}', file=sys.stderr, flush=True)
        if (path / MANIFEST).exists():
            damaged[path] = reason
    return None, damaged


def _wrong_size(file: pathlib.Path, name: str, size: int) -> str:
    if pathlib.PurePosixPath(name).is_absolute() or '..' in pathlib.PurePosixPath(name).parts:
        return f'its {MANIFEST} names {name}, which is not in it'
    try:
        found = file.stat().st_size
    except FileNotFoundError:
        return f'{name} is missing'
    except OSError as error:
        return f'{name} cannot be read ({error.strerror})'
    return f'{name} has {found} bytes, not {size}' * (found != size)


def _files(path: pathlib.Path) -> Iterator[str]:
    for file in path.rglob('*'):
        if file.is_file() and file.name not in (MANIFEST, MANIFEST + '.partial'):
            yield file.relative_to(path).as_posix()


def _sha256(path: pathlib.Path, names: Iterable[str], keep: bool = False) -> dict[str, str]:
    """The hashes of files, '' of one that cannot be read.

    Args:
      path: the folder.
      names: of files in it.
      keep: whether they are to survive a loss of power before this returns; what then cannot be
        read is an error.
    """

    def read(name: str) -> str:
        try:
            with (path / name).open('rb') as file:
                if keep:
                    os.fsync(file.fileno())
                return hashlib.file_digest(file, 'sha256').hexdigest()
        except OSError:
            if keep:
                raise
            return ''

    sizes = {name: (path / name).stat().st_size for name in names}
    bar = tqdm.tqdm(  # of many gigabytes
        total=sum(sizes.values()),
        desc=f'checking {path}',
        unit='B',
        unit_scale=True,
        delay=3.0,
        disable=keep,
    )
    with bar, concurrent.futures.ThreadPoolExecutor(READERS, 'sha256') as pool:
        found = {}
        for name, digest in zip(sizes, pool.map(read, sizes)):
            found[name] = digest
            bar.update(sizes[name])
    return found


def _own_sha256(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync(path: pathlib.Path) -> None:
    """Puts a file's content, or a folder's names, on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
