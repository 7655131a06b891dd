"""OpenSFX, the sounds of OpenTTD: one .cat container, with title, author and licence per clip.

The layout of the container is that of catcodec (https://github.com/OpenTTD/catcodec): a table of
(uint32 offset, uint32 size), little endian, whose first offset is its own size with the highest bit
set; and per entry a counted title, a RIFF file, and a counted file name.
"""

import collections
import functools
import re
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from alm_jax import config as config_lib
from alm_jax.audio.decode import decode, to_pcm16
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package
from alm_jax.data.catalog.packaged_sounds.sources import rules

PACKAGES = ('openttd-opensfx',)

_MEMBER = 'usr/share/games/openttd/baseset/opensfx/opensfx.cat'
_NAMED = 1 << 31  # set in every offset of the newer format, which has titles and names
_MAX_ENTRIES = 4096
_HEADER_ONLY = 44  # bytes of a WAV file without samples
_LICENCES = {
    'Creative Commons Zero 1.0': 'CC0-1.0',
    'Creative Commons Attribution 3.0': 'CC-BY-3.0',
    'Creative Commons Attribution-ShareAlike 3.0': 'CC-BY-SA-3.0',
}

# title -> noun phrase, label.
_RULES = (
    ('Factory Whistle', 'a factory steam whistle', ''),
    ('Steam train station departure', 'a steam train departing with a whistle', 'train'),
    ('Steam engine going in tunnel', 'a steam engine whistling as it enters a tunnel', 'train'),
    ('Ship horn', 'a ship horn', 'ship horn'),
    ('Ferry horn', 'the horn of a ferry', 'ship horn'),
    ('Propeller plane start', 'a propeller plane starting', 'aircraft'),
    ('Early jet take off', 'an early jet taking off', 'aircraft'),
    ('Diesel/electric train.*', 'a diesel train departing with its horn', 'train'),
    ('Mining machinery', 'mining machinery', 'machine'),
    ('Electric sparking', 'electric sparks', 'electricity'),
    (r'Steam \(of steam engine\)', 'steam escaping from an engine', 'steam'),
    ('Level crossing', 'a train at a level crossing with its bell', 'train'),
    ('Road vehicle breakdown', 'a road vehicle breaking down', ''),
    ('Train/ship breakdown', 'a train or ship breaking down', ''),
    ('(Big crash|Crash)', 'a crash', ''),
    ('Explosion', 'an explosion', 'explosion'),
    ('Cash till', 'a cash till', 'cash register'),
    ('Beep', 'a beep', 'beep'),
    ('Morse', 'Morse code', 'beep'),
    ('Plane wheels.*', 'plane wheels touching the ground', ''),
    ('Helicopter', 'a helicopter', 'aircraft'),
    ('.*pull away with horn', 'a truck starting and pulling away with its horn', 'engine'),
    ('Truck/old bus start.*', 'a truck or old bus starting and pulling away', 'engine'),
    ('Modern bus start', 'the engine of a modern bus starting', 'engine'),
    ('Old bus start', 'the engine of an old bus starting', 'engine'),
    ('Applause', 'applause from an audience', 'applause'),
    ('Oooh sound', 'a voice saying oooh', ''),
    ('Splat.*', 'a splat of construction', ''),
    ('Jackhammer', 'a jackhammer', 'jackhammer'),
    ('Modern car horn', 'a modern car horn', ''),
    ('Sheep', 'sheep bleating', 'sheep'),
    ('Cow', 'a cow mooing', 'cow'),
    ('Horse', 'a horse neighing', 'horse'),
    ('Building bridge', 'hammering in a smithy while a bridge is built', 'hammering'),
    ('Sawmill', 'a circular saw in a sawmill', 'sawing'),
    (r'Toyland: Sugar mine.*', 'a shaker in a sugar mine', ''),
    (r'Toyland: Toy factory.*', 'a toy factory', ''),
    ('Toyland: Bubble generated', 'a bubble being made', 'bubbles'),
    ('Toyland: Bubble plop', 'the plop of a bubble', 'bubbles'),
    ('Toyland: Bubble slurped', 'a bubble being slurped', 'bubbles'),
    ('Toyland: Plastic mine', 'bubbles in water', 'bubbles'),
    ('Toyland: Toffee quarry', 'a toffee quarry', ''),
    ('Wind', 'wind', 'wind'),
    ('Heavy wind', 'heavy wind', 'wind'),
    ('Lumber mill: Crashing tree', 'a tree crashing down', 'wood breaking'),
    ('Lumber mill: Falling tree', 'a tree being cut and falling', 'wood breaking'),
    ('Lumber mill: Chainsaw', 'a chainsaw in a lumber mill', 'sawing'),
    (r'Mach 1\+ Jet take off', 'a supersonic jet taking off', 'aircraft'),
    ('Modern jet take off', 'a modern jet taking off', 'aircraft'),
    ('Toyland: Propeller plane take off', 'a toy propeller plane taking off', 'aircraft'),
    ('Toyland: Jet take off', 'a comic jet taking off', 'aircraft'),
    (r'Toyland: Comedy (bus|truck) start.*', r'a comic \1 starting', 'engine'),
    ('Maglev train.*', 'a magnetic levitation train departing from a station', 'train'),
    ('Monorail train.*', 'a monorail train departing from a station', 'train'),
    (r'Tropical: Bird.*', 'a tropical bird', 'bird song'),
    ('Tropical: Lion roar', 'a lion roaring', 'big cat'),
    ('Tropical: Monkeys', 'monkeys in the tropics', 'monkey'),
    ('Toyland: Road vehicle breakdown', 'a toy vehicle breaking down', ''),
    ('Toyland: Train breakdown', 'a toy train breaking down', ''),
    ('Good Year', 'a cheerful chime for a good year', ''),
    ('Bad Year', 'a sad tune for a bad year', ''),
)


class Entry(NamedTuple):
    """One clip of the container: description, RIFF bytes and file name ('src/wav/osfx_00.wav')."""

    description: str
    riff: bytes
    name: str


def clips(
    packages: Mapping[str, Package], dropped: collections.Counter | None = None
) -> Iterator[Clip]:
    """The named clips; the entries without samples are counted in ``dropped``."""
    dropped = collections.Counter() if dropped is None else dropped
    package = packages.get(PACKAGES[0])
    if package is None:
        return
    for name, entry in _entries(package).items():
        title = entry.description.split('"')[1]
        if len(entry.riff) <= _HEADER_ONLY:
            dropped['opensfx: entry without samples'] += 1
            continue
        rule = rules.first(_RULES, title)
        yield Clip(
            package='opensfx',
            member=f'{_MEMBER}#{name}',
            read=functools.partial(_read, package, name),
            kind='sound',
            group='opensfx/' + _original(entry.description, title),
            title=title,
            licence=_licence(entry.description),
            label=rule.label,
            author=_author(entry.description),
            phrase=rule.phrase,
        )


def parse_cat(data: bytes, where: str) -> list[Entry]:
    """Entries of a container; ConfigError naming ``where`` and the entry when it is malformed."""
    try:
        first = struct.unpack_from('<I', data)[0]
        count, rest = divmod(first & ~_NAMED, 8)
        if not first & _NAMED or rest or not 0 < count <= _MAX_ENTRIES:
            raise ValueError('this is not a table of named entries')
        return [_entry(data, i) for i in range(count)]
    except (struct.error, ValueError, IndexError, UnicodeDecodeError) as error:
        raise config_lib.ConfigError(f'{where} is not a sound container: {error}.') from error


def _entry(data: bytes, i: int) -> Entry:
    start, size = struct.unpack_from('<II', data, 8 * i)
    start &= ~_NAMED
    description, riff_start = _counted(data, start)
    if size < 8 or riff_start + size > len(data) or data[riff_start : riff_start + 4] != b'RIFF':
        raise ValueError(f'entry {i} at byte {start} is not a RIFF file within the container')
    riff = data[riff_start : riff_start + size]
    gap = riff_start + size
    name, _ = _counted(data, gap + 1)  # one zero byte lies between
    return Entry(description, riff, name)


def _counted(data: bytes, start: int) -> tuple[str, int]:
    """A string with a length byte and a final zero; and the position after it."""
    end = start + 1 + data[start]
    if end > len(data):
        raise ValueError(f'a string at byte {start} leaves the container')
    return data[start + 1 : end].rstrip(b'\0').decode('latin-1'), end


@functools.lru_cache(maxsize=1)
def _entries(package: Package) -> dict[str, Entry]:
    entries = parse_cat(package.read(_MEMBER), f'{package.name}: {_MEMBER}')
    return {entry.name: entry for entry in entries}


def _read(package: Package, name: str) -> tuple[np.ndarray, int]:
    x, rate = decode(_entries(package)[name].riff, f'{package.name}: {_MEMBER}#{name}')
    return to_pcm16(x), rate


def _original(description: str, title: str) -> str:
    """The first source recording that is named: clips cut from one recording share it."""
    match = re.search(r'(?:Orig[a-z]*|\.) "([^"]+)"', description)
    return match[1] if match else rules.series(title.removeprefix('Heavy '))


def _author(description: str) -> str:
    match = re.search(r'\b[Bb]y (?:"([^"]+)"|([^."]+))', description)
    return (match[1] or match[2]).strip() if match else ''


def _licence(description: str) -> str:
    stated = description.partition('License: ')[2]
    for name in sorted(_LICENCES, key=len, reverse=True):
        if stated.startswith(name):
            return _LICENCES[name]
    return 'CC-BY-SA-3.0'  # of the collection as a whole
