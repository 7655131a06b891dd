"""Packages: real ones fetched by apt, and hostile ones made with dpkg's own format."""

import io
import lzma
import pathlib
import subprocess
import tarfile

import pytest

from alm_jax.data.catalog.packaged_sounds import fetch, packages
from alm_jax.data.catalog.packaged_sounds.package import MemberError, Package, PackageError

_CONTROL = b'Package: evil\nVersion: 1.0\nDescription: x\n words\n'


def _tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return lzma.compress(buffer.getvalue())


def _deb(path: pathlib.Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> pathlib.Path:
    parts = [
        ('debian-binary', b'2.0\n'),
        ('control.tar.xz', _tar([(tarfile.TarInfo('./control'), _CONTROL)])),
        ('data.tar.xz', _tar(entries)),
    ]
    data = b'!<arch>\n'
    for name, content in parts:
        data += f'{name:<16}{0:<12}{0:<6}{0:<6}{"100644":<8}{len(content):<10}`\n'.encode()
        data += content + b'\n' * (len(content) % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def evil(tmp_path) -> Package:
    link = tarfile.TarInfo('./link')
    link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
    hard = tarfile.TarInfo('./hard')
    hard.type, hard.linkname = tarfile.LNKTYPE, './good'
    entries = [
        (tarfile.TarInfo('./good'), b'good'),
        (tarfile.TarInfo('/absolute'), b'x'),
        (tarfile.TarInfo('./a/../../up'), b'x'),
        (link, b''),
        (hard, b''),
    ]
    return Package('evil', '1.0', _deb(tmp_path / 'downloads' / 'evil_1.0_all.deb', entries))


def test_links_absolute_and_parent_paths_are_refused(evil, tmp_path):
    assert evil.members() == ['good']
    assert evil.read('good') == b'good'
    assert sorted(evil.refused) == ['./a/../../up', './hard', './link', '/absolute']
    with pytest.raises(MemberError, match='no member'):
        evil.read('/absolute')
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*') if p.is_file()}
    assert names == {
        'downloads/evil_1.0_all.deb',
        'unpacked/evil_1.0_all.tar',
        'unpacked/evil_1.0_all.json',
    }


def test_members_are_those_that_dpkg_lists(packaged_tiny, monkeypatch):
    monkeypatch.setattr(packages, 'pinned_members', lambda _: {})
    package = fetch.open_package('openttd-opensfx', packaged_tiny)
    listed = subprocess.run(
        ['dpkg-deb', '--fsys-tarfile', str(package.path)], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(listed)) as tar:
        files = {i.name.removeprefix('./'): tar.extractfile(i).read() for i in tar if i.isreg()}
    assert {member: package.read(member) for member in package.members()} == files


def test_truncated_package_is_named(evil, tmp_path):
    path = tmp_path / 'other' / 'evil_1.0_all.deb'
    path.parent.mkdir()
    path.write_bytes(evil.path.read_bytes()[:-40])
    with pytest.raises(PackageError, match=r'evil_1\.0_all\.deb is damaged'):
        Package('evil', '1.0', path)


def test_another_package_under_the_name_is_refused(evil):
    with pytest.raises(PackageError, match=r'is evil 1\.0, not good 1\.0'):
        Package('good', '1.0', evil.path)


def test_text_file_is_not_a_package(tmp_path):
    path = tmp_path / 'downloads' / 'minetest-data_1_all.deb'
    path.parent.mkdir()
    path.write_text('<html>404</html>')
    with pytest.raises(PackageError, match='not a Debian package'):
        fetch.open_package('minetest-data', tmp_path)


def test_pinned_members_are_checked_one_by_one(evil, monkeypatch):
    digest = '770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c'
    monkeypatch.setattr(packages, 'pinned_members', lambda _: {'good': digest, 'gone': digest})
    package = Package('evil', '1.0', evil.path)
    assert package.read('good') == b'good'
    assert package.missing() == ['gone']
    monkeypatch.setattr(packages, 'pinned_members', lambda _: {'good': '0' * 64})
    with pytest.raises(MemberError, match='not the file that is pinned'):
        Package('evil', '1.0', evil.path).read('good')


def test_every_package_of_tiny_is_pinned_and_complete(packaged_tiny):
    for name in packages.TIERS['tiny']:
        package = fetch.open_package(name, packaged_tiny)
        assert packages.pinned_members(name)
        assert package.missing() == []


def test_a_fetched_package_is_not_fetched_again(packaged_tiny):
    assert fetch.fetch(packages.TIERS['tiny'], packaged_tiny / 'downloads') == []


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    # A closed port answers as a missing network does; apt reads its proxy from this variable.
    monkeypatch.setenv('http_proxy', 'http://127.0.0.1:9')
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    with pytest.raises(fetch.FetchError) as caught:
        fetch.open_package('minetest-data', tmp_path)
    said = str(caught.value)
    assert 'check the network' in said
    assert str(tmp_path / 'downloads') in said
    assert 'apt-get download minetest-data' in said
    assert len(said.splitlines()) < 20
    assert not list((tmp_path / 'downloads').glob('*.deb'))
