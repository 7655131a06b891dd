"""What damage, accidents and malice do to a file: bytes, and the fields of its format."""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from tests.faults import ogg

WHOLE = (0, 1, -1, 2, 7, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
# Stand in a JSON text for what json.dumps cannot write.
_DEEP, _DIGITS = '@deep@', '@digits@'
VALUES = [
    *(None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, float('inf'), float('nan')),
    *(2**31, 2**63, 2**64, -(2**63) - 1, 10**400),
    *('', ' ', 'train', '\0', '\n', '\ud800', 'ä' * 50_000, '../../x.wav', '/etc/passwd', '~root'),
    *('1e999', '-1', 'NaN', '${HOME}', '__import__("os").abort()', '!!python/object:os.abort'),
    *([], {}, [[]], {'a': {}}, [None], ['', ''], [1, 'a'], {'min': 'a'}, _DEEP, _DIGITS),
]


def mutated(rng: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """A file as something has left it: in one of three cases by its format, else as bytes."""
    by_format = _BY_FORMAT.get(name.rpartition('.')[2])
    if by_format and rng.random() < (0.8 if by_format in _TEXTS else 0.4):
        content = by_format(rng, content)
        if rng.random() < 0.8:
            return content
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(_BYTES)(rng, content, others)
    return content


# ---------------------------------------------------------------------------- bytes


def _place(rng: random.Random, content: bytes) -> int:
    """Half of the places are in the first bytes, some in the last: there the headers are."""
    near = rng.choice((len(content), len(content), 64, 512))
    place = rng.randrange(max(1, min(near, len(content))))
    return len(content) - 1 - place if rng.random() < 0.15 else place


def _flip(rng, content, _):
    made = bytearray(content or b'\0')
    for _ in range(rng.choice((1, 2, 8, 64))):
        made[_place(rng, made)] ^= 1 << rng.randrange(8)
    return bytes(made)


def _truncate(rng, content, _):
    return content[: _place(rng, content)]


def _without_start(rng, content, _):
    return content[_place(rng, content) :]


def _insert(rng, content, _):
    place = _place(rng, content)
    new = rng.choice((rng.randbytes(rng.choice((1, 4, 300))), b'\0' * 512, b'\xff' * 64))
    return content[:place] + new + content[place:]


def _delete(rng, content, _):
    place = _place(rng, content)
    return content[:place] + content[place + rng.choice((1, 2, 4, 128, 4096)) :]


def _repeat(rng, content, _):
    place = _place(rng, content)
    part = content[place : place + rng.choice((4, 64, 1024))]
    return content[:place] + part * rng.choice((2, 3, 50)) + content[place:]


def _number(rng, content, _):
    """Some four bytes become a number that means much as a size, a count or an offset."""
    kind = rng.choice(('<I', '>I', '<Q', '>Q', '<H', '>H'))
    new = struct.pack(kind, rng.choice(WHOLE) % 2 ** (8 * struct.calcsize(kind)))
    place = _place(rng, content) & ~rng.choice((0, 1, 3))
    return content[:place] + new + content[place + len(new) :]


def _splice(rng, content, others):
    other = rng.choice(others)
    return content[: _place(rng, content)] + other[_place(rng, other) :]


def _random(rng, content, _):
    return rng.randbytes(rng.choice((0, 1, 16, 4096)))


_BYTES = (_flip, _flip, _number, _number, _truncate, _insert, _delete, _repeat, _splice)
_BYTES += (_without_start, _random)


# ---------------------------------------------------------------------------- formats


def _wav(rng: random.Random, content: bytes) -> bytes:
    """Fields of the RIFF header, of fmt and of data."""
    fields = {4: 'I', 16: 'I', 20: 'H', 22: 'H', 24: 'I', 28: 'I', 32: 'H', 34: 'H'}
    data = content.find(b'data')
    if data > 0:
        fields[data + 4] = 'I'
    return _fields(rng, content, fields, '<')


def _flac(rng: random.Random, content: bytes) -> bytes:
    """Lengths of metadata blocks, and STREAMINFO: block sizes, rate, channels, samples, MD5."""
    fields = {4: 'I', 8: 'H', 10: 'H', 12: 'I', 14: 'I', 18: 'Q', 21: 'I', 26: 'Q', 42: 'I'}
    return _fields(rng, content, fields, '>')


def _fields(rng: random.Random, content: bytes, fields: dict[int, str], order: str) -> bytes:
    made = bytearray(content)
    for place in rng.sample(sorted(fields), rng.choice((1, 1, 2))):
        kind = order + fields[place]
        size = struct.calcsize(kind)
        if place + size <= len(made):
            value = rng.choice((*WHOLE, 3, 4, 8, 24, 32, 384_000, 65_534, rng.getrandbits(32)))
            struct.pack_into(kind, made, place, value % 2 ** (8 * size))
    return bytes(made)


def _ogg(rng: random.Random, content: bytes) -> bytes:
    """A field or bytes of a page, whose checksum is made right again."""
    found = ogg.pages(content)
    if not found:
        return content
    start, stop = rng.choice(found)
    page = bytearray(content[start:stop])
    field = rng.choice(('granule', 'serial', 'sequence', 'segments', 'kind', 'bytes', 'header'))
    if field == 'granule':
        struct.pack_into('<Q', page, 6, rng.choice(WHOLE) % 2**64)
    elif field in ('serial', 'sequence'):
        struct.pack_into('<I', page, {'serial': 14, 'sequence': 18}[field], rng.getrandbits(32))
    elif field == 'segments':
        page[26 + rng.randrange(min(4, len(page) - 26))] = rng.choice((0, 1, 255))
    elif field == 'kind':
        page[5] = rng.randrange(8)
    else:
        for _ in range(rng.choice((1, 4))):
            place = 27 + rng.randrange(len(page) - 27)
            page[place if field == 'bytes' else min(place, 27 + rng.randrange(60))] = rng.choice(
                (0, 255, rng.randrange(256))
            )
    return content[:start] + ogg.sealed(bytes(page)) + content[stop:]


def _mp3(rng: random.Random, content: bytes) -> bytes:
    """The header of a frame: version, layer, bit rate, sampling rate, mode."""
    frames = [i for i in range(len(content) - 4) if content[i] == 255 and content[i + 1] >= 224]
    if not frames:
        return content
    made = bytearray(content)
    for place in rng.sample(frames, min(len(frames), rng.choice((1, 3)))):
        made[place + rng.choice((1, 2, 3))] ^= 1 << rng.randrange(8)
    return bytes(made)


def _tar(rng: random.Random, content: bytes) -> bytes:
    """A header's name, size, kind or link, its checksum made right again."""
    headers = [
        i for i in range(0, len(content) - 511, 512) if content[i + 257 : i + 262] == b'ustar'
    ]
    if not headers:
        return content
    start = rng.choice(headers)
    block = bytearray(content[start : start + 512])
    field = rng.choice(('name', 'size', 'kind', 'link'))
    if field in ('name', 'link'):
        names = (b'../../x.flac', b'/etc/passwd', b'a\xff.wav', b'', b'x/' * 49, b'0.json', b'.')
        place = 0 if field == 'name' else 157
        block[place : place + 100] = rng.choice(names).ljust(100, b'\0')
    if field == 'size':
        sizes = (b'77777777777\0', b'-0000000001\0', b'\x80' + b'\xff' * 11, b'\x80' + bytes(11))
        sizes += (b'00000000000\0', b'xyz'.ljust(12), b'00000010000\0', b'\xff' * 12)
        block[124:136] = rng.choice(sizes)
    if field in ('kind', 'link'):
        block[156] = rng.choice(b'\x000123456xgLKSX9')
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    return content[:start] + bytes(block) + content[start + 512 :]


def _safetensors(rng: random.Random, content: bytes) -> bytes:
    """The header: a JSON text behind its length."""
    length = int.from_bytes(content[:8], 'little')
    header = json_edited(rng, content[8 : 8 + length])
    size = rng.choice((len(header),) * 8 + WHOLE) % 2**64
    return struct.pack('<Q', size) + header + content[8 + length :]


def _csv(rng: random.Random, content: bytes) -> bytes:
    """Cells, columns and quotes."""
    cells = [line.split(b',') for line in content.split(b'\n')]
    for _ in range(rng.choice((1, 1, 3))):
        row = rng.choice(cells)
        column = rng.randrange(len(row))
        match rng.randrange(6):
            case 0:
                del row[column]
            case 1:
                row.append(rng.choice(row or [b'x']))
            case 2:
                cells.append(list(row))
            case 3:
                row.insert(0, rng.choice((b'"', b'\xff\xfe', b'\xef\xbb\xbf', b'\0')))
            case _:
                value = rng.choice(VALUES)
                text = value if isinstance(value, str) else json.dumps(value)
                row[column] = text.encode('utf-8', 'surrogatepass')
        cells = [row for row in cells if row]
    return rng.choice((b'\n', b'\n', b'\r\n', b'\r')).join(map(b','.join, cells))


def _jsonl(rng: random.Random, content: bytes) -> bytes:
    lines = content.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = json_edited(rng, lines[number])
    return b'\n'.join(lines) + b'\n'


def json_edited(rng: random.Random, content: bytes) -> bytes:
    """A JSON text with some of its parts changed."""
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        value = _edited(rng, value)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    text = text.replace(f'"{_DEEP}"', '[' * 20_000 + ']' * 20_000)
    text = text.replace(f'"{_DIGITS}"', '9' * 5000)
    return text.encode('utf-8', 'surrogatepass')


def _edited(rng: random.Random, value: Any) -> Any:
    """The value, changed at one place of it."""
    if type(value) in (int, float) and rng.random() < 0.6:  # a number that could be meant
        return rng.choice((value + 1, value - 1, 2 * value, 8 + value, 1000 * value, -value))
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    made = dict(value) if isinstance(value, dict) else list(value)
    match rng.randrange(10):
        case 0:
            del made[key]
        case 1 if isinstance(made, dict):
            made[rng.choice((f'{key}s', key[:-1], '', 'name', '__class__', key + '\0'))] = made[key]
        case 2 if isinstance(made, list):
            made.insert(0, rng.choice((made[key], *VALUES)))
        case 3:
            made[key] = [made[key]]
        case 4:
            made[key] = {'a': made[key]}
        case _:
            made[key] = _edited(rng, made[key])
    return made


def _text(rng: random.Random, content: bytes) -> bytes:
    parts = content.split(b',')
    place = rng.randrange(len(parts))
    new = (b'', b'=', b'smoke=', b'batch_size=1e99', b'=1', b'\0', b'x' * 1000, b'name==')
    parts[place] = rng.choice(new)
    return b','.join(parts)


_BY_FORMAT: dict[str, Callable[[random.Random, bytes], bytes]] = {
    'wav': _wav,
    'flac': _flac,
    'ogg': _ogg,
    'mp3': _mp3,
    'tar': _tar,
    'safetensors': _safetensors,
    'csv': _csv,
    'jsonl': _jsonl,
    'json': json_edited,
    'txt': _text,
}
_TEXTS = (_safetensors, _csv, _jsonl, json_edited, _text)
