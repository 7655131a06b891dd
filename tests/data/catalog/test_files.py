"""The shared readers: tables and audio, in folders and archives, and what is wrong with them."""

import io
import json
import os
import struct
import tarfile
import unicodedata
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data.catalog import archives, rows
from alm_jax.data.catalog.building import clip_audio
from alm_jax.data.catalog.declaration import youtube_id
from alm_jax.data.catalog.files import Files

few = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)


def content(clip):
    """The bytes that a clip's samples are decoded from."""
    if clip.member:
        return archives.read(clip.path, clip.span, clip.member)
    with open(clip.path, 'rb') as file:
        return file.read()


def test_what_is_missing_says_where_it_must_lie_and_what_is_still_packed(tmp_path):
    (tmp_path / 'audio.7z').touch()
    files = Files(tmp_path, 'train.csv from https://example.org')
    message = (
        rf"'train.csv' or 'a/train.csv' is not in {tmp_path}.(?s:.*)audio.7z(?s:.*)example.org"
    )
    with pytest.raises(ConfigError, match=message):
        files.csv('train.csv', 'a/train.csv')
    with pytest.raises(ConfigError, match=r'does not exist(?s:.*)LAYOUT'):
        Files(tmp_path / 'nowhere', 'LAYOUT')


@pytest.mark.parametrize('name', ['../x.wav', '/etc/passwd', 'a/../../x.wav', 'a\0.wav'])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    files = Files(tmp_path)
    for read in (files.audio, files.csv, files.json, files.has):
        with pytest.raises(ConfigError, match='leads out'):
            read(name)
    with pytest.raises(ConfigError, match='leads out'):
        files.audio('x.wav', '..')


def test_csv_errors_name_file_row_and_column(tmp_path):
    (tmp_path / 'a.csv').write_text('name,seconds\nx,1\ny,two\n')
    read = list(Files(tmp_path).csv('a.csv', required=('name',)))
    assert read[0].number('seconds') == 1.0
    with pytest.raises(ConfigError, match=r"a\.csv, row 3: 'seconds' is 'two'; expected a number"):
        read[1].number('seconds')
    with pytest.raises(ConfigError, match=r"a\.csv, row 2: there is no 'second'\. .*'seconds'"):
        read[0].text('second')
    with pytest.raises(ConfigError, match=r"a\.csv: there is no column 'nam'\. .*'name'"):
        list(Files(tmp_path).csv('a.csv', required=('nam',)))
    (tmp_path / 'b.csv').write_text('name,seconds\nx,1\ny,2,3\n')
    with pytest.raises(ConfigError, match=r'b\.csv, row 3: 3 cells; expected 2'):
        list(Files(tmp_path).csv('b.csv'))
    (tmp_path / 'c.csv').write_bytes('name\nok\nJürgen\n'.encode('iso-8859-1'))
    with pytest.raises(ConfigError, match=r'c\.csv, row 3: not utf-8 text'):
        list(Files(tmp_path).csv('c.csv'))
    read = list(Files(tmp_path).csv('c.csv', encoding='iso-8859-1'))
    assert read[1]['name'] == 'Jürgen'
    (tmp_path / 'd.csv').write_text('name\n"never closed\n')
    with pytest.raises(ConfigError, match=r'd\.csv, row 2'):
        list(Files(tmp_path).csv('d.csv'))


def test_csv_variants(tmp_path):
    files = Files(tmp_path)
    (tmp_path / 'a.tsv').write_text('id\ttext\n1\tsays "no"\n')
    assert list(files.csv('a.tsv', delimiter='\t')) == [{'id': '1', 'text': 'says "no"'}]
    (tmp_path / 'b.csv').write_bytes(b'\xef\xbb\xbfid,text\r\n1,"two\r\nlines"\r\n\r\n2,x\r\n')
    read = list(files.csv('b.csv'))
    assert read == [{'id': '1', 'text': 'two\r\nlines'}, {'id': '2', 'text': 'x'}]
    assert read[1].where.endswith('row 5')
    (tmp_path / 'c.csv').write_text('# by hand\nx, 1, "a,b"\n')
    options = {'columns': ('id', 'n', 'tags'), 'comment': '#', 'skip_spaces': True}
    assert list(files.csv('c.csv', **options)) == [{'id': 'x', 'n': '1', 'tags': 'a,b'}]


def test_json_errors_name_the_file(tmp_path):
    files = Files(tmp_path)
    (tmp_path / 'a.json').write_text('{"x": [1, 2')
    with pytest.raises(ConfigError, match=r'a\.json: not JSON'):
        files.json('a.json')
    (tmp_path / 'a.jsonl').write_text('{"x": 1}\n\n[1]\n')
    with pytest.raises(ConfigError, match=r'a\.jsonl, row 3: \[1\]; expected an object'):
        list(files.jsonl('a.jsonl'))
    (tmp_path / 'b.jsonl').write_text('{"x": 1\n')
    with pytest.raises(ConfigError, match=r'b\.jsonl, row 1: not JSON'):
        list(files.jsonl('b.jsonl'))
    (tmp_path / 'a.yaml').write_text('a: !!python/object/apply:os.getcwd []\n')
    with pytest.raises(ConfigError, match=r'a\.yaml cannot be read as YAML'):
        files.yaml('a.yaml')
    (tmp_path / 'b.yaml').write_text('files:\n- {filename: x.wav, tags: [a, b]}\n')
    assert files.yaml('b.yaml') == {'files': [{'filename': 'x.wav', 'tags': ['a', 'b']}]}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=4)


@few
@hypothesis.given(st.lists(objects, max_size=6), st.integers(1, 9), st.booleans())
def test_a_large_json_gives_what_the_json_module_gives(elements, piece, ascii_only):
    """Pieces of a few characters: every boundary falls anywhere."""
    keyed = {str(number): element for number, element in enumerate(elements)}
    expected = [(str(number), element) for number, element in enumerate(elements)]
    before, rows._PIECE = rows._PIECE, piece
    try:
        for whole, key in (
            (elements, ''), (keyed, ''), ({'n': [1], 'data': elements, 'z': 0}, 'data'),
            ({'data': keyed}, 'data'), (elements, 'data'),
        ):  # fmt: skip
            text = json.dumps(whole, ensure_ascii=ascii_only, indent=1)
            file = io.BytesIO(text.encode('utf-8', 'surrogatepass'))
            hypothesis.assume('\ud800' not in text or ascii_only)
            assert list(rows.read_json_rows(file, 'x.json', key)) == expected
    finally:
        rows._PIECE = before


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'array or an object'), ('7', 'array or an object'), ('[{"a": 1}', '","'),
        ('[{"a": 1} {"b": 2}]', '","'), ('[{"a": ]', 'near'), ('[1]', 'expected an object'),
        ('{"x": {"a": 1}, 3: {}}', 'near'),
    ],
)  # fmt: skip
def test_a_damaged_large_json_is_named(text, reason):
    with pytest.raises(ConfigError, match=rf'x\.json(?s:.*){reason}'):
        list(rows.read_json_rows(io.BytesIO(text.encode()), 'x.json'))
    with pytest.raises(ConfigError, match="there is no 'data'"):
        list(rows.read_json_rows(io.BytesIO(b'{"x": [], "y": 1}'), 'x.json', 'data'))


@pytest.mark.parametrize('packed', ['folder', 'zip', 'tar', 'tar.gz'])
def test_audio_lies_in_folders_and_archives_alike(tmp_path, clips, packed):
    members = {'dev/a.wav': 0, 'dev/b.c.flac': 1, 'eval/a.mp3': 2, 'deep/er/x.ogg': 3}
    if packed == 'folder':
        for name, number in members.items():
            clips.write(tmp_path / name, number)
    else:
        getattr(clips, packed[:3])(tmp_path / f'sounds.{packed}', members)
    files = Files(tmp_path)
    for name, folders, number in (
        ('a.wav', ('dev',), 0), ('a', ('dev',), 0), ('a.flac', ('nowhere', 'eval'), 2),
        ('b.c', ('dev',), 1), ('b.c.wav', ('dev',), 1), ('dev/a.wav', (), 0),
        ('er/x', ('deep',), 3),
    ):  # fmt: skip
        clip = files.audio(name, *folders)
        assert content(clip) == clips.content(list(members)[number].rsplit('.', 1)[1], number)
        samples, rate = clip_audio.read(clip)
        assert rate == clips.samples(number)[1]
        assert len(samples) > 1000
    assert files.audio('b', 'dev') is None
    assert files.audio('a.wav', 'eval/dev') is None
    assert files.files('*.wav') == ['dev/a.wav']
    assert files.files('d*/*.wav', '') == ['dev/a.wav']
    assert files.has('dev/a.wav')
    assert not files.has('dev/b.wav')


def test_an_archive_that_carries_the_name_of_a_folder_stands_for_it(tmp_path, clips):
    clips.zip(tmp_path / 'audio/train.zip', {'0.wav': 0})
    clips.tar(tmp_path / 'audio/test.tgz', {'./x/0.wav': 1})
    files = Files(tmp_path)
    assert content(files.audio('0.wav', 'audio/train')) == clips.content('wav', 0)
    assert content(files.audio('0.wav', 'audio/test')) == clips.content('wav', 1)
    assert files.files('0.wav') == ['audio/test/x/0.wav', 'audio/train/0.wav']
    for name in files.files('0.wav'):
        assert files.audio(name)


def test_a_name_in_two_archives_is_refused(tmp_path, clips):
    for part, number in (('train', 0), ('test', 1)):
        clips.zip(tmp_path / f'audio/{part}.zip', {'0.wav': number})
    files = Files(tmp_path)
    with pytest.raises(ConfigError, match=r"'0' could be any of .*test\.zip/0.*train\.zip/0"):
        files.audio('0.wav', 'audio')
    assert content(files.audio('0.wav', 'audio/train')) == clips.content('wav', 0)


def test_a_name_that_could_be_two_members_is_refused(tmp_path, clips):
    clips.zip(tmp_path / 'all.zip', {'dev/a.wav': 0, 'eval/a.wav': 1, 'one/b.mp3': 2, 'b.wav': 3})
    files = Files(tmp_path)
    with pytest.raises(ConfigError, match=r"all\.zip: 'a' could be any of dev/a\.wav, eval/a\.wav"):
        files.audio('a.wav')
    assert content(files.audio('b.wav')) == clips.content('wav', 3)  # the first of the formats


@pytest.mark.parametrize('spelt', ['a_ b', 'a- b', 'a b', 'a_b'])
def test_a_colon_may_have_become_something_else(tmp_path, clips, spelt):
    clips.write(tmp_path / f'{spelt}.wav', 0)
    assert Files(tmp_path).audio('a: b.wav')
    clips.zip(tmp_path / 'z/x.zip', {f'{spelt}.wav': 0})
    assert Files(tmp_path).audio('a: b.wav', 'z')


def test_accents_may_be_written_in_two_ways(tmp_path, clips):
    clips.write(tmp_path / unicodedata.normalize('NFD', 'Métro.wav'), 0)
    assert Files(tmp_path).audio(unicodedata.normalize('NFC', 'Métro.wav'))


def test_capital_endings_and_the_shadow_files_of_macos(tmp_path, clips):
    (tmp_path / 'A.WAV').write_bytes(clips.content('wav', 0))
    (tmp_path / '._B.wav').write_bytes(b'resource fork')
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
        archive.writestr('__MACOSX/._C.wav', b'resource fork')
        archive.writestr('C.wav', clips.content('wav', 1))
    files = Files(tmp_path)
    assert files.audio('A.wav')
    assert content(files.audio('C.wav')) == clips.content('wav', 1)
    assert files.files('*.wav') == ['C.wav']


@pytest.mark.parametrize(
    ('name', 'video'),
    [
        ('-abc_efghij.wav', '-abc_efghij'), ('Y-abc_efghij.flac', '-abc_efghij'),
        ('a/Y-abc_efghij_30.000_40.000.wav', '-abc_efghij'), ('_abc-efghij_000030', '_abc-efghij'),
        ('Yellow_duck_calls.wav', ''), ('123.wav', ''), ('abcdefghijk', 'abcdefghijk'),
    ],
)  # fmt: skip
def test_the_video_in_a_name(name, video):
    assert youtube_id(name) == video


def test_damaged_archives_are_named(tmp_path, clips):
    whole = clips.zip(tmp_path / 'a.zip', {'x.wav': 0}).read_bytes()
    clip = Files(tmp_path).audio('x')
    at = whole.index(b'x.wav') + 200
    damage = {
        'damaged': whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :],
        'cut off': whole[: at + 10],
        'not where the table says': b'....' + whole[4:],
    }
    for reason, changed in damage.items():
        (tmp_path / 'a.zip').write_bytes(changed)
        with pytest.raises(AudioError, match=rf"a\.zip: member 'x\.wav' is (?s:.*){reason}"):
            clip_audio.read(clip)
    for name in ('b.zip', 'b.tar', 'b.tar.gz'):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(b'PK\3\4 no archive ' * 50)
        with pytest.raises(ConfigError, match=rf'{name}(?s:.*)(cannot be read|is damaged)'):
            Files(folder).audio('x')
    os.unlink(tmp_path / 'a.zip')
    with pytest.raises(AudioError, match=r'a\.zip'):
        clip_audio.read(clip)


def test_members_that_must_not_be_read_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('x.wav', b'secret')
    data = bytearray((tmp_path / 'a.zip').read_bytes())
    at = data.index(b'PK\1\2')
    struct.pack_into('<H', data, at + 8, 1)  # says that it is encrypted
    (tmp_path / 'a.zip').write_bytes(data)
    with pytest.raises(ConfigError, match=r"member 'x\.wav' is encrypted"):
        Files(tmp_path).audio('x')
    (tmp_path / 'a.zip').unlink()
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_LZMA) as archive:
        archive.writestr('x.wav', b'squeezed')
    with pytest.raises(AudioError, match='compressed by method 14'):
        clip_audio.read(Files(tmp_path).audio('x'))
    (tmp_path / 'a.zip').unlink()
    with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
        link = tarfile.TarInfo('x.wav')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
    assert Files(tmp_path).audio('x') is None


def test_an_inflated_member_is_no_larger_than_its_table_says(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('x.wav', bytes(1 << 24))
    clip = Files(tmp_path).audio('x')
    span = (*clip.span[:2], 100, *clip.span[3:])  # a table that lies
    with pytest.raises(ConfigError, match='damaged'):
        archives.read(clip.path, span, clip.member)


def test_a_compressed_tar_is_laid_out_once(tmp_path, clips):
    clips.tar(tmp_path / 'a.tar.gz', {'x.wav': 0})
    scratch = tmp_path / 'scratch'
    for _ in range(2):
        assert content(Files(tmp_path, scratch=scratch).audio('x')) == clips.content('wav', 0)
    assert len(list(scratch.iterdir())) == 1
    clips.tar(tmp_path / 'a.tar.gz', {'x.wav': 1, 'y.wav': 2})
    assert content(Files(tmp_path, scratch=scratch).audio('x')) == clips.content('wav', 1)


@few
@hypothesis.given(st.binary(max_size=400), st.sampled_from(['a.zip', 'a.tar', 'a.tar.gz']))
def test_hostile_archives_are_named(tmp_path_factory, noise, name):
    folder = tmp_path_factory.mktemp('hostile')
    (folder / name).write_bytes(noise)
    assert name in complaint(folder, name)


def complaint(folder, name):
    """What is said of an archive; only a ConfigError is a way of saying it."""
    try:
        assert Files(folder).audio('x') is None
    except ConfigError as error:
        return str(error)
    return f'{name} is well formed'


def test_samples_of_archives_are_those_of_files(tmp_path, clips):
    clips.write(tmp_path / 'x.flac', 5)
    clips.tar(tmp_path / 'z/a.tar', {'x.flac': 5})
    plain = clip_audio.read(Files(tmp_path).audio('x'))
    packed = clip_audio.read(Files(tmp_path).audio('x', 'z'))
    np.testing.assert_array_equal(plain[0], packed[0])
