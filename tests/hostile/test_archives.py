"""Archives that lie: members that would leave the folder, sizes that are not true, bombs."""

import bz2
import gzip
import io
import lzma
import os
import signal
import struct
import tarfile
import tracemalloc
import zipfile

import pytest

from alm_jax.config import ConfigError
from alm_jax.data import archive_bounds
from alm_jax.data.catalog import archives
from alm_jax.data.catalog.files import Files
from alm_jax.data.catalog.packaged_sounds.package import Package, PackageError
from alm_jax.data.inputs import tar_members, tars

OUTSIDE = ['../out.wav', '/tmp/out.wav', 'a/../../out.wav', '..\\out.wav', 'C:\\out.wav']
LINKS = {
    tarfile.SYMTYPE: '/etc/passwd',
    tarfile.LNKTYPE: '../secret.wav',
    tarfile.CHRTYPE: '',
    tarfile.BLKTYPE: '',
    tarfile.FIFOTYPE: '',
}


def tar(path, members, kind=tarfile.REGTYPE, link=''):
    """A tar of (name, content)."""
    with tarfile.open(path, 'w', format=tarfile.GNU_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def header(name=b'x.wav', size=0, kind=b'0', pax=b''):
    """A header block whose checksum is right, whatever the size, with pax keys before it."""
    info = tarfile.TarInfo(name.decode())
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    if 0 <= size < 8**11:
        block[124:136] = b'%011o\0' % size
    else:  # base 256
        block[124:136] = (size % (1 << 96) | (1 << 95)).to_bytes(12, 'big')
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    before = header(b'pax', len(pax), b'x') + pax.ljust(512, b'\0') if pax else b''
    return before + bytes(block)


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*')}


@pytest.mark.parametrize('ending', ['zip', 'tar', 'tar.gz'])
def test_a_name_that_leads_out_is_but_a_name(tmp_path, ending):
    inside = tmp_path / 'data'
    inside.mkdir()
    (tmp_path / 'out.wav').write_bytes(b'outside')
    for number, name in enumerate(OUTSIDE):
        path = inside / f'{number}.{ending}'
        if ending == 'zip':
            with zipfile.ZipFile(path, 'w') as archive:
                archive.writestr(name, b'within')
        elif ending == 'tar':
            tar(path, [(name, b'within')])
        else:
            path.write_bytes(
                gzip.compress(tar(tmp_path / 'plain', [(name, b'within')]).read_bytes())
            )
    (tmp_path / 'plain').unlink(missing_ok=True)
    before = files_below(tmp_path)
    for path in sorted(inside.iterdir()):
        table = archives.Members(path, inside / 'scratch')
        archive, member, span = table.file(table.names[0])
        assert archives.read(archive, span, member) == b'within'
    made = files_below(tmp_path) - before
    assert all(name.startswith('data/scratch') for name in made)
    assert (tmp_path / 'out.wav').read_bytes() == b'outside'
    with pytest.raises(ConfigError, match='leads out'):
        Files(inside).lines('../out.wav').__next__()


@pytest.mark.parametrize('kind', LINKS)
def test_links_devices_and_pipes_are_no_recordings(tmp_path, kind):
    (tmp_path / 'secret.wav').write_bytes(b'secret')
    (tmp_path / 'data').mkdir()
    tar(tmp_path / 'data/a.tar', [('x.wav', b'')], kind, LINKS[kind])
    assert Files(tmp_path / 'data').audio('x.wav') is None
    scanned = tar_members.scan(tmp_path / 'data/a.tar').to_pylist()
    assert all(row['problem'] and not row['text'] for row in scanned)


HUGE = {
    'beyond the file': header(size=1 << 20),
    'beyond 64 bits': header(size=1 << 80),
    'negative': header(size=-1024),
    'long name beyond the file': header(size=1 << 60, kind=b'L'),
    'long name that goes back': header(size=-512, kind=b'L'),
    'pax keys without end': header(size=1 << 33, kind=b'x'),
    'pax size that goes back to the beginning': header(pax=b'14 size=-1536\n'),
    'pax size beyond the file': header(pax=b'20 size=99999999999\n'),
    'pax size that is none': header(pax=b'12 size=abc\n'),
    'headers in headers': b''.join(
        header(b'pax', 512, b'x') + b'11 a=bcdef\n'.ljust(512, b'\0') for _ in range(1200)
    ),
}


@pytest.fixture
def soon():
    """An error where something would go on for ever."""

    def late(*_):
        raise AssertionError('it takes more than 60 s')

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures('soon')
@pytest.mark.parametrize('name', HUGE)
def test_a_size_that_is_not_true(tmp_path, name):
    path = tmp_path / 'a.tar'
    path.write_bytes(HUGE[name] + bytes(2048))
    tracemalloc.start()
    try:
        if name != 'pax size that is none':  # the library leaves such a key out
            with pytest.raises(ConfigError, match=r'a\.tar'):
                list(archives.members(path, path))
            with pytest.raises(ConfigError, match=r'a\.tar'):
                tar_members.scan(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def zip_of(path, content, **claims):
    """A zip of x.wav whose table claims another size, or packed size, or place."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('x.wav', content)
    data = bytearray(path.read_bytes())
    table = data.index(b'PK\1\2')
    for name, value in claims.items():
        place = {'packed': 20, 'size': 24, 'offset': 42}[name]
        struct.pack_into('<I', data, table + place, value)
    path.write_bytes(data)
    return path


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path):
    bomb = tmp_path / 'bomb.zip'
    with (
        zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as archive,
        archive.open('x.wav', 'w') as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    assert bomb.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"bomb\.zip: member 'x\.wav' unpacks to 314572800 bytes"):
        Files(tmp_path).audio('x.wav')
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def read_x(folder):
    """The content of x.wav, in whatever archive of the folder it is."""
    clip = Files(folder).audio('x.wav')
    return archives.read(clip.path, clip.span, clip.member)


def test_a_table_that_lies_is_refused(tmp_path):
    content = os.urandom(1000)
    for claims in ({'size': 0xFFFFFFF0}, {'packed': 1 << 30}, {'offset': 1 << 30}):
        zip_of(tmp_path / 'a.zip', content, **claims)
        with pytest.raises(ConfigError, match=r'a\.zip'):
            read_x(tmp_path)


def test_members_that_share_bytes_are_refused(tmp_path):
    """The bomb of overlapping members: each is small, and all are the same bytes."""
    zip_of(tmp_path / 'a.zip', os.urandom(1000))
    data = (tmp_path / 'a.zip').read_bytes()
    table, end = data.index(b'PK\1\2'), data.index(b'PK\5\6')
    entry = data[table:end]
    tail = bytearray(data[end:])
    struct.pack_into('<HH', tail, 8, 100, 100)
    struct.pack_into('<I', tail, 12, 100 * len(entry))
    (tmp_path / 'a.zip').write_bytes(data[:table] + 100 * entry + tail)
    with pytest.raises(ConfigError, match='overlap'):
        Files(tmp_path).audio('x.wav')


@pytest.mark.parametrize(
    ('ending', 'pack'), [('gz', gzip.compress), ('bz2', bz2.compress), ('xz', lzma.compress)]
)
def test_a_packed_tar_that_unpacks_without_end(tmp_path, monkeypatch, ending, pack):
    monkeypatch.setattr(archive_bounds, 'ALWAYS', 4 << 20)
    packed = pack(bytes(16 << 20))
    (tmp_path / f'a.tar.{ending}').write_bytes(packed)
    with pytest.raises(ConfigError, match=rf'a\.tar\.{ending} unpacks to more than'):
        Files(tmp_path, scratch=tmp_path / 'scratch').audio('x.wav')
    assert list((tmp_path / 'scratch').iterdir()) == []  # what was unpacked is gone


def test_the_bound_of_packed_tars_is_a_ratio_above_a_size():
    assert archive_bounds.most_unpacked(10) == 256 << 20
    assert archive_bounds.most_unpacked(1 << 30) == 200 << 30


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_bounds, 'MOST_MEMBERS', 3)
    members = [(f'{number}.wav', b'x') for number in range(4)]
    tar(tmp_path / 'a.tar', members)
    with pytest.raises(ConfigError, match=r'a\.tar has more than 3 members'):
        Files(tmp_path).audio('x.wav')
    (tmp_path / 'a.tar').unlink()
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for name, content in members:
            archive.writestr(name, content)
    with pytest.raises(ConfigError, match=r'a\.zip has more than 3 members'):
        Files(tmp_path).audio('x.wav')


def test_of_a_name_that_stands_there_twice_none_is_guessed(tmp_path):
    tar(tmp_path / 'a.tar', [('x.wav', b'first'), ('x.wav', b'second')])
    with pytest.raises(ConfigError, match='could be any of'):
        Files(tmp_path).audio('x.wav')


def test_a_text_of_a_tar_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_members.files, 'LARGEST_TEXT', 1000)
    tar(tmp_path / 'a.tar', [('x.txt', b'a dog ' * 1000), ('y.txt', b'a cat')])
    rows = tar_members.scan(tmp_path / 'a.tar').to_pylist()
    assert [row['text'] for row in rows] == [b'', b'a cat']
    assert rows[0]['problem'].startswith('6000 bytes long')


def test_an_index_that_came_with_a_tar_is_not_believed(tmp_path):
    """It says where recordings lie: places beyond the file are errors, not reads of any memory."""
    tar(tmp_path / 'a.tar', [('x.wav', b'RIFF')])
    fetch = tars.Fetch([tmp_path / 'a.tar'], [0])
    for offset, size in ((0, 1 << 62), (1 << 62, 1 << 62), (-5, 3), (0, -1)):
        with pytest.raises(OSError, match=r'a\.tar') as caught:
            fetch({}, 0, offset, size)
        assert caught.type.__name__ == 'UnreadableFile'


@pytest.mark.usefixtures('soon')
def test_a_link_to_a_folder_above_is_not_followed_for_ever(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/x.txt').write_text('x')
    (tmp_path / 'a/up').symlink_to(tmp_path)
    (tmp_path / 'a/again').symlink_to(tmp_path / 'a')
    assert Files(tmp_path).files('*.txt') == ['a/x.txt']


AR = b'!<arch>\n'


@pytest.mark.usefixtures('soon')
@pytest.mark.parametrize(
    'content',
    [
        AR + b'control.tar'.ljust(48) + b'-60       `\n',
        AR + b'other'.ljust(48) + b'-60       `\n',  # back to itself
        AR + b'control.tar'.ljust(48) + b'99999999  `\n',
        AR + b'control.tar'.ljust(48) + b'x         `\n',
        AR + b'\xff' * 48 + b'0         `\n',
        AR + b'control.tar.gz'.ljust(48) + b'9         `\nnot gzip.',
        AR + b'control.tar.xz'.ljust(48) + b'9         `\nnot xz...',
    ],
)
def test_debian_packages_that_lie(tmp_path, content):
    path = tmp_path / 'downloads/evil_1.0_all.deb'
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r'evil_1\.0_all\.deb'):
        Package('evil', '1.0', path)
