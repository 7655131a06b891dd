"""A folder of one's own recordings: what is read, and what each mistake says."""

import csv
import json

import numpy as np
import pytest
import soundfile
import travelling
from travelling import travelled

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import record, sources
from alm_jax.data.inputs import headers


def write_tone(path, seconds=0.5, rate=16_000, channels=1, pitch=440.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate)


def write_csv(path, rows, encoding='utf-8'):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, 'w', newline='', encoding=encoding) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('data')


@pytest.fixture
def opened(root, data_dir):
    """opened(captions, split): the folder as a source."""

    def open_folder(captions='my.csv', split='', **options):
        entry = {'folder': str(root), 'captions': str(captions), 'split': split} | options
        return sources.open_source(entry, data_dir)

    return open_folder


@pytest.fixture
def root(tmp_path):
    """Three recordings of different formats, rates and channels."""
    write_tone(tmp_path / 'dog.wav', seconds=0.5)
    write_tone(tmp_path / 'sub' / 'bell.flac', seconds=1.0, rate=44_100, channels=2)
    write_tone(tmp_path / 'rain.ogg', seconds=0.75, rate=22_050)
    return tmp_path


def test_records_have_audio_captions_and_fields(root, opened):
    rows = [
        {
            'file': 'dog.wav',
            'caption_1': 'A dog barks.',
            'caption_2': 'Woof, "woof".',
            'label': 'dog',
        },
        {'file': 'sub/bell.flac', 'caption_1': 'A bell rings.', 'tags': 'bell, metal'},
        {
            'file': './rain.ogg',
            'caption_1': 'Es regnet größer.',
            'language': 'de',
            'kind': 'speech',
        },
    ]
    write_csv(root / 'my.csv', rows, encoding='utf-8-sig')
    source = opened()
    dog, bell, rain = (source[i] for i in range(3))
    assert dog['captions'] == ['A dog barks.', 'Woof, "woof".']
    assert (dog['label'], dog['kind']) == ('dog', 'sound')
    assert dog['recording_id'] == dog['group'] == f'{root.name}/dog.wav'
    assert bell['captions'] == ['A bell rings.']
    assert bell['tags'] == ['bell', 'metal']
    assert (rain['language'], rain['kind'], rain['id']) == ('de', 'speech', 'rain.ogg')
    assert [len(r['audio']) for r in (dog, bell)] == [8000, 44_100]
    assert bell['rate'] == 44_100
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100) * 32_768
    assert bell['audio'].dtype == np.int16
    assert np.abs(bell['audio'] - expected).max() <= 1.5  # 16-bit file, then rounded again
    assert source.columns['num_samples'].tolist() == [8000, 44_100, round(0.75 * 22_050)]
    assert source.columns['rate'].tolist() == [16_000, 44_100, 22_050]


def test_jsonl_is_read_like_csv(root, opened):
    lines = [
        {'file': 'dog.wav', 'caption': 'A dog barks.', 'tags': ['dog', 'animal']},
        {'file': 'rain.ogg', 'caption': 'Rain falls.'},
    ]
    manifest = root / 'my.jsonl'
    manifest.write_text('\n\n'.join(map(json.dumps, lines)) + '\n')
    reader = opened(manifest)
    assert [reader.read(i)['captions'] for i in range(2)] == [['A dog barks.'], ['Rain falls.']]
    assert reader.read(0)['tags'] == ['dog', 'animal']


def test_rows_of_one_file_give_one_record_with_all_captions(root, opened):
    rows = [
        ('dog.wav', 'A dog.'),
        ('rain.ogg', 'Rain.'),
        ('dog.wav', 'A bark.'),
        ('dog.wav', 'A dog.'),
    ]
    write_csv(root / 'my.csv', [{'file': file, 'caption': caption} for file, caption in rows])
    reader = opened()
    assert [reader.read(i)['captions'] for i in range(len(reader))] == [
        ['A dog.', 'A bark.'],
        ['Rain.'],
    ]


def many(root, count, first=0):
    """Rows of ``count`` files, which are links to one recording."""
    for i in range(first, first + count):
        (root / f'{i}.wav').symlink_to(root / 'dog.wav')
    return [{'file': f'{i}.wav', 'caption': f'Sound {i}.'} for i in range(first, first + count)]


def test_a_record_added_moves_no_other(root, opened):
    rows = many(root, 200)

    def splits():
        write_csv(root / 'my.csv', rows)
        names = ('train', 'validation', 'test')
        return {n: set(opened(split=n).columns['id'].tolist()) for n in names}

    before = splits()
    rows[:0] = many(root, 50, first=200)
    after = splits()
    assert all(before[name] <= after[name] for name in before)
    assert sum(map(len, after.values())) == 250
    assert 140 <= len(before['train']) <= 180
    assert len(before['validation']) >= 8
    assert len(before['test']) >= 8


def test_cuts_of_one_recording_share_a_split(root, opened):
    rows = [{**row, 'recording_id': f'tape{i % 10}'} for i, row in enumerate(many(root, 60))]
    write_csv(root / 'my.csv', rows)
    sides = [
        set(opened(split=name).columns['recording_id'].tolist())
        for name in ('train', 'validation', 'test')
        if any(record.split_by_hash(f'tape{i}') == name for i in range(10))
    ]
    assert len(sides) > 1
    assert sum(map(len, sides)) == 10


def test_the_split_column_decides(root, opened, data_dir):
    rows = [
        {'file': 'dog.wav', 'caption': 'A dog.', 'split': 'test'},
        {'file': 'rain.ogg', 'caption': 'Rain.', 'split': 'train'},
    ]
    write_csv(root / 'my.csv', rows)
    source = sources.open_source(f'folder:{root}?captions=my.csv&split=test', data_dir)
    assert source.columns['id'].tolist() == ['dog.wav']
    assert [source[0]['id'], source.id(0)] == ['dog.wav', 'dog.wav']
    assert sorted(opened(split='train+test').columns['id']) == ['dog.wav', 'rain.ogg']
    with pytest.raises(ConfigError, match="no record in split 'validation'"):
        opened(split='validation')
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        opened(split='trian')


def test_a_file_changed_to_text_is_named_when_it_is_read(root, opened):
    write_csv(root / 'my.csv', [{'file': 'dog.wav', 'caption': 'A dog.'}])
    source = opened()
    (root / 'dog.wav').write_text('not audio')
    with pytest.raises(AudioError, match=r'dog\.wav'):
        source[0]


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([{'wav': 'dog.wav', 'caption': 'A dog.'}], "no column 'file'; found ['caption', 'wav']"),
        ([{'file': 'dog.wav', 'title': 'A dog.'}], "no column 'caption'; found ['file', 'title']"),
        ([{'file': 'dog.wav', 'caption': ' '}], "row 2: column 'caption' is empty for 'dog.wav'"),
        ([{'file': '', 'caption': 'A dog.'}], "row 2: column 'file' is empty"),
        ([{'file': '/etc/passwd', 'caption': 'A dog.'}], 'outside the folder'),
        ([{'file': '../dog.wav', 'caption': 'A dog.'}], 'outside the folder'),
        ([{'file': 'note.wav', 'caption': 'A dog.'}], 'row 2: note.wav (Format not recognised.)'),
        ([{'file': 'dog.wav', 'caption': 'A dog.', 'split': 'tset'}], "Did you mean 'test'"),
        ([], 'holds no row'),
        (
            [
                {'file': 'dog.wav', 'caption': 'A dog.', 'label': 'dog'},
                {'file': 'dog.wav', 'caption': 'A cat.', 'label': 'cat'},
            ],
            "rows 2 and 3: 'dog.wav' has label 'dog' and 'cat'",
        ),
    ],
)
def test_mistakes_in_rows_are_named(root, opened, rows, message):
    (root / 'note.wav').write_text('this is text')
    write_csv(root / 'my.csv', rows)
    with pytest.raises(ConfigError) as error:
        opened()
    assert message in str(error.value)
    assert 'my.csv' in str(error.value)


def test_missing_files_are_counted_and_the_first_five_listed(root, opened):
    rows = [{'file': f'{i}.wav', 'caption': 'A dog.'} for i in range(8)]
    write_csv(root / 'my.csv', [{'file': 'dog.wav', 'caption': 'A dog.'}, *rows])
    with pytest.raises(ConfigError, match='8 of 9 records') as error:
        opened()
    assert [f'row {i + 3}: {i}.wav' in str(error.value) for i in range(8)] == [True] * 5 + [
        False
    ] * 3


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        (
            'my.csv',
            'file,caption\ndog.wav,ok\nrain.ogg,gr\xf6\xdfer\n'.encode('latin-1'),
            'not utf-8',
        ),
        ('my.csv', b'file,caption\ndog.wav,A dog, barking\n', 'row 2: 3 cells; expected 2'),
        ('my.csv', b'', 'holds no row'),
        ('my.jsonl', b'{"file": "dog.wav", "caption": "A dog."}\n{"file": \n', 'row 2: not JSON'),
        (
            'my.jsonl',
            b'["dog.wav", "A dog."]\n',
            "row 1: ['dog.wav', 'A dog.']; expected an object",
        ),
        ('my.jsonl', b'{"file": "dog.wav", "caption": 3}\n', "column 'caption' is 3"),
        ('my.txt', b'dog.wav', 'must be a .csv or a .jsonl'),
    ],
)
def test_manifests_that_cannot_be_read_are_named(root, opened, name, content, message):
    (root / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        opened(name)
    assert message in str(error.value)


def test_a_missing_manifest_or_folder_is_named(root, opened):
    with pytest.raises(ConfigError, match='exists neither here nor in'):
        opened('none.csv')
    with pytest.raises(ConfigError, match='does not exist'):
        opened(folder=str(root / 'none'))


def test_columns_under_other_names(root, opened):
    write_csv(
        root / 'my.csv',
        [
            {'file_name': 'dog.wav', 'title': 'A dog.', 'category': 'dog', 'license': 'CC0-1.0'},
            {'file_name': 'rain.ogg', 'title': 'Rain.', 'category': 'big_rain', 'license': ''},
        ],
    )
    named = opened(caption='title')
    assert [named[i]['captions'] for i in range(2)] == [['A dog.'], ['Rain.']]
    assert named[0]['licence'] == 'CC0-1.0'
    by_label = opened()
    assert [by_label[i]['captions'] for i in range(2)] == [['dog'], ['big rain']]
    assert not opened(caption='none')[1]['captions']
    with pytest.raises(ConfigError, match="Did you mean 'title'"):
        opened(caption='titel')


def test_questions_times_and_ids_of_a_jsonl(root, opened):
    row = {
        'file': 'dog.wav',
        'caption': 'A dog barks.',
        'turns': [{'question': 'What barks?', 'answer': 'A dog.', 'dialogue': 2}],
        'times': [{'onset': 0, 'offset': 0.5, 'text': 'bark'}],
        'ytid': '--abc',
        'provenance': 'generated: by a program',
    }
    (root / 'my.jsonl').write_text(json.dumps(row))
    dog = opened('my.jsonl')[0]
    for name in ('turns', 'times', 'provenance'):
        assert dog[name] == row[name]
    assert dog['recording_id'] == 'youtube/--abc'
    for wrong in ({'times': [{'onset': 'a'}]}, {'turns': 'Q'}, {'provenance': 'me'}):
        (root / 'my.jsonl').write_text(json.dumps(row | wrong))
        with pytest.raises(ConfigError, match=f"my.jsonl, row 1.*{next(iter(wrong))}|'onset' is"):
            opened('my.jsonl')


def test_headers_are_read_once_and_again_where_a_file_changes(root, opened, monkeypatch):
    read, asked = headers.read, []

    def read_and_count(path):
        asked.append(path.name)
        return read(path)

    monkeypatch.setattr(headers, 'read', read_and_count)
    rows = [{'file': name, 'caption': 'A.'} for name in ('dog.wav', 'rain.ogg')]
    write_csv(root / 'my.csv', rows)
    first = opened()
    assert sorted(asked) == ['dog.wav', 'rain.ogg']
    assert opened().index.digest == first.index.digest
    assert sorted(asked) == ['dog.wav', 'rain.ogg']

    write_tone(root / 'dog.wav', seconds=2.0)
    again = opened()
    assert asked[2:] == ['dog.wav']
    assert again.columns['num_samples'].tolist() == [32_000, 16_538]
    assert again.index.digest != first.index.digest

    write_csv(root / 'my.csv', [*rows, {'file': 'sub/bell.flac', 'caption': 'A bell.'}])
    assert len(opened()) == 3
    assert asked[3:] == ['bell.flac']


def test_a_damaged_listing_is_made_again(root, opened, data_dir):
    write_csv(root / 'my.csv', [{'file': 'dog.wav', 'caption': 'A dog.'}])
    opened()
    for ending in ('*.records.arrow', '*.index.arrow', '*.json'):
        (damaged,) = (data_dir / 'indexes').glob(ending)
        damaged.write_bytes(damaged.read_bytes()[:20])
        assert opened()[0]['captions'] == ['A dog.']
    assert not list(data_dir.rglob('*.part'))


def test_a_data_dir_that_cannot_be_written_is_no_obstacle(root, tmp_path, monkeypatch):
    write_csv(root / 'my.csv', [{'file': 'dog.wav', 'caption': 'A dog.'}])
    (tmp_path / 'file').write_text('')
    source = sources.open_source(f'folder:{root}?captions=my.csv', tmp_path / 'file')
    assert travelled(source)[0]['captions'] == ['A dog.']


def test_a_recipe_is_small_and_reads_the_same(root, opened):
    write_csv(root / 'my.csv', many(root, 300))
    source = opened(split='train')
    assert travelling.size(source) < 2000
    copy = travelled(source)
    assert [copy.id(i) for i in range(len(copy))] == [source.id(i) for i in range(len(source))]
    assert (copy[5]['audio'] == source[5]['audio']).all()
