"""What the bytes of audio files tell that libsndfile does not: lengths, and missing ends."""

import io
import os
import stat

_OGG_PAGE = 65307  # bytes at most
_FLAC_TAIL = 1 << 15  # bytes: a frame of 4096 samples of two channels of 24 bits
_CRC_8 = 0x07  # polynomial of FLAC's frame headers
_FLAC_HEADER = 16  # bytes at most
_FLAC_BLOCKS = {1: 192, **{code: 144 << code for code in range(2, 6)}}  # code -> samples
_FLAC_BLOCKS |= {code: 1 << code for code in range(8, 16)}
_FLAC_WIDTHS, _FLAC_RATE_WIDTHS = {6: 1, 7: 2}, {12: 1, 13: 2, 14: 2}  # code -> bytes that say it


class Content:
    """The bytes of a file, in memory or on disk, of which no more is read than is asked for.

    Attributes:
      size: bytes.
    """

    def __init__(self, source: str | os.PathLike | bytes):
        """Opens the file. Raises OSError."""
        self._fd = -1
        if not isinstance(source, bytes):
            status = os.stat(source)
            if stat.S_ISREG(status.st_mode):
                self._fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            else:  # a pipe, for example
                with open(source, 'rb') as file:
                    source = file.read()
        self._bytes, self._tail = source, b''
        self.size = len(source) if self._fd < 0 else status.st_size

    def open(self) -> int | io.BytesIO:
        """What libsndfile reads from, from the beginning on."""
        if self._fd < 0:
            return io.BytesIO(self._bytes)
        os.lseek(self._fd, 0, os.SEEK_SET)
        return self._fd

    def read(self, start: int, size: int) -> bytes:
        """At most ``size`` bytes."""
        if self._fd < 0:
            return self._bytes[start : start + size]
        return os.pread(self._fd, size, start)

    def tail(self, size: int) -> bytes:
        """The last bytes, at most ``size``; kept, as they are asked for twice."""
        size = min(size, self.size)
        if len(self._tail) != size:
            self._tail = self.read(self.size - size, size)
        return self._tail

    def close(self) -> None:
        """Closes a file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def ogg_is_cut_off(content: Content) -> bool:
    """Whether the last page lacks its end.

    Its segment table gives its size (RFC 3533). The end-of-stream flag proves nothing: real
    encoders forget it.
    """
    tail = content.tail(2 * _OGG_PAGE)
    page = tail[max(0, tail.rfind(b'OggS')) :]
    return len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def vorbis_last_page(content: Content) -> int:
    """About where, in samples, the last page of an Ogg Vorbis file begins; 0 if it is not told.

    libsndfile (1.2.2) counts the samples of that page from its end, which the encoder has cut, and
    so seeks to a wrong place in it. The page before says how many samples have ended with it.
    """
    tail = content.tail(2 * _OGG_PAGE)
    at = tail.rfind(b'OggS', 0, max(0, tail.rfind(b'OggS')))
    return max(0, int.from_bytes(tail[at + 6 : at + 14], 'little', signed=True)) if at >= 0 else 0


def wav_is_cut_off(log: str) -> bool:
    """Whether libsndfile's log of a WAV tells of more bytes than there are."""
    for line in log.splitlines():
        if line.startswith('data : ') and '(should be ' in line:  # declared, then found
            declared, found = line.removeprefix('data : ').rstrip(')').split(' (should be ')
            # From 2 GiB on it is 'unknown', in streamed files; 1 is a pad byte.
            return int(found) + 1 < int(declared) < 2**31 - 1
    return False


def mp3_sizes(content: Content) -> tuple[int, int] | None:
    """(where the first frame begins, bytes from there) by the Xing or Info header of an MP3.

    None without such a header, or if it lacks the number of frames; the bytes are 0 if it lacks
    them. The header stands in the first frame, behind the side information (17 or 32 bytes).
    """
    start, tag = 0, content.read(0, 10)
    if tag[:3] == b'ID3' and len(tag) == 10:  # its size has 7 bits a byte
        start = 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
    frame = content.read(start, 2000)
    at = max(frame.find(word) for word in (b'Xing', b'Info'))
    if at < 0 or len(frame) < at + 16 or not frame[at + 7] & 1:
        return None
    return start, int.from_bytes(frame[at + 12 : at + 16], 'big') if frame[at + 7] & 2 else 0


def flac_has_last_frame(content: Content, num_samples: int) -> bool:
    """Whether the header of a FLAC file's last frame is found, which says how much should follow.

    Far cheaper than to seek there. False also where something strange follows the frame.
    RFC 9639, sections 8.2 and 9.1.
    """
    block = int.from_bytes(content.read(10, 2), 'big')  # the largest, and of all frames if fixed
    tail = content.tail(_FLAC_TAIL)
    end = len(tail)
    while (at := tail.rfind(b'\xff', 0, end)) >= 0:
        end = at
        if tail[at + 1 : at + 2] in (b'\xf8', b'\xf9'):
            found = _flac_frame(tail[at : at + _FLAC_HEADER], block)
            if found and sum(found) == num_samples:
                return True
    return False


def _flac_frame(header: bytes, block: int) -> tuple[int, int] | None:
    """(first sample, samples) of a frame; None if these bytes are no frame header."""
    try:
        size_code, rate_code = header[2] >> 4, header[2] & 15
        number, at = _flac_number(header, 4)
        samples, width = _FLAC_BLOCKS.get(size_code, 0), _FLAC_WIDTHS.get(size_code, 0)
        if width:
            samples = int.from_bytes(header[at : at + width], 'big') + 1
        at += width + _FLAC_RATE_WIDTHS.get(rate_code, 0)
        if not samples or _crc_8(header[:at]) != header[at]:
            return None
    except IndexError:
        return None
    return (number if header[1] & 1 else number * block), samples


def _flac_number(header: bytes, at: int) -> tuple[int, int]:
    """(the frame or sample number, coded as UTF-8 codes letters; where it ends)."""
    first = header[at]
    more = max(0, 7 - (first ^ 0xFF).bit_length())  # leading ones, less the one of a single byte
    number = first & (0x7F >> more)
    for byte in header[at + 1 : at + 1 + more]:
        number = number << 6 | byte & 0x3F
    return number, at + 1 + more


def _crc_8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ _CRC_8) & 0xFF if crc & 0x80 else crc << 1
    return crc
