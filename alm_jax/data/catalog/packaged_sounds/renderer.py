"""The synthesiser that plays soundfonts: the PyPI wheel tinysoundfont, kept in the data folder.

It is not a dependency of the package because its own dependency, pyaudio, does not build without
system headers; pyaudio is for loudspeakers only, so pip fetches the wheel alone. The result depends
on the notes and the soundfont only.
"""

import importlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile
import types

from alm_jax.config import ConfigError

_NAME, _VERSION = 'tinysoundfont', '0.3.7'
# The wheels of 0.3.7 for CPython 3.11 and 3.12 on Linux x86_64, macOS arm64 and (3.11) Windows.
_WHEELS = (
    'f638536ce801dd77526419e25a53576ffd4f7d58d6e1673e6b70a1a8c4773448',
    'c48a614fbc0287f16ad4bef857c79e80ba9e413474fbe47f460d2dd1ec449d4b',
    '99650cb625ebfe808fe24ed279b5970a9b0b2133f624dcaceddca4f364bb5fe6',
    'b871a995adb9ee6e0f14f670311109f48ab6faed7eb746a3ef0be3c5792ad5b7',
    '86453db5bb713c28db505f9a9545702942278ce69556b8fd73135ac652fda5b6',
)
_PIP_SECONDS = 300


class RendererUnavailable(ConfigError):
    """There is no synthesiser for soundfonts on this machine."""


def load(downloads: pathlib.Path) -> types.ModuleType:
    """The module tinysoundfont: installed already, or from a wheel fetched once.

    Args:
      downloads: the folder of packages as fetched; a wheel laid there by hand is taken. The
        unpacked wheel is kept in its sibling ``unpacked``.

    Raises:
      RendererUnavailable: no network, no pip, or no wheel for this machine.
    """
    if importlib.util.find_spec(_NAME) is None:
        folder = downloads.parent / 'unpacked' / f'{_NAME}-{_VERSION}-{_platform()}'
        if not folder.is_dir():
            _install(downloads, folder)
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    return importlib.import_module(_NAME)


def _platform() -> str:
    return f'{sys.implementation.cache_tag}-{sysconfig.get_platform()}'


def _install(downloads: pathlib.Path, folder: pathlib.Path) -> None:
    """pip checks the sha256 and unpacks; the finished folder appears at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.part-') as temporary:
        requirement = pathlib.Path(temporary, 'requirements.txt')
        hashes = ' '.join(f'--hash=sha256:{digest}' for digest in _WHEELS)
        requirement.write_text(f'{_NAME}=={_VERSION} {hashes}\n')
        target = pathlib.Path(temporary, 'target')
        command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-input', '--no-deps']
        command += ['--disable-pip-version-check', '--root-user-action=ignore', '--no-compile']
        command += ['--only-binary=:all:', '--require-hashes', '--find-links', str(downloads)]
        command += ['--target', str(target), '--requirement', str(requirement)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise _unavailable(f'pip took over {_PIP_SECONDS} s.') from error
        if done.returncode or not (target / _NAME).is_dir():
            said = [line for line in done.stderr.splitlines() if line.startswith('ERROR')]
            raise _unavailable(said[-1] if said else done.stderr.strip()[-200:])
        try:
            os.replace(target, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise


def _unavailable(reason: str) -> RendererUnavailable:
    return RendererUnavailable(
        f'{_NAME} {_VERSION}, which plays soundfonts, cannot be had for {_platform()}.\n'
        f'  {reason}\n'
        'What to do: check the network and prepare again; or, where PyPI has no wheel, with a C++\n'
        f'compiler:  pip install --no-deps {_NAME}=={_VERSION}'
    )
