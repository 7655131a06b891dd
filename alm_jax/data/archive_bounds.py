"""Bounds on archives that came from anywhere: what their headers say is held against the file.

No member is ever unpacked under its own name: members are read where they lie, by offset, and only
regular files are. So '..', absolute names, links and devices reach nothing; what is left to a
hostile archive are sizes that are not true, and content that unpacks to far more than it is.
"""

import tarfile
from collections.abc import Iterable
from typing import IO

from alm_jax.config import ConfigError

MOST_MEMBERS = 5_000_000
RATIO = 200  # unpacked to packed; sound and text stay far below, what is above holds nothing
ALWAYS = 256 << 20  # unpacked bytes of which no ratio is asked
LONGEST_EXTENSION = 64 << 10  # bytes of a long name or of pax keys in a tar
# What the tar library may raise beside its own: numbers that are none, headers within headers.
MALFORMED = (tarfile.TarError, OSError, EOFError, ValueError, ArithmeticError, RecursionError)

_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_PIECE = 1 << 20


class CheckedInfo(tarfile.TarInfo):
    """``tarfile.open(tarinfo=CheckedInfo)``: sizes are checked before the library acts on them.

    It would read as many bytes as the header of a long name says, and go back by a negative size.
    """

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> 'CheckedInfo':
        """See tarfile. Raises tarfile.ReadError."""
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _EXTENSIONS and info.size > LONGEST_EXTENSION):
            raise tarfile.ReadError(f'a header of type {info.type!r} claims {info.size} bytes')
        return info


def check_member(info: tarfile.TarInfo, size: int) -> None:
    """Raises tarfile.ReadError for a member that a tar of ``size`` bytes has no room for."""
    within = not info.isreg() or info.issparse() or info.offset_data + info.size <= size
    if info.size < 0 or not within:  # pax keys may say a size too
        raise tarfile.ReadError(f'member {info.name!r:.200} claims {info.size} bytes of {size}')


def check_sizes(sizes: Iterable[tuple[str, int, int]], size: int, called: object) -> None:
    """Checks the table of a zip.

    Args:
      sizes: (name, packed, unpacked) bytes of each member.
      size: of the archive, bytes.
      called: the archive, for messages.

    Raises:
      ConfigError: too many members, members that share bytes, or one that unpacks to too much.
    """
    total = count = 0
    for name, packed, unpacked in sizes:
        total, count = total + packed, count + 1
        if unpacked > most_unpacked(packed):
            raise ConfigError(
                f'{called}: member {name!r:.200} unpacks to {unpacked} bytes from {packed}, more '
                f'than {RATIO} times as many; the archive is not read.'
            )
        if total > size:
            raise ConfigError(
                f'{called}: its members have more bytes than its {size}, so they overlap; the '
                'archive is not read.'
            )
    check_count(count, called)


def check_count(count: int, called: object) -> None:
    """Raises ConfigError when an archive has too many members."""
    if count > MOST_MEMBERS:
        raise ConfigError(f'{called} has more than {MOST_MEMBERS} members; split it.')


def most_unpacked(packed: int) -> int:
    """How many bytes ``packed`` bytes may unpack to."""
    return max(ALWAYS, RATIO * packed)


def copy_unpacked(stream: IO[bytes], target: IO[bytes], packed: int, called: object) -> None:
    """Copies what ``stream`` unpacks from ``packed`` bytes. Raises ConfigError when too much."""
    left = most_unpacked(packed)
    while piece := stream.read(_PIECE):
        left -= len(piece)
        if left < 0:
            raise ConfigError(
                f'{called} unpacks to more than {most_unpacked(packed)} bytes from {packed}; it is '
                'not read.'
            )
        target.write(piece)
