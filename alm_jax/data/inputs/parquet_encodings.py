"""The encodings inside Parquet pages that finding a value needs.

github.com/apache/parquet-format (Encodings.md: RLE), the compact protocol of Thrift, and the stream
format of google/snappy.
"""

from typing import Any

import numpy as np

SNAPPY_BLOCK = 1 << 16  # bytes that snappy packs at a time
_DEEPEST = 8  # structs in structs; page headers have three


class Damaged(Exception):
    """What is wrong, without the file's name."""


def snappy_blocks(packed: memoryview, unpacked: int) -> list[int]:
    """Where every 64 KiB begin in a snappy stream, and its end; [] when they depend on others."""
    packed = packed.tobytes()
    starts, at, made = [], 0, 0
    while at < len(packed):
        if made % SNAPPY_BLOCK == 0:
            starts.append(at)
        tag = packed[at]
        kind = tag & 3
        if kind == 0:  # a literal
            size = (tag >> 2) + 1
            at += 1
            if size > 60:
                width = size - 60
                size = int.from_bytes(packed[at : at + width], 'little') + 1
                at += width
            at += size
        else:  # a copy of what was unpacked before
            if kind == 1:
                size, back = 4 + (tag >> 2 & 7), (tag >> 5 << 8) + packed[at + 1]
                at += 2
            else:
                width = 2 if kind == 2 else 4
                size = (tag >> 2) + 1
                back = int.from_bytes(packed[at + 1 : at + 1 + width], 'little')
                at += 1 + width
            if back > made % SNAPPY_BLOCK:
                return []
        if made % SNAPPY_BLOCK + size > SNAPPY_BLOCK:
            return []
        made += size
    return [*starts, at] if made == unpacked else []


def run_lengths(packed: memoryview, width: int, count: int) -> np.ndarray:
    """int64 [count] numbers of ``width`` bits, in runs and bit-packed groups (RLE)."""
    if not width:
        return np.zeros(count, np.int64)
    parts, found, reader = [], 0, Thrift(packed, 0)
    while found < count:
        head = reader.varint()
        if head & 1:
            size = (head >> 1) * width  # bytes: eight numbers a group
            packed_bits = np.frombuffer(packed[reader.at : reader.at + size], np.uint8)
            bits = np.unpackbits(packed_bits, bitorder='little')
            part = bits[: len(bits) // width * width].reshape(-1, width) @ (1 << np.arange(width))
        else:
            size = (width + 7) // 8
            number = int.from_bytes(packed[reader.at : reader.at + size], 'little')
            part = np.full(min(head >> 1, count - found), number, np.int64)
        if not len(part):
            raise Damaged('a page is cut off')
        reader.at += size
        parts.append(part)
        found += len(part)
    return np.concatenate(parts)[:count] if parts else np.zeros(0, np.int64)


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


class Thrift:
    """Values of Thrift's compact protocol from ``at`` on."""

    def __init__(self, view: memoryview, at: int):
        self._view = view
        self.at = at

    def varint(self) -> int:
        """The inverse of ``varint`` of the module."""
        number = 0
        for shift in range(0, 70, 7):  # 64 bits
            byte = self._view[self.at]
            self.at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise Damaged('a number is longer than 64 bits')

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Field number -> value. ``depth`` is that of structs it lies in."""
        if depth > _DEEPEST:
            raise Damaged('a page header is nested too deeply')
        found, field = {}, 0
        while kind := self._view[self.at]:
            self.at += 1
            field = field + (kind >> 4) if kind >> 4 else self._signed()
            found[field] = self._value(kind & 15, depth)
        self.at += 1
        return found

    def _signed(self) -> int:
        number = self.varint()
        return number >> 1 ^ -(number & 1)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # a boolean field has its value in its kind
            return kind == 1
        if kind == 3:
            self.at += 1
            return self._view[self.at - 1]
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            self.at += 8
            return None
        if kind == 8:
            size = self.varint()
            self.at += size
            return bytes(self._view[self.at - size : self.at])
        if kind in (9, 10):
            head = self._view[self.at]
            self.at += 1
            size = head >> 4 if head >> 4 < 15 else self.varint()
            if depth > _DEEPEST or size > len(self._view) - self.at:  # an element is a byte or more
                raise Damaged('a list in a page header is longer than the file')
            return [self._element(head & 15, depth + 1) for _ in range(size)]
        if kind == 12:
            return self.struct(depth + 1)
        raise Damaged('a page header is damaged')

    def _element(self, kind: int, depth: int) -> Any:
        """Of a list, where a boolean is a byte."""
        return self._value(3 if kind in (1, 2) else kind, depth)
