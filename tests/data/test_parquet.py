"""Parquet files with an audio column, as the Hugging Face hub has them; pyarrow is the judge."""

import io
import itertools
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from travelling import travelled

from alm_jax.audio import decode
from alm_jax.audio.decode import AudioError, UnreadableFile
from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.data.inputs import containers, parquet_encodings, parquet_values

LAYOUTS = {
    'as datasets writes': {'row_group_size': 5},
    'one large row group': {},
    'no dictionary': {'use_dictionary': False},
    'no compression': {'compression': 'none', 'use_dictionary': False, 'row_group_size': 4},
    'content-defined chunks': {'use_content_defined_chunking': True, 'write_page_index': True},
    'zstd, pages of version 2': {'compression': 'zstd', 'data_page_version': '2.0'},
    'gzip': {'compression': 'gzip'},
    'brotli': {'compression': 'brotli'},
    'lz4': {'compression': 'lz4'},
}


@pytest.fixture(scope='module')
def clips(recordings):
    """Seventeen real recordings: OGG as they are, one in three as WAV, which packs well."""
    made = []
    for number, path in enumerate(sorted(recordings.glob('*.ogg'))):
        content = path.read_bytes()
        if number % 3 == 0:
            x, rate = decode.decode(content)
            buffer = io.BytesIO()
            soundfile.write(buffer, x, rate, format='WAV')
            content = buffer.getvalue()
        made.append(content)
    return made


@pytest.fixture
def opened(tmp_path):
    """opened(pattern): files of tmp_path as a source; listings lie in tmp_path/listings."""

    def open_parquet(pattern='*.parquet', **options):
        entry = {'parquet': f'{tmp_path}/{pattern}', **options}
        return sources.open_source(entry, tmp_path / 'listings')

    return open_parquet


def audio_column(clips, paths=True):
    rows = [{'bytes': c, 'path': f'{i}.ogg' if paths else None} for i, c in enumerate(clips)]
    return pa.array(rows, pa.struct([('bytes', pa.binary()), ('path', pa.string())]))


def write(path, features=None, layout=None, **columns):
    table = pa.table(columns)
    if features:
        noted = {'huggingface': json.dumps({'info': {'features': features}})}
        table = table.replace_schema_metadata(noted)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **(layout or {}))
    return path


def caption_column(clips):
    return [f'Recording {i}.' for i in range(len(clips))]


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_recordings(clips, tmp_path, opened, layout):
    audio = audio_column(clips)
    path = tmp_path / 'my_set/data/train-00000-of-00001.parquet'
    write(path, layout=layout, audio=audio, caption=caption_column(clips))
    source = opened('my_set/data/*.parquet')
    assert len(source) == 17
    for i in np.random.default_rng(0).permutation(17).tolist():
        stored = source.read(i)
        assert stored['audio'] == clips[i]
        assert stored['captions'] == [f'Recording {i}.']
        x, rate = decode.decode(clips[i])
        assert (stored['num_samples'], stored['rate']) == (len(x), rate)
        assert source[i]['audio'].tobytes() == decode.to_pcm16(x).tobytes()
        assert source.id(i) == f'train-00000-of-00001/{i}'
    assert set(source.columns['package']) == {'my_set'}


BINARY = st.one_of(
    st.none(),
    st.binary(max_size=50),
    st.builds(
        lambda n, seed: np.random.default_rng(seed).bytes(n),
        st.integers(0, 90_000),
        st.integers(0, 9),
    ),
    st.builds(
        lambda n, word: (word * n)[:n], st.integers(0, 200_000), st.binary(min_size=1, max_size=9)
    ),
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_column_any_writer_gives_what_pyarrow_reads(tmp_path_factory, data):
    column = data.draw(st.lists(BINARY, min_size=1, max_size=12))
    column = column * data.draw(st.integers(1, 3))
    kind = data.draw(st.sampled_from([pa.binary(), pa.large_binary(), pa.string()]))
    in_struct = data.draw(st.booleans())
    nullable = None in column or data.draw(st.booleans())
    if kind == pa.string():
        column = [None if c is None else c.hex() for c in column]
    values = pa.array(column, kind)
    if in_struct:
        values = pa.StructArray.from_arrays([values], fields=[pa.field('bytes', kind, nullable)])
    schema = pa.schema([pa.field('audio', values.type, nullable)])
    path = tmp_path_factory.mktemp('any') / 'x.parquet'
    options = {
        'compression': data.draw(st.sampled_from(['snappy', 'none', 'zstd', 'gzip', 'lz4'])),
        'use_dictionary': data.draw(st.booleans()),
        'data_page_version': data.draw(st.sampled_from(['1.0', '2.0'])),
        'row_group_size': data.draw(st.sampled_from([1, 7, 1000])),
        'data_page_size': data.draw(st.sampled_from([100, 1 << 20])),
        'write_batch_size': data.draw(st.sampled_from([1, 3, 1024])),
        'write_page_checksum': data.draw(st.booleans()),
    }
    pq.write_table(pa.table([values], schema=schema), path, **options)
    content = path.read_bytes()
    expected = [c.encode() if isinstance(c, str) else c for c in column]
    found = list(parquet_values.values(path, 'audio.bytes' if in_struct else 'audio'))
    assert [None if v is None else bytes(view) for v, view in found] == expected
    for (value, _), wanted in zip(found, expected):
        if value is not None:
            stored = content[value.offset : value.offset + value.stored]
            assert parquet_values.unpack(stored, value) == wanted
            if options['compression'] in ('snappy', 'none'):
                # The value, the blocks that its ends are in, and what snappy adds at worst.
                assert value.stored <= 32 + (len(wanted) + 2 * (1 << 16)) * 7 // 6


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_blocks_of_snappy_unpack_alone(data):
    pieces = data.draw(st.lists(BINARY.filter(bool), min_size=1, max_size=6))
    content = b''.join(pieces)
    packed = pa.compress(content, 'snappy', asbytes=True)
    packed = packed[len(parquet_encodings.varint(len(content))) :]
    starts = parquet_encodings.snappy_blocks(memoryview(packed), len(content))
    assert len(starts) == -(-len(content) // (1 << 16)) + 1
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        wanted = content[number << 16 : (number + 1) << 16]
        alone = parquet_encodings.varint(len(wanted)) + packed[start:stop]
        assert pa.decompress(alone, len(wanted), 'snappy', asbytes=True) == wanted


def test_snappy_whose_blocks_depend_on_each_other_is_not_cut():
    literal = bytes([62 << 2]) + (65_535).to_bytes(3, 'little')[:3] + b'a' * 65_536
    near = literal + bytes([(9 << 2) | 2]) + (5).to_bytes(2, 'little')  # ten bytes from before
    assert pa.decompress(parquet_encodings.varint(65_546) + near, 65_546, 'snappy')
    assert parquet_encodings.snappy_blocks(memoryview(near), 65_546) == []
    assert parquet_encodings.snappy_blocks(memoryview(literal), 65_536) == [0, len(literal)]


def test_labels_have_their_names_and_lists_are_captions(clips, tmp_path, opened):
    features = {
        'audio': {'_type': 'Audio', 'sampling_rate': 16_000},
        'category': {'_type': 'ClassLabel', 'names': ['dog_bark', 'rain']},
        'labels': {'feature': {'_type': 'ClassLabel', 'names': ['a', 'b']}, '_type': 'Sequence'},
    }
    write(
        tmp_path / 'x.parquet',
        features,
        audio=audio_column(clips[:3]),
        thumbnail=pa.array([b'1', b'2', b'3']),
        category=[0, 1, None],
        labels=[[1], [0, 1], []],
        captions=[['One.', 'Two.'], ['Three.'], ['Four.', None, '']],
        license=['CC0-1.0', 'CC-BY-4.0', ''],
        original=[{'title': 'T'}] * 3,
    )
    records = [opened()[i] for i in range(3)]
    assert [r['label'] for r in records] == ['dog_bark', 'rain', '']
    assert [list(r['tags']) for r in records] == [['b'], ['a', 'b'], []]
    assert [r['captions'] for r in records] == [['One.', 'Two.'], ['Three.'], ['Four.']]
    assert records[1]['licence'] == 'CC-BY-4.0'
    assert opened(caption='original.title')[0]['captions'] == ['T']


def test_a_column_of_bytes_and_captions_from_labels(clips, tmp_path, opened):
    features = {'label': {'_type': 'ClassLabel', 'names': ['dog_bark', 'rain']}}
    write(tmp_path / 'x.parquet', features, sound=pa.array(clips[:2]), label=[1, 0])
    source = opened()
    assert [source[i]['captions'] for i in range(2)] == [['rain'], ['dog bark']]
    assert source.read(1)['audio'] == clips[1]


def test_rows_that_cannot_be_used_are_told(clips, tmp_path, opened, caplog):
    contents = [clips[0], None, b'no audio', clips[1], clips[2], b'']
    captions = ['A.', 'B.', 'C.', '', 'E.', 'F.']
    path = write(tmp_path / 'x.parquet', audio=audio_column(contents), caption=captions)
    for _ in range(2):
        caplog.clear()
        assert opened().columns['id'].tolist() == ['x/0', 'x/4']
        told = '\n'.join(caplog.messages)
        assert f'1 rows without audio: {path}, row 1' in told
        assert '2 recordings that cannot be read' in told
        assert f'{path}, row 2 (' in told
        assert f'1 rows without text: {path}, row 3' in told


@pytest.mark.parametrize(
    ('columns', 'options', 'message'),
    [
        ({'sound': 'audio', 'title': 'text'}, {}, 'no column of captions among sound (struct<'),
        ({'sound': 'audio', 'title': 'text'}, {'caption': 'titel'}, "Did you mean 'title'"),
        ({'sound': 'audio', 'text': 'text'}, {'audio': 'sund'}, "Did you mean 'sound'"),
        ({'a': 'audio', 'b': 'audio', 'text': 'text'}, {}, 'audio may be in a, b; name one'),
        ({'text': 'text'}, {}, 'no column with the bytes of audio files'),
        ({'audio': 'array', 'text': 'text'}, {}, 'no column with the bytes of audio files'),
        ({'audio': 'audio', 'caption': 'number'}, {}, "'caption' is 1; expected text"),
    ],
)
def test_columns_that_do_not_fit_are_named(clips, tmp_path, opened, columns, options, message):
    kinds = {
        'audio': audio_column(clips[:1]),
        'text': ['A.'],
        'number': [1],
        'array': [{'array': [0.5], 'path': 'a'}],
    }
    write(tmp_path / 'x.parquet', **{name: kinds[kind] for name, kind in columns.items()})
    with pytest.raises(ConfigError) as error:
        opened(**options)
    assert message in str(error.value)
    assert 'x.parquet' in str(error.value)


def test_a_column_can_be_chosen(clips, tmp_path, opened):
    columns = {name: audio_column([clip]) for name, clip in zip('ab', clips)}
    write(tmp_path / 'x.parquet', text=['A.'], **columns)
    for name, clip in zip('ab', clips):
        assert opened(audio=name).read(0)['audio'] == clip


def test_files_that_are_damaged_are_named(clips, tmp_path, opened):
    path = write(tmp_path / 'x.parquet', audio=audio_column(clips), caption=caption_column(clips))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r'x\.parquet cannot be read as Parquet'):
        opened()
    path.write_bytes(whole[:4] + b'\xff' * 5000 + whole[5004:])
    with pytest.raises(ConfigError, match=r"x\.parquet: row group 0 of column 'audio\.bytes'"):
        opened()
    path.write_bytes(whole)
    source = opened()
    path.write_bytes(whole[:1000] + b'\xff' * 100_000 + whole[101_000:])
    with pytest.raises(AudioError, match=r'x\.parquet: page at byte \d+ is damaged'):
        [source.read(i) for i in range(17)]
    os.truncate(path, 2000)
    with pytest.raises(UnreadableFile, match=r'x\.parquet has changed'):
        source.read(16)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(at=st.integers(4, 40_000), damage=st.binary(min_size=1, max_size=20))
def test_damage_never_gives_anything_but_a_config_error(tmp_path_factory, at, damage):
    path = tmp_path_factory.getbasetemp() / 'damaged.parquet'
    values = [b'%d' % i * (i % 7) for i in range(60)]  # small, so that the damage meets a header
    write(path, layout={'data_page_size': 50, 'write_batch_size': 4}, sound=pa.array(values))
    whole = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    at = 4 + at % (chunk.total_compressed_size - len(damage))
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
    message = None
    try:
        found = list(parquet_values.values(path, 'sound'))
    except ConfigError as error:
        message = str(error)
    if message is None:
        assert len(found) == len(values)
    else:
        assert 'damaged.parquet: row group 0' in message


def test_an_encoding_that_is_not_read_says_what_to_do(clips, tmp_path, opened):
    layout = {'use_dictionary': False, 'column_encoding': {'sound': 'DELTA_LENGTH_BYTE_ARRAY'}}
    write(tmp_path / 'x.parquet', layout=layout, sound=pa.array(clips), text=caption_column(clips))
    with pytest.raises(ConfigError, match='encoding 6 is not read; write the column with plain'):
        opened()


def test_splits_by_file_name_by_folder_and_by_hash(clips, tmp_path, opened):
    audio, text = audio_column(clips), caption_column(clips)
    for name in ('train-00000-of-00002', 'train-00001-of-00002', 'test-00000-of-00001'):
        write(tmp_path / f'named/data/{name}.parquet', audio=audio, text=text)
    sizes = {split: len(opened('named', split=split)) for split in ('train', 'test', '')}
    assert sizes == {'train': 34, 'test': 17, '': 51}
    with pytest.raises(ConfigError, match="no record in split 'validation'"):
        opened('named', split='validation')
    write(tmp_path / 'folders/valid/0000.parquet', audio=audio, text=text)
    assert len(opened('folders', split='validation')) == 17

    # Rows that move to another place keep their split, for the names of the recordings last.
    splits = ('train', 'validation', 'test')
    many = [clips[i % 17] for i in range(100)]
    moved = np.random.default_rng(0).permutation(100)
    write(tmp_path / 'a/0.parquet', audio=audio_column(many), text=caption_column(many))
    write(
        tmp_path / 'b/7.parquet',
        audio=audio_column(many).take(moved),
        text=np.array(caption_column(many))[moved],
    )

    def captions(folder, split):
        source = opened(folder, split=split)
        return {source.read(i)['captions'][0] for i in range(len(source))}

    sides = {split: captions('a', split) for split in splits}
    assert sides == {split: captions('b', split) for split in splits}
    assert sum(map(len, sides.values())) == 100
    assert 65 <= len(sides['train']) <= 95


def test_a_name_that_all_rows_share_does_not_decide_the_split(clips, tmp_path, opened):
    rows = [{'bytes': clips[i % 17], 'path': 'audio.ogg'} for i in range(60)]
    write(tmp_path / 'x.parquet', audio=pa.array(rows), text=[f'{i}' for i in range(60)])
    assert 30 <= len(opened(split='train')) < 60


def test_another_process_and_an_index_beside_the_file(clips, tmp_path, opened):
    path = write(tmp_path / 'x.parquet', audio=audio_column(clips), text=caption_column(clips))
    source = opened()
    copy = travelled(source)
    assert [copy.read(i)['audio'] for i in range(17)] == clips
    index = path.with_name('x.parquet.index.arrow')
    made = index.stat().st_mtime_ns
    write(tmp_path / 'y.parquet', audio=audio_column(clips), text=caption_column(clips))
    assert len(opened()) == len(opened('*')) == 34
    assert index.stat().st_mtime_ns == made
    facts = containers.facts(path, tmp_path, 'audio.bytes')
    assert facts.column('size').to_pylist() == [len(clip) for clip in clips]
