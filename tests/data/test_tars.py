"""Tar sets in the layout of WebDataset, from real recordings; tarfile is the judge of contents."""

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading

import numpy as np
import pytest
import soundfile
import travelling
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.audio import decode
from alm_jax.audio.decode import UnreadableFile
from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.data.inputs import containers, files, tar_members

FORMATS = {'flac': ('FLAC', 'PCM_16'), 'wav': ('WAV', 'PCM_16'), 'ogg': ('OGG', 'VORBIS')}
FORMATS |= {'mp3': ('MP3', 'MPEG_LAYER_III'), 'opus': ('OGG', 'OPUS')}


def write_tar(path, members, form=tarfile.PAX_FORMAT):
    """``members``: (name, bytes or what another member is linked to by this name)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w', format=form, encoding='utf-8') as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def text(**keys):
    return json.dumps(keys).encode()


@pytest.fixture(scope='module')
def clips(recordings):
    """{ending: (bytes, int16 samples that decode gives, Hz)} of one real recording."""
    x, rate = decode.decode(recordings / 'doors_door_open.ogg')
    made = {}
    for ending, (form, subtype) in FORMATS.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, x, 48_000 if ending == 'opus' else rate, subtype, format=form)
        y, found = decode.decode(buffer.getvalue())
        made[ending] = (buffer.getvalue(), decode.to_pcm16(y), found)
    return made


@pytest.fixture
def opened(tmp_path):
    """opened(pattern='*.tar', ...): tars of tmp_path as a source; listings lie in tmp_path/data."""

    def open_tars(pattern='*.tar', **options):
        return sources.open_source({'tars': f'{tmp_path}/{pattern}', **options}, tmp_path / 'data')

    return open_tars


def records(source):
    return {source.id(i): source.read(i) for i in range(len(source))}


def test_the_layout_of_laion(recordings, tmp_path, opened):
    paths = sorted(recordings.glob('*.ogg'))
    for shard in range(3):
        members = []
        for number, path in enumerate(paths[shard::3]):
            captions = [f'One hears {path.stem}.', f'{path.stem}!'][: 1 + number % 2]
            keys = {'text': captions, 'tag': ['a', 'b'], 'original_data': {'title': path.stem}}
            members += [(f'{number}.ogg', path.read_bytes()), (f'{number}.json', text(**keys))]
        write_tar(tmp_path / f'{shard}.tar', members)
    source = opened('{0..2}.tar')
    assert len(source) == 17
    by_title = opened(caption='original_data.title')
    for i in range(17):
        shard, number = map(int, source.id(i).split('/'))
        path = paths[shard::3][number]
        stored, record = source.read(i), source[i]
        assert stored['audio'] == path.read_bytes()
        x, rate = decode.decode(path)
        assert record['audio'].tobytes() == decode.to_pcm16(x).tobytes()
        assert (stored['num_samples'], stored['rate']) == (len(x), rate)
        assert stored['captions'][0] == f'One hears {path.stem}.'
        assert len(stored['captions']) == 1 + number % 2
        assert stored['tags'] == ['a', 'b']
        assert stored['recording_id'] == f'{tmp_path.name}/{shard}/{number}'
        assert source.columns['num_captions'][i] == 1 + number % 2
        assert by_title.read(i)['captions'] == [path.stem]


def test_every_format_has_the_length_that_decoding_gives(clips, tmp_path, opened):
    members = [(f'{ending}.{ending}', content) for ending, (content, _, _) in clips.items()]
    members += [(f'{ending}.txt', f'As {ending}.\n\nTwice.\n'.encode()) for ending in clips]
    write_tar(tmp_path / 'a.tar', members)
    source = opened()
    assert len(source) == len(FORMATS)
    for i in range(len(source)):
        ending = source.id(i).removeprefix('a/')
        content, samples, rate = clips[ending]
        assert source.read(i)['audio'] == content
        assert source[i]['audio'].tobytes() == samples.tobytes()
        assert source.read(i)['captions'] == [f'As {ending}.', 'Twice.']
        assert [source.columns[n][i] for n in ('num_samples', 'rate')] == [len(samples), rate]


def test_flac_without_a_length_in_its_header(clips, tmp_path, opened):
    content, samples, rate = clips['flac']
    streamed = bytearray(content)
    streamed[21] &= 0xF0  # 36 bits of STREAMINFO
    streamed[22:26] = bytes(4)
    write_tar(tmp_path / 'a.tar', [('a.flac', bytes(streamed)), ('a.txt', b'A.')])
    stored = opened().read(0)
    assert (stored['num_samples'], stored['rate']) == (len(samples), rate)


NAMES = st.text(st.characters(exclude_characters='/\0', exclude_categories=['Cs']), min_size=1)
LONG = st.text('ab', min_size=90, max_size=240)
STEMS = st.lists(NAMES | LONG, min_size=1, max_size=3).map('/'.join)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_tar_gives_what_tarfile_reads(clips, tmp_path_factory, data):
    stems = data.draw(st.lists(STEMS, min_size=1, max_size=6, unique=True))
    stems = [s for s in stems if not {'.', '..'} & set(s.split('/')) and '._' not in s]
    members = []
    for number, stem in enumerate(stems):
        ending = data.draw(st.sampled_from(['wav', 'flac', 'ogg']))
        members.append((f'{stem}.{ending}', clips[ending][0]))
        members.append((f'{stem}.json', text(text=f'Caption {number}.')))
    members += [(f'x/{i}.npy', bytes(data.draw(st.integers(0, 2000)))) for i in range(3)]
    members += [('folder.json/', b'')][: data.draw(st.integers(0, 1))]
    form = data.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    folder = tmp_path_factory.mktemp('any')
    expected = None
    for name in ('a', 'b'):  # two orders of the same members
        path = write_tar(folder / name / 'x.tar', data.draw(st.permutations(members)), form)
        if not stems:
            return
        source = sources.open_source({'tars': str(path)}, folder / 'data')
        found = {key: (r['audio'], r['captions']) for key, r in records(source).items()}
        with tarfile.open(path) as tar:
            for i in range(len(source)):
                member = source.read(i)['source'].removeprefix(f'{path}/')
                names = [m for m in tar.getmembers() if m.name.removeprefix('./') == member]
                assert source.read(i)['audio'] == tar.extractfile(names[-1]).read()
        assert expected in (None, found)
        expected = found
    captions = {r[1][0] for r in expected.values()}
    assert captions == {f'Caption {number}.' for number in range(len(stems))}


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['a.flac', 'a.json'], {'a': 'a.json'}),
        (['a.b.1.flac', 'a.b.1.json', 'a.b.2.flac', 'a.b.2.json'], {'a.b.1': 'a.b.1.json'}),
        (['a.audio.flac', 'a.meta.json'], {'a.audio': 'a.meta.json'}),
        (['x/a.flac', 'y/a.json', 'x/a.json'], {'x/a': 'x/a.json'}),
        (['./a.flac', './a.json'], {'a': 'a.json'}),
        (['/abs/a.flac', '/abs/a.json'], {'/abs/a': '/abs/a.json'}),
        (['../../a.flac', '../../a.json'], {'../../a': '../../a.json'}),
        (['a.FLAC', 'a.JSON'], {'a': 'a.JSON'}),
        (['a.json', 'b.json', 'a.flac'], {'a': 'a.json'}),
        (['._a.flac', 'a.flac', 'a.json'], {'a': 'a.json'}),
    ],
)
def test_which_text_belongs_to_which_recording(clips, tmp_path, opened, names, expected):
    members = [
        (name, text(text=name) if name.lower().endswith('json') else clips['flac'][0])
        for name in names
    ]
    write_tar(tmp_path / 't.tar', members)
    found = {key.removeprefix('t/'): r['captions'][0] for key, r in records(opened()).items()}
    assert expected.items() <= {k: v.removeprefix('./') for k, v in found.items()}.items()
    assert not list(tmp_path.rglob('*.flac'))  # nothing is unpacked


def test_classes_and_texts_beside_a_json_without_captions(clips, tmp_path, opened):
    audio = clips['flac'][0]
    members = [('a.flac', audio), ('a.cls', b'dog_bark\n'), ('b.flac', audio), ('b.cls', b'7')]
    members += [('b.txt', b'A caption.'), ('c.flac', audio), ('c.json', text(url='http://x'))]
    members += [('c.txt', b'From txt.'), ('d.flac', audio), ('d.json', text(caption='J'))]
    write_tar(tmp_path / 't.tar', [*members, ('d.txt', b'T')])
    found = records(opened())
    assert {key[-1]: r['captions'] for key, r in found.items()} == {
        'a': ['dog bark'],
        'b': ['A caption.'],
        'c': ['From txt.'],
        'd': ['J'],
    }
    assert [found[f't/{k}']['label'] for k in 'ab'] == ['dog_bark', '7']
    assert found['t/c']['source'] == 'http://x'


def test_several_recordings_of_a_sample(clips, tmp_path, opened):
    audio = clips['flac'][0]
    members = [('s.mix.flac', audio), ('s.voice.flac', audio), ('s.json', text(text='Song.'))]
    write_tar(tmp_path / 't.tar', members)
    with pytest.raises(ConfigError, match='2 audio members without text'):
        opened()
    (record,) = records(opened(audio='mix.flac')).values()
    assert record['source'].endswith('t.tar/s.mix.flac')

    members = [('a.mp3', clips['mp3'][0]), ('a.flac', audio), ('a.txt', b'Two forms.')]
    write_tar(tmp_path / 't.tar', members)
    assert records(opened())['t/a']['audio'] == audio
    assert records(opened(audio='mp3'))['t/a']['audio'] == clips['mp3'][0]


def test_what_is_left_out_is_told_at_every_opening(clips, tmp_path, opened, caplog):
    audio = clips['flac'][0]
    members = [('good.flac', audio), ('good.json', text(text='Replaced.'))]
    members += [(f'{i}.flac', audio) for i in range(5)]
    members += [('lost.json', text(text='No audio.')), ('bad.flac', b'no audio'), ('bad.txt', b'x')]
    members += [('json.flac', audio), ('json.json', b'{"text": '), ('list.flac', audio)]
    members += [('list.json', b'["a"]'), ('type.flac', audio), ('type.json', text(text=3))]
    members += [('latin.flac', audio), ('latin.txt', b'gr\xf6\xdfer'), ('link.flac', 'good.flac')]
    members += [('link.txt', b'x'), ('good.json', text(text='Kept.'))]
    write_tar(tmp_path / 't.tar', members)
    for _ in range(2):
        caplog.clear()
        (record,) = records(opened()).values()
        assert record['captions'] == ['Kept.']
        told = '\n'.join(message for message in caplog.messages)
        path = tmp_path / 't.tar'
        assert (
            f'5 audio members without text: {path}/0.flac, {path}/1.flac, {path}/2.flac, ...'
            in told
        )
        assert f'1 text members without audio: {path}/lost.json' in told
        assert '2 audio members that cannot be read' in told
        assert 'bad.flac (' in told
        assert 'link.flac (a link or a sparse file)' in told
        assert '4 text members that cannot be used' in told
        assert f'{path}/json.json: not JSON' in told
        assert '1 members that a later one of the same name replaces' in told


def test_nothing_usable_is_an_error_with_the_reasons(clips, tmp_path, opened):
    write_tar(tmp_path / 'empty.tar', [])
    (tmp_path / 'none.tar').write_bytes(b'')
    write_tar(tmp_path / 'other.tar', [('a.npy', b'x'), ('b.json', text(text='B'))])
    with pytest.raises(ConfigError, match=r'no record that can be used.*\n.*1 text members'):
        opened()
    write_tar(tmp_path / 'other.tar', [('a.flac', clips['flac'][0]), ('a.json', text(title='A'))])
    with pytest.raises(ConfigError, match=r'without text: .*a\.flac \(has title\)\n.*caption=NAME'):
        opened()
    assert len(opened(caption='title')) == len(opened(caption='none')) == 1


def test_names_that_are_not_utf8(clips, tmp_path, opened):
    path = write_tar(tmp_path / 't.tar', [('NNNN.flac', clips['flac'][0]), ('NNNN.txt', b'A cat.')])
    content = path.read_bytes().replace(b'NNNN', b'\xff\xfe\xe9N')
    changed = sum(b'\xff\xfe\xe9N') - sum(b'NNNN')
    for start in (i for i in range(0, len(content), 512) if content[i : i + 2] == b'\xff\xfe'):
        header = bytearray(content[start : start + 512])
        checksum = int(header[148:154], 8) + changed
        header[148:154] = b'%06o' % checksum
        content = content[:start] + bytes(header) + content[start + 512 :]
    path.write_bytes(content)
    ((key, record),) = records(opened()).items()
    assert key == r't/\xff\xfe\xe9N'
    assert record['audio'] == clips['flac'][0]


@pytest.fixture
def shards(clips, tmp_path):
    """Ten tars of four records."""
    for shard in range(10):
        members = []
        for number in range(4):
            members.append((f'{number}.wav', clips['wav'][0]))
            members.append((f'{number}.json', text(text=f'{shard}.{number}')))
        write_tar(tmp_path / f'{shard:03d}.tar', members)
    return tmp_path


@pytest.mark.parametrize('cut', [0.02, 0.5, 0.98])
def test_a_tar_that_is_cut_off_is_named_with_its_last_member(shards, opened, cut):
    path = shards / '004.tar'
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        size = members[-1].offset_data + members[-1].size
    os.truncate(path, round(size * cut))
    whole = [m.name for m in members if m.offset_data <= size * cut]
    with pytest.raises(ConfigError, match=r'004\.tar is cut off or damaged after member ') as error:
        opened()
    assert f'member {whole[-1]!r}' in str(error.value)


def test_damage_between_members_is_no_end(shards, opened):
    path = shards / '002.tar'
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2]
    content = bytearray(path.read_bytes())
    content[third.offset : third.offset + 512] = b'\x7f' * 512
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"002\.tar .*after member '0\.json' \(no header at byte"):
        opened()


def test_joined_tars_are_refused(shards, opened):
    path = shards / '000.tar'
    path.write_bytes(path.read_bytes() + (shards / '001.tar').read_bytes())
    with pytest.raises(ConfigError, match='more follows'):
        opened()


def test_a_compressed_tar_is_refused(shards, opened):
    path = shards / '001.tar'
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ConfigError, match=r'001\.tar is compressed \(gzip\)'):
        opened()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(at=st.integers(0, 20_000), content=st.binary(min_size=1, max_size=600))
def test_damage_never_gives_anything_but_a_config_error(clips, tmp_path_factory, at, content):
    folder = tmp_path_factory.mktemp('damaged')
    members = [('a.ogg', clips['ogg'][0][:3000]), ('a.json', text(text='A')), ('b.txt', b'B' * 600)]
    path = write_tar(folder / 't.tar', [*members, ('ä' * 150 + '.json', b'{}')])
    whole = path.read_bytes()
    at %= len(whole)
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    message = None
    try:
        found = tar_members.scan(path)
    except ConfigError as error:
        message = str(error)
    if message is None:
        assert found.schema.names == tar_members.SCHEMA.names
    else:
        assert str(path) in message


def test_an_index_lies_beside_each_tar_and_is_used_until_its_size_changes(shards, opened):
    first = records(opened())
    assert len(first) == 40
    indexes = {p: p.stat().st_mtime_ns for p in shards.glob('*.tar.index.arrow')}
    assert len(indexes) == 10
    assert not list(shards.rglob('*.part'))

    members = [('new.wav', (shards / '003.tar').read_bytes()[512:]), ('new.txt', b'New.')]
    write_tar(shards / '003.tar', members)
    write_tar(shards / '010.tar', members)
    again = records(opened('*'))
    assert {key for key in again if 'new' in key} == {'003/new', '010/new'}
    assert len(again) == 40 - 4 + 2
    made = {p for p in shards.glob('*.index.arrow') if p.stat().st_mtime_ns != indexes.get(p)}
    assert {p.name[:3] for p in made} == {'003', '010'}
    assert all(again[key] == first[key] for key in again if 'new' not in key)

    # As in a set that is written with times of zero, and in which a text is mended.
    content = (shards / '005.tar').read_bytes()
    (shards / '005.tar').write_bytes(content.replace(b'{"text": "5.2"}', b'{"text": "New"}'))
    assert records(opened())['005/2']['captions'] == ['New']

    (shards / '000.tar.index.arrow').write_bytes(b'damaged')
    assert len(opened('00?.tar')) == 37


def test_a_place_that_cannot_be_written_has_its_index_in_the_data_folder(clips, tmp_path, opened):
    path = tmp_path / ('long' * 62 + '.tar')  # with what the index adds, no file may be called so
    write_tar(path, [('a.flac', clips['flac'][0]), ('a.txt', b'A.')])
    assert len(opened()) == 1
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]
    assert len(list((tmp_path / 'data' / 'indexes' / 'files').iterdir())) == 1
    assert containers.facts(path, tmp_path / 'data' / 'indexes' / 'files').num_rows == 2


def test_two_processes_find_what_one_finds(shards, tmp_path, caplog):
    paths = files.expand(f'{shards}/*.tar', '.tar')
    alone = [tar_members.scan(path) for path in paths]
    containers.index_all(paths, tar_members.scan, tmp_path / 'cache', processes=2)
    for path, expected in zip(paths, alone):
        assert containers.facts(path, tmp_path / 'cache').equals(expected)
    assert not caplog.messages  # that they could not be started


def test_a_mistake_in_another_process_is_told_here(shards, tmp_path):
    os.truncate(shards / '007.tar', 3000)
    paths = files.expand(f'{shards}/*.tar', '.tar')
    with pytest.raises(ConfigError, match=r'007\.tar is cut off'):
        containers.index_all(paths, tar_members.scan, tmp_path / 'cache', processes=2)


def test_another_process_reads_the_same(shards, opened):
    source = opened(split='train')
    digest = hashlib.sha256(b''.join(r['audio'] for r in records(source).values())).hexdigest()
    assert travelling.size(source) < 3000
    audio = 'b"".join(value.read(i)["audio"] for i in range(len(value)))'
    program = f'import hashlib; print(hashlib.sha256({audio}).hexdigest())'
    assert travelling.printed_elsewhere(source, program).strip() == digest


def test_a_set_of_many_tars_keeps_few_files_open(clips, tmp_path, opened):
    for shard in range(300):
        content = [('a.opus', clips['opus'][0]), ('a.txt', f'{shard}'.encode())]
        write_tar(tmp_path / f'{shard}.tar', content)
    source = opened()
    before = len(os.listdir('/proc/self/fd'))
    failed = []

    def read(order):
        for i in order:
            record = source.read(int(i))
            if [record['audio'], record['captions'][0]] != [
                clips['opus'][0],
                source.id(int(i)).split('/')[0],
            ]:
                failed.append(i)

    orders = [np.random.default_rng(seed).permutation(300) for seed in range(4)]
    threads = [threading.Thread(target=read, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(os.listdir('/proc/self/fd')) <= before + 128


def test_a_tar_that_shrinks_under_a_reader_is_named(shards, opened):
    source = opened()
    os.truncate(shards / '000.tar', 600)
    with pytest.raises(UnreadableFile, match=r'000\.tar has changed'):
        source.read(0)
    (shards / '009.tar').unlink()
    with pytest.raises(UnreadableFile, match=r'009\.tar cannot be read: No such file'):
        source.read(len(source) - 1)


def test_splits_by_folder_by_file_by_json_and_by_hash(clips, tmp_path, opened):
    wav = clips['wav'][0]
    write_tar(tmp_path / 'set/train/0.tar', [('a.wav', wav), ('a.txt', b'A')])
    write_tar(tmp_path / 'set/valid/0.tar', [('a.wav', wav), ('a.txt', b'A')])
    write_tar(tmp_path / 'set/test-000.tar', [('a.wav', wav), ('a.txt', b'A')])
    write_tar(tmp_path / 'set/x.tar', [('a.wav', wav), ('a.json', text(text='A', split='eval'))])
    found = {
        split: opened('set', split=split).columns['id'].tolist()
        for split in ('train', 'validation', 'test')
    }
    assert found == {
        'train': ['train/0/a'],
        'validation': ['valid/0/a'],
        'test': ['test-000/a', 'x/a'],
    }
    assert opened('set/train/*.tar', split='train').columns['id'].tolist() == ['0/a']
    with pytest.raises(ConfigError, match=r"no record in split 'test'\. Records: {'train': 1}"):
        opened('set/train/*.tar', split='test')

    def by_hash():
        names = ('train', 'validation', 'test')
        return {n: set(opened('many/*.tar', split=n).columns['id'].tolist()) for n in names}

    def add(shard):
        members = [(f'{i}.wav', wav) for i in range(60)] + [(f'{i}.txt', b'A') for i in range(60)]
        write_tar(tmp_path / f'many/{shard}.tar', members)

    add(1)
    before = by_hash()
    add(0)
    after = by_hash()
    assert all(before[name] <= after[name] for name in before)
    assert sum(map(len, after.values())) == 120
