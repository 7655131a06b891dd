"""Sounds and real instruments, read from the real packages."""

import collections
import pickle
import struct
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data.catalog.packaged_sounds.classes import CLASSES, INSTRUMENTS
from alm_jax.data.catalog.packaged_sounds.fetch import open_package
from alm_jax.data.catalog.packaged_sounds.sources import (
    debian_copyright,
    gcompris,
    minetest,
    opensfx,
    rules,
    sonic_pi,
    tuxpaint_effects,
    ufoai,
    wesnoth,
)
from alm_jax.data.catalog.packaged_sounds.sources.opensfx import parse_cat
from alm_jax.data.catalog.packaged_sounds.sources.qt_resource import parse_rcc

few = hypothesis.settings(max_examples=100, deadline=None, derandomize=True)

# source -> clips, and of them with a class.
COUNTS = {
    opensfx: (71, 50),
    tuxpaint_effects: (110, 60),  # the guide counts 109; two of 112 repeat another animal
    gcompris: (136, 78),
    ufoai: (347, 220),
    minetest: (109, 78),
    wesnoth: (291, 76),
    sonic_pi: (166, 87),
}


@pytest.fixture(scope='module')
def clips():
    """source module -> its clips."""
    return {
        source: list(source.clips({name: open_package(name) for name in source.PACKAGES}))
        for source in COUNTS
    }


@pytest.mark.parametrize('source', COUNTS, ids=lambda source: source.__name__.split('.')[-1])
def test_counts_labels_and_licences(source, clips):
    found = clips[source]
    assert (len(found), sum(clip.label != '' for clip in found)) == COUNTS[source]
    assert len({clip.member for clip in found}) == len(found)
    for clip in found:
        assert clip.label == '' or clip.label in CLASSES, clip
        assert all((clip.licence, clip.author, clip.group, clip.title)), clip
        assert clip.phrase or clip.label in INSTRUMENTS, f'no words for {clip.title}'
        assert (clip.kind == 'instrument') == (clip.phrase == ''), clip


@pytest.mark.parametrize('source', COUNTS, ids=lambda source: source.__name__.split('.')[-1])
def test_clips_decode_here_and_in_another_process(source, clips):
    for clip in clips[source][::25]:
        pcm, rate = pickle.loads(pickle.dumps(clip.read))()
        assert (pcm.dtype, pcm.ndim) == (np.int16, 1)
        assert len(pcm) > 0
        assert 8_000 <= rate <= 96_000
        np.testing.assert_array_equal(pcm, clip.read()[0])


def test_names_that_stand_for_a_class(clips):
    labels = {(c.package, c.title): c.label for found in clips.values() for c in found}
    for title, label in {
        ('opensfx', 'Tropical: Lion roar'): 'big cat',
        ('opensfx', 'Helicopter'): 'aircraft',
        ('opensfx', 'Crash'): '',
        ('tuxpaint', 'A colorful rooster.'): 'rooster',
        ('gcompris', 'memory-sound/LRApplauses_1_LA_cut'): 'applause',
        ('gcompris', 'instruments/horn'): 'french horn',
        ('ufoai', 'footsteps/gravel3'): 'footsteps',
        ('ufoai', 'aliens/taman/die1'): '',
        ('minetest', 'default_water_footstep.2'): 'splash',
        ('wesnoth', 'wolf-growl-1'): 'wolf',
        ('sonic_pi', 'misc_crow'): 'crow',
        ('sonic_pi', 'loop_amen'): '',
    }.items():
        assert labels[title] == label, title


def test_licence_and_author_are_those_of_the_file(clips):
    stated = {(c.package, c.title): (c.licence, c.author) for f in clips.values() for c in f}
    assert stated['opensfx', 'Helicopter'] == ('CC-BY-SA-3.0', 'lorenzosu')
    assert stated['opensfx', 'Sheep'] == ('CC0-1.0', 'David R Barnes')
    assert stated['gcompris', 'guessnumber/helicopter'] == ('CC-BY-3.0', 'fridobeck')
    assert stated['gcompris', 'instruments/drum_kit'][0] == 'CC-sampling-plus-1.0'
    assert stated['sonic_pi', 'ambi_choir'] == ('CC0-1.0', 'Exsomniel')
    assert stated['ufoai', 'ambience/minepump03'][0] == 'CC-BY-3.0'


def test_cuts_of_one_recording_share_a_group(clips):
    groups = collections.defaultdict(set)
    for clip in clips[opensfx]:
        groups[clip.group].add(clip.title)
    assert {'Crash', 'Big crash'} <= groups['opensfx/crash.wav']
    assert {'Wind', 'Heavy wind'} <= groups['opensfx/wind1.wav']
    walks = {c.group for c in clips[minetest] if c.title.startswith('default_grass_footstep')}
    assert len(walks) == 1


def test_gcompris_has_26_instruments_and_nine_sentences(clips):
    played = [c for c in clips[gcompris] if c.title.startswith('instruments/')]
    assert [c.kind for c in played] == ['instrument'] * 26
    said = [sentence for c in clips[gcompris] for sentence in c.sentences]
    assert len(said) == 9
    assert "The cow goes 'moo'." in said


def test_the_entries_without_samples_are_counted():
    dropped = collections.Counter()
    list(opensfx.clips({'openttd-opensfx': open_package('openttd-opensfx')}, dropped))
    assert dropped.total() == 2


def test_no_package_no_clips():
    assert all(list(source.clips({})) == [] for source in COUNTS)


def test_rules_take_the_first_match_and_its_words():
    table = (('a/(b|old)-c', r'a \1 thing', 'x'), ('a/.*', 'another', 'y'))
    assert rules.first(table, 'a/old-c')[1:] == ('an old thing', 'x')
    assert rules.first(table, 'a/z')[1:] == ('another', 'y')
    assert rules.first(table, 'z') == ('', '', '')
    assert [rules.series(x) for x in ('gravel3', 'wolf-hit-2', 'a.1', 'b')] == [
        'gravel', 'wolf-hit', 'a', 'b']  # fmt: skip


def test_the_last_matching_copyright_paragraph_counts():
    text = (
        'Files: *\nCopyright: 2001 A <a@b.c>\nLicense: GPL-2+\n\n'
        'Files: x/*.ogg\n y.ogg\nCopyright: 2001-2004, B\n C\nLicense: CC0\n more\n'
    )
    parsed = debian_copyright.parse(text)
    assert debian_copyright.find(parsed, 'x/z.ogg')[1:] == ('CC0-1.0', 'B, C')
    assert debian_copyright.find(parsed, 'z.ogg')[1:] == ('GPL-2.0-or-later', 'A')
    assert debian_copyright.find([], 'z').licence == ''


def _cat(*entries: tuple[bytes, bytes, bytes]) -> bytes:
    head, body = b'', b''
    for title, riff, name in entries:
        head += struct.pack('<II', (8 * len(entries) + len(body)) | 1 << 31, len(riff))
        body += bytes([len(title) + 1]) + title + b'\0' + riff
        body += b'\0' + bytes([len(name) + 1]) + name + b'\0'
    return head + body


def _rcc(content: bytes, flags: int = 0) -> bytes:
    """One file 'f' with ``content`` below the root."""
    tree = struct.pack('>IHIIQ', 0, 2, 1, 1, 0) + struct.pack('>IHHHIQ', 0, flags, 0, 0, 0, 0)
    data = struct.pack('>I', len(content)) + content
    names = struct.pack('>HI', 1, 0) + 'f'.encode('utf-16-be')
    start = 20
    offsets = (start, start + len(tree), start + len(tree) + len(data))
    return struct.pack('>4s4I', b'qres', 2, *offsets) + tree + data + names


RIFF = b'RIFF\x04\0\0\0WAVE'


def test_containers_give_back_what_was_put_in():
    first, second = parse_cat(_cat((b'"A".', RIFF, b'a.wav'), (b'"B".', RIFF, b'b.wav')), 'p: c')
    assert (first.description, first.riff, first.name) == ('"A".', RIFF, 'a.wav')
    assert second.name == 'b.wav'
    assert parse_rcc(_rcc(b'sound'), 'p: r') == {'f': b'sound'}
    packed = struct.pack('>I', 5) + zlib.compress(b'sound')
    assert parse_rcc(_rcc(packed, flags=1), 'p: r') == {'f': b'sound'}


@pytest.mark.parametrize(
    ('content', 'flags', 'reason'),
    [
        (struct.pack('>I', 5) + zlib.compress(b'sound')[:-3], 1, 'cut off'),
        (struct.pack('>I', 5) + b'no zlib', 1, 'zlib|incorrect header'),
        (b'zstd', 4, 'zstd'),
        (struct.pack('>I', 1 << 30) + zlib.compress(bytes(65 << 20)), 1, 'larger'),
    ],
)
def test_a_resource_that_does_not_unpack(content, flags, reason):
    with pytest.raises(ConfigError, match=rf'p: r(?s:.*)({reason})'):
        parse_rcc(_rcc(content, flags), 'p: r')


def test_a_resource_that_is_its_own_folder():
    data = bytearray(_rcc(b'sound'))
    struct.pack_into('>II', data, 20 + 6, 2, 0)  # the root's children start at the root
    with pytest.raises(ConfigError, match='no end'):
        parse_rcc(bytes(data), 'p: r')


def _complaint(parse, data: bytes) -> str:
    """What the parser says of ``data``; only a ConfigError is a way of saying it."""
    try:
        parse(data, 'package: member')
    except ConfigError as error:
        return str(error)
    return 'package: member is well formed'


@few
@hypothesis.given(st.binary(max_size=300), st.integers(0, 100), st.integers(0, 100))
@pytest.mark.parametrize(
    ('parse', 'whole'),
    [(parse_cat, _cat((b'"A".', RIFF, b'a.wav'))), (parse_rcc, _rcc(b'sound'))],
)
def test_hostile_containers_are_named(parse, whole, noise, start, length):
    damaged = whole[:start] + noise + whole[start + length :]
    for data in (noise, damaged, whole[:start]):
        assert 'package: member' in _complaint(parse, data)
