"""Members of zip and tar archives, read where they lie, without unpacking the archive.

A member's place (``span``) is noted when the archive's table is read once; any process reads the
member from it afterwards with one seek. A compressed tar has no such places: its compression, and
only that, is undone once into a scratch folder.
"""

import bz2
import gzip
import hashlib
import lzma
import os
import pathlib
import struct
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Iterator

from alm_jax.config import ConfigError
from alm_jax.data import archive_bounds

SUFFIXES = ('.zip', '.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tar.xz')
_COMPRESSED = {'.tar.gz': gzip.open, '.tgz': gzip.open, '.tar.bz2': bz2.open, '.tar.xz': lzma.open}
# What the zip library may raise beside its own.
_MALFORMED_ZIP = (zipfile.BadZipFile, NotImplementedError, struct.error)
_LOCAL_HEADER = struct.Struct('<4s5H3L2H')
_LARGEST = 4 << 30  # bytes of a member when inflated: more is damage or hostile

# A span: (offset, bytes stored there, bytes of the member, zip method, CRC-32). Method -1 is a tar,
# whose offset is that of the content; in a zip it is that of the member's local header.
Span = tuple[int, int, int, int, int]


AUDIO = ('.wav', '.flac', '.mp3', '.ogg', '.opus', '.au', '.m4a', '.aac', '.webm', '.mp4')


def suffix_of(name: str) -> str:
    """The archive suffix of a file name, '' for what is no archive."""
    return next((s for s in SUFFIXES if name.lower().endswith(s)), '')


def members(path: pathlib.Path, called: pathlib.Path) -> Iterator[tuple[str, Span]]:
    """(name, span) of every file of an uncompressed tar or a zip, in the archive's order.

    Raises:
      ConfigError: damaged or encrypted; the archive is ``called`` so.
    """
    try:
        yield from _zip_members(path) if suffix_of(path.name) == '.zip' else _tar_members(path)
    except ConfigError:
        raise
    except (*archive_bounds.MALFORMED, *_MALFORMED_ZIP) as error:
        reason = f'{called} cannot be read as an archive ({error}). Fetch it again.'
        raise ConfigError(reason) from error


def audio_ending(name: str) -> str:
    """The ending of an audio file's name, in lower case, '' for another file."""
    ending = os.path.splitext(name)[1].lower()
    return ending if ending in AUDIO else ''


class Members:
    """The table of one archive, for look-ups by the end of a member's path.

    Attributes:
      names: of all files, in the archive's order.
    """

    def __init__(self, path: pathlib.Path, scratch: pathlib.Path):
        self.path = path
        self._plain = plain(path, scratch)
        self.names: list[str] = []
        self._spans = array('q')
        self._rows: dict[str, int | list[int]] = {}  # file name without audio ending -> rows
        for name, span in members(self._plain, path):
            name = name.removeprefix('./')
            base = name.rsplit('/', 1)[-1]
            if base.startswith('._'):  # what macOS puts beside every file
                continue
            key = base[: -len(audio_ending(base)) or None]
            if key in self._rows:
                known = self._rows[key]
                known = known if isinstance(known, list) else [known]
                self._rows[key] = [*known, len(self.names)]
            else:
                self._rows[key] = len(self.names)
            self.names.append(name)
            self._spans.extend(span)

    def file(self, name: str) -> tuple[str, str, Span] | None:
        """(archive path, member, span) of the member whose path ends with ``name``."""
        return self._chosen(
            name, [row for row in self._called(name) if _ends(self.names[row], name)]
        )

    def audio(self, stem: str) -> tuple[str, str, Span] | None:
        """The same for an audio member; ``stem`` lacks the ending, and any of AUDIO will do."""
        found = [
            row
            for row in self._called(stem)
            if (ending := audio_ending(self.names[row]))
            and _ends(self.names[row][: -len(ending)], stem)
        ]
        if len(found) > 1:  # one recording in several formats
            best = min(AUDIO.index(audio_ending(self.names[row])) for row in found)
            found = [row for row in found if audio_ending(self.names[row]) == AUDIO[best]]
        return self._chosen(stem, found)

    def _called(self, name: str) -> list[int]:
        base = name.rsplit('/', 1)[-1]
        rows = self._rows.get(base, self._rows.get(base[: -len(audio_ending(base)) or None], []))
        return rows if isinstance(rows, list) else [rows]

    def _chosen(self, name: str, rows: list[int]) -> tuple[str, str, Span] | None:
        if not rows:
            return None
        if len(rows) > 1:
            listed = ', '.join(self.names[row] for row in rows[:3])
            raise ConfigError(f'{self.path}: {name!r} could be any of {listed}.')
        row = rows[0]
        return str(self._plain), self.names[row], tuple(self._spans[5 * row : 5 * row + 5])


def _ends(path: str, name: str) -> bool:
    """Whether the path's last parts are those of ``name``."""
    return path == name or path.endswith(f'/{name}')


def _tar_members(path: pathlib.Path) -> Iterator[tuple[str, Span]]:
    size, count = path.stat().st_size, 0
    with tarfile.open(path, 'r:', tarinfo=archive_bounds.CheckedInfo) as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # else every header stays in memory
            archive_bounds.check_member(info, size)
            archive_bounds.check_count(count := count + 1, path)
            if info.isreg() and not info.issparse():
                yield info.name, (info.offset_data, info.size, info.size, -1, 0)


def _zip_members(path: pathlib.Path) -> Iterator[tuple[str, Span]]:
    with zipfile.ZipFile(path) as archive:
        sizes = ((i.filename, i.compress_size, i.file_size) for i in archive.infolist())
        archive_bounds.check_sizes(sizes, path.stat().st_size, path)
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise ConfigError(f'{path}: member {info.filename!r} is encrypted.')
            sizes = (info.compress_size, info.file_size)
            yield info.filename, (info.header_offset, *sizes, info.compress_type, info.CRC)


def read(path: str | os.PathLike, span: Span, name: str) -> bytes:
    """The content of one member. Raises ConfigError when the archive is damaged or changed."""
    offset, stored, size, method, crc = span
    where = f'{os.fspath(path)}: member {name!r}'
    try:
        with open(path, 'rb') as file:
            file.seek(offset if method < 0 else _content(file, offset, where))
            content = file.read(stored)
    except OSError as error:
        raise ConfigError(f'{where} cannot be read: {error.strerror}.') from error
    if len(content) < stored:
        raise ConfigError(f'{where} is cut off. Fetch the archive again.')
    if method < 0:
        return content
    if method == zipfile.ZIP_DEFLATED:
        content = _inflated(content, min(size, _LARGEST), where)
    elif method != zipfile.ZIP_STORED:
        raise ConfigError(f'{where} is compressed by method {method}; unpack the archive.')
    if len(content) != size or zlib.crc32(content) != crc:
        raise ConfigError(f'{where} is damaged (CRC). Fetch the archive again.')
    return content


def _content(file, offset: int, where: str) -> int:
    """Where a zip member's bytes begin: behind its local header."""
    file.seek(offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b'PK\3\4':
        raise ConfigError(f'{where} is not where the table says. Fetch the archive again.')
    *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    return offset + _LOCAL_HEADER.size + name_length + extra_length


def _inflated(content: bytes, size: int, where: str) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
    except zlib.error as error:
        raise ConfigError(f'{where} is damaged ({error}). Fetch the archive again.') from error


def plain(path: pathlib.Path, scratch: pathlib.Path) -> pathlib.Path:
    """``path``, or for a compressed tar the same tar without its compression, in ``scratch``.

    It is made once; as long as the archive keeps its size and time it is used again.
    """
    opener = _COMPRESSED.get(suffix_of(path.name))
    if opener is None:
        return path
    status = path.stat()
    identity = repr((str(path.resolve()), status.st_size, status.st_mtime_ns))
    target = scratch / f'{hashlib.sha256(identity.encode()).hexdigest()[:16]}.tar'
    if target.exists():
        return target
    scratch.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f'.{os.getpid()}.part')
    try:
        with opener(path, 'rb') as packed, part.open('wb') as file:
            archive_bounds.copy_unpacked(packed, file, status.st_size, path)
        os.replace(part, target)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk, not the content
            raise
        raise ConfigError(f'{path} is damaged ({error}). Fetch it again.') from error
    finally:
        part.unlink(missing_ok=True)
    return target
