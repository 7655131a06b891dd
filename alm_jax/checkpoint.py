"""The checkpoints of a run: lists them, reads every byte of them, removes what need not stay.

  python -m alm_jax.checkpoint ls runs/tiny
  python -m alm_jax.checkpoint verify runs/tiny
  python -m alm_jax.checkpoint prune runs/tiny --keep 1 [--keep_every 1000] \
      [--best zero_shot_validation/top1] [--dry_run]

PATH is a workdir or its checkpoints folder; ls and verify take one checkpoint, too. ``verify`` ends
with code 1 where one is damaged. ``prune`` keeps what is said, or what the run's config says, of
those that are whole, so that the newest whole one stays in any case.
"""

import pathlib
import sys
import time

from absl import flags

from alm_jax import config as config_lib
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.training import lock, manifest, retention
from alm_jax.training.retention import Retention

_USAGE = 'give ls, verify or prune, and a workdir: python -m alm_jax.checkpoint ls runs/tiny.'


def find(path: pathlib.Path) -> list[pathlib.Path]:
    """Folders of the checkpoints that a path means, oldest first, torn ones as well.

    Args:
      path: a workdir, its checkpoints folder or a checkpoint.

    Raises:
      ConfigError: it is none of them.
    """
    if not path.exists():
        beside = sorted(p.name for p in path.parent.glob('*') if p.is_dir())
        raise ConfigError(f'{path} does not exist. {did_you_mean(path.name, beside)}')
    if (path / manifest.MANIFEST).is_file():
        return [path]
    folder = path / 'checkpoints' if (path / 'checkpoints').is_dir() else path
    found = manifest.folders(folder) if folder.is_dir() else []
    if not found:
        raise ConfigError(
            f'{path} holds no checkpoint. Give a workdir, whose checkpoints are in '
            f'{path / "checkpoints"}/STEP, or one of these.'
        )
    return found[::-1]


def choice_of(workdir: pathlib.Path, **given: int | str | None) -> Retention:
    """What is to stay: what is given, else what the run's config says.

    Args:
      workdir: of the run.
      **given: attributes of ``Retention``; None is not given.

    Raises:
      ConfigError: no ``keep`` is given, and there is no config.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    file = workdir / 'config.json'
    if file.is_file():
        said = config_lib.from_json(file.read_text()).checkpoint
        chosen = {name: said[name] for name in given} | chosen
    if 'keep' not in chosen:
        raise ConfigError(f'{workdir} has no config.json that says what stays: give --keep N.')
    return Retention(**chosen)


def reasons(
    workdir: pathlib.Path, choice: Retention, *, every_byte: bool = False
) -> dict[pathlib.Path, str]:
    """The checkpoints of a workdir that stay, newest first, and why.

    Args:
      workdir: of the run.
      choice: what stays.
      every_byte: whether each is read, so that a damaged one takes no other's place.
    """
    values = retention.measured(workdir, choice.metric)
    manifests, checked = {}, set()
    for path in manifest.folders(workdir / 'checkpoints'):
        if manifest.damage(path, every_byte=False) is None:
            manifests[int(path.name)] = manifest.read_manifest(path)
    while True:
        why = {step: ', '.join(r) for step, r in choice.reasons(manifests, values).items() if r}
        named = {workdir / 'checkpoints' / str(step): reason for step, reason in why.items()}
        damaged = {p: manifest.damage(p) for p in named if every_byte and p not in checked}
        checked |= named.keys()
        damaged = {path: damage for path, damage in damaged.items() if damage}
        if not damaged:
            return named
        for path, damage in damaged.items():
            print(f'{path}: {damage}', flush=True)
            del manifests[int(path.name)]


def listing(path: pathlib.Path) -> int:
    """Prints a table."""
    found = find(path)
    workdir = found[0].parent.parent
    why = {}
    if (workdir / 'config.json').is_file():
        why = reasons(workdir, choice_of(workdir, keep=None, keep_every=None, best=None))
    rows = [('step', 'data_step', 'stage', 'size', 'written', 'stays as', 'files')]
    for one in found:
        damage = manifest.damage(one, every_byte=False)
        rows.append((*_row(one), why.get(one, ''), damage or 'sizes are right'))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        right = [cell.rjust(width) for cell, width in zip(row[:2], widths)]
        left = [cell.ljust(width) for cell, width in zip(row[2:], widths[2:])]
        print('  '.join(right + left).rstrip())
    print('python -m alm_jax.checkpoint verify reads every byte.', file=sys.stderr)
    return 0


def _row(path: pathlib.Path) -> tuple[str, str, str, str, str]:
    size = sum(file.stat().st_size for file in path.rglob('*') if file.is_file())
    try:
        told = manifest.read_manifest(path)
        data_step, stage = str(told.get('data_step', '?')), str(told.get('stage', ''))
        written = (path / manifest.MANIFEST).stat().st_mtime
    except (OSError, ValueError, AttributeError):
        data_step, stage, written = '?', '', path.stat().st_mtime
    when = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(written))
    return path.name, data_step, stage, _bytes(size), when


def verify(path: pathlib.Path) -> int:
    """Reads every file of every checkpoint; returns 1 where one is not as its manifest says."""
    found = find(path)
    holder = lock.holder(found[0].parent.parent)
    bad = whole = 0
    for one in found:
        damage = manifest.damage(one)
        if damage and holder and not (one / manifest.MANIFEST).exists():
            damage = f'being written by process {holder.get("pid")} on {holder.get("host")}'
        elif damage:
            bad += '.' not in one.name  # else a save that was killed, and never counted
        else:
            whole += 1
        print(f'{one}: {damage or "whole"}', flush=True)
    print(f'{whole} of {len(found)} checkpoints are whole.')
    return 1 if bad else 0


def prune(path: pathlib.Path, choice: Retention, *, dry_run: bool) -> int:
    """Removes checkpoints that need not stay, torn and damaged ones too, but no run's only whole.

    Args:
      path: a workdir or its checkpoints folder.
      choice: what stays.
      dry_run: whether only to say what would go.

    Raises:
      ConfigError: none is whole, or a run holds the workdir.
    """
    found = find(path)
    if found == [path]:
        raise ConfigError(f'{path} is one checkpoint. Give its workdir, {path.parent.parent}.')
    workdir = found[0].parent.parent
    with lock.held(workdir):
        stay = reasons(workdir, choice, every_byte=True)
        if not stay:
            raise ConfigError(f'no checkpoint in {workdir} is whole; nothing is removed.')
        for one in found:
            size = _bytes(sum(file.stat().st_size for file in one.rglob('*') if file.is_file()))
            if one in stay:
                print(f'{one} stays: {stay[one]}')
                continue
            print(f'{one} {"would go" if dry_run else "goes"}: {size}', flush=True)
            if not dry_run:
                retention.remove(one)
    return 0


def _bytes(count: float) -> str:
    """'1.5 GB', '20 MB'."""
    for unit, size in (('TB', 1e12), ('GB', 1e9), ('MB', 1e6)):
        if count >= size:
            return f'{count / size:.3g} {unit}'
    return f'{count / 1e3:.3g} kB'


def main(argv: list[str]) -> int:
    """See the head of this file."""
    given = flags.FLAGS
    if len(argv) != 3 or argv[1] not in ('ls', 'verify', 'prune'):
        raise ConfigError(_USAGE)
    path = pathlib.Path(argv[2]).absolute()
    if argv[1] != 'prune':
        return {'ls': listing, 'verify': verify}[argv[1]](path)
    workdir = find(path)[0].parent.parent
    names = ('keep', 'keep_every', 'best')
    choice = choice_of(workdir, **{name: given[name].value for name in names})
    return prune(path, choice, dry_run=given.dry_run)


if __name__ == '__main__':
    flags.DEFINE_integer('keep', None, 'The last so many stay.')
    flags.DEFINE_integer('keep_every', None, 'Steps that are a multiple of it stay; 0 is none.')
    flags.DEFINE_string('best', None, "The best by this metric stays, such as '-train/loss'.")
    flags.DEFINE_bool('dry_run', False, 'Only say what would go.')
    config_lib.run(main)
