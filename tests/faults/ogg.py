"""Pages of an Ogg stream, as far as what damages them must know them."""

import struct

_POLYNOMIAL = 0x04C11DB7


def _table() -> list[int]:
    made = []
    for crc in range(0, 256 << 24, 1 << 24):
        for _ in range(8):
            crc = (crc << 1 ^ _POLYNOMIAL) & 0xFFFFFFFF if crc >> 31 else crc << 1
        made.append(crc)
    return made


_TABLE = _table()


def pages(content: bytes) -> list[tuple[int, int]]:
    """(start, stop) of the pages of a stream, none where it is none."""
    starts = [i for i in range(len(content)) if content.startswith(b'OggS', i)]
    return list(zip(starts, [*starts[1:], len(content)]))


def sealed(page: bytes) -> bytes:
    """The page with its checksum made right."""
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _TABLE[crc >> 24 ^ byte]
    return page[:22] + struct.pack('<I', crc) + page[26:]


def renumbered(content: bytes) -> bytes:
    """A stream whose random serial number is 1."""
    if not content.startswith(b'OggS'):
        return content
    found = [content[start:stop] for start, stop in pages(content)]
    return b''.join(sealed(page[:14] + struct.pack('<I', 1) + page[18:]) for page in found)
