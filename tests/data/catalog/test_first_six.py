"""Declarations read what the official distributions hold: miniatures in their exact layout."""

import json

import pytest

from alm_jax.config import ConfigError
from alm_jax.data import catalog
from alm_jax.data.catalog.building import clip_audio
from alm_jax.data.catalog.files import Files

AUDIOCAPS = ('audiocap_id', 'youtube_id', 'start_time', 'caption')
CLOTHO = ('file_name', *(f'caption_{n}' for n in range(1, 6)))
METADATA = ('file_name', 'keywords', 'sound_id', 'sound_link', 'start_end_samples')
METADATA += ('manufacturer', 'license')
BY = 'https://creativecommons.org/licenses/by/3.0/'


def test_audiocaps(tmp_path, clips, write_csv, items_of, prepared):
    """Several captions a clip, ids that begin with '-', lost videos, names of several makers."""
    rows = {
        'train': [(91139, 'r1nicOVtvkQ', 130, 'A woman talks nearby as water pours')],
        'val': [
            (97151, '-vfY_TJq7n_', 130, 'Rustling occurs, ducks quack'),
            (97152, '-vfY_TJq7n_', 130, 'Ducks quack'),
            (97153, '-vfY_TJq7n_', 20, 'A later part'),
        ],
        'test': [(103549, '7fmOlUlwoNg', 20, 'Constant rattling'), (1, '6BJ455B1aAs', 0, 'Lost')],
    }
    for name, table in rows.items():
        write_csv(tmp_path / f'dataset/{name}.csv', AUDIOCAPS, table)
        later = [(*row[:3], row[3].lower()) for row in table] + [
            (9, row[1], row[2], 'again') for row in table
        ]
        write_csv(tmp_path / f'dataset2.0/{name}.csv', AUDIOCAPS, later)
    clips.write(tmp_path / 'audio/train/r1nicOVtvkQ_130.flac', 0)
    clips.write(tmp_path / 'audio/val/Y-vfY_TJq7n_.wav', 1)
    clips.write(tmp_path / 'audio/val/-vfY_TJq7n__20.000_30.000.wav', 2)
    clips.zip(tmp_path / 'audio/test.zip', {'test/7fmOlUlwoNg_20000_30000.mp3': 3})
    found = items_of(catalog.find('audiocaps'), tmp_path)
    assert {(item.id, item.split, len(item.audio)) for item in found.values()} == {
        ('r1nicOVtvkQ_130', 'train', 1),
        ('-vfY_TJq7n__130', 'validation', 1),
        ('-vfY_TJq7n__20', 'validation', 1),
        ('7fmOlUlwoNg_20', 'test', 1),
        ('6BJ455B1aAs_0', 'test', 0),
    }
    several = found['-vfY_TJq7n__130']
    assert several.fields['captions'] == ['Rustling occurs, ducks quack', 'Ducks quack']
    assert several.fields['recording_id'] == 'youtube/-vfY_TJq7n_'
    assert str(several.audio[0]).endswith('val/Y-vfY_TJq7n_.wav')
    assert str(found['-vfY_TJq7n__20'].audio[0]).endswith('20.000_30.000.wav')
    assert clip_audio.read(found['7fmOlUlwoNg_20'].audio[0])[1] == clips.samples(3)[1]
    later = items_of(catalog.find('audiocaps'), tmp_path, '2.0')
    assert later['r1nicOVtvkQ_130'].fields['captions'][1:] == ['again']
    assert len(prepared(catalog.find('audiocaps'), tmp_path, '2.0', 'validation')) == 2
    (tmp_path / 'dataset2.0/train.csv').unlink()  # the release of 2019 must not stand in for it
    with pytest.raises(ConfigError, match=r"'dataset2\.0/train\.csv' .*is not in"):
        items_of(catalog.find('audiocaps'), tmp_path, '2.0')


def test_clotho(tmp_path, clips, write_csv, items_of, prepared):
    """ISO-8859-1 metadata, colons, evaluation is test, five captions, unknown uploads."""
    five = [f'Caption {n}' for n in range(1, 6)]
    names = {
        'development': ['Santa Motor.wav', 'Intersection Wet : Metro Pass.wav'],
        'validation': ['a: b.wav'],
        'evaluation': ['Test.wav', 'gone.wav'],
    }
    for name, files in names.items():
        write_csv(
            tmp_path / f'clotho_captions_{name}.csv', CLOTHO, [(file, *five) for file in files]
        )
        link = 'https://freesound.org/people/x/sounds/103205'
        row = ('animal;rüstig', '103205', link, '[444610, 1766389]', 'Jürgen', BY)
        unknown = ('x', 'Not found', '', '', 'NA', '')
        write_csv(
            tmp_path / f'clotho_metadata_{name}.csv',
            METADATA,
            [(file, *(unknown if file == 'Test.wav' else row)) for file in files],
            encoding='iso-8859-1',
        )
    clips.write(tmp_path / 'development/Santa Motor.wav', 0, 44100)
    clips.write(tmp_path / 'development/Intersection Wet_Metro Pass.wav', 1, 44100)
    clips.zip(tmp_path / 'clotho_audio_validation.zip', {'validation/a_ b.wav': 2}, 44100)
    clips.write(tmp_path / 'evaluation/Test.wav', 3, 44100)
    found = items_of(catalog.find('clotho'), tmp_path)
    assert [(found[name].split, len(found[name].audio)) for name in sorted(found)] == [
        ('train', 1), ('train', 1), ('test', 1), ('validation', 1), ('test', 0),
    ]  # fmt: skip
    motor = found['Santa Motor.wav'].fields
    assert motor['captions'] == five
    assert motor['tags'] == ['animal', 'rüstig']
    assert (motor['author'], motor['licence']) == ('Jürgen', 'CC-BY-3.0')
    assert motor['recording_id'] == 'freesound/103205'
    assert 'recording_id' not in found['Test.wav'].fields
    dataset = catalog.find('clotho')
    assert dataset.fields(found['Test.wav'])['recording_id'] == 'clotho/Test.wav'
    (record,) = prepared(dataset, tmp_path, split='test').values()
    assert (record['captions'], record['source']) == (five, '')


BLACKLISTS = {
    'test_ac': {'AudioSet': ['YvfY_TJq7n_U.wav'], 'FreeSound': ['166426']},
    'all_ac': {'AudioSet': ['YvfY_TJq7n_U.wav', 'Yb0RFKhbpFJA.wav'], 'FreeSound': ['166426', '7']},
    'ub8k_esc50_vggsound': {'AudioSet': [], 'FreeSound': ['7', '8']},
}


def test_wavcaps(tmp_path, clips, items_of, prepared):
    """'Y' before ids, .wav names of .flac files, blacklists as splits, more files than listed."""
    tables = {
        'AudioSet_SL/as': [{'id': 'YvfY_TJq7n_U.wav'}, {'id': 'Yb0RFKhbpFJA.wav'}],
        'BBC_Sound_Effects/bbc': [{'id': '07075051', 'download_link': 'https://bbc/07075051'}],
        'FreeSound/fsd': [{'id': n, 'tags': ['x'], 'author': 'me'} for n in '178'] + [{'id': '2'}],
        'SoundBible/sb': [{'id': '2219', 'href': '2219-Airplane.html'}],
    }
    for name, rows in tables.items():
        path = tmp_path / f'json_files/{name}_final.json'
        path.parent.mkdir(parents=True)
        rows = [{**row, 'caption': f'Caption of {row["id"]}.', 'duration': 1.0} for row in rows]
        content = {'num_captions_per_audio': 1, 'data': rows}
        path.write_text(json.dumps(rows if 'sb' in name else content))
    (tmp_path / 'json_files/blacklist').mkdir()
    for name, lists in BLACKLISTS.items():
        path = tmp_path / f'json_files/blacklist/blacklist_exclude_{name}.json'
        path.write_text(json.dumps(lists))
    audioset = tmp_path / 'Zip_files/AudioSet_SL'
    for part in ('AudioSet_SL.zip', 'AudioSet_SL.z01'):  # not joined yet
        audioset.mkdir(parents=True, exist_ok=True)
        (audioset / part).write_bytes(b'a part of a zip')
    dataset = catalog.find('wavcaps')
    clips.zip(tmp_path / 'Zip_files/BBC_Sound_Effects/x.zip', {'a/b/07075051.flac': 2})
    for number in '178':
        clips.write(tmp_path / f'Audio/FreeSound/{number}.flac', int(number))
    clips.zip(tmp_path / 'Zip_files/SoundBible/SoundBible.zip', {'2219.flac': 3, '9.flac': 1})
    assert items_of(dataset, tmp_path)['AudioSet_SL/Yb0RFKhbpFJA.wav'].audio == ()
    assert 'Zip_files/AudioSet_SL/AudioSet_SL.zip' in Files(tmp_path).packed()
    flac = {f'mnt/AudioSet_SL_flac/{row["id"][:-4]}.flac': 4 for row in tables['AudioSet_SL/as']}
    clips.zip(audioset / 'AudioSet_SL_joined.zip', flac)
    found = items_of(dataset, tmp_path)
    assert {item.id: item.split for item in found.values()} == {
        'AudioSet_SL/YvfY_TJq7n_U.wav': 'in_test_ac',
        'AudioSet_SL/Yb0RFKhbpFJA.wav': 'in_all_ac',
        'BBC_Sound_Effects/07075051': 'train',
        'FreeSound/1': 'train',
        'FreeSound/2': 'train',
        'FreeSound/7': 'in_several',
        'FreeSound/8': 'in_ub8k_esc50_vggsound',
        'SoundBible/2219': 'train',
    }
    assert [item.id for item in found.values() if not item.audio] == ['FreeSound/2']
    assert {item.fields['recording_id'] for item in found.values()} >= {
        'youtube/vfY_TJq7n_U', 'bbc/07075051', 'freesound/7', 'soundbible/2219',
    }  # fmt: skip
    assert found['FreeSound/1'].fields['package'] == 'wavcaps/FreeSound'
    assert found['SoundBible/2219'].fields['source'] == '2219-Airplane.html'
    assert len(prepared(dataset, tmp_path)) == 3
    assert len(prepared(dataset, tmp_path, split='in_all_ac')) == 1


def test_fsd50k(tmp_path, clips, write_csv, items_of, prepared):
    """Tables still in their zips, quoted label lists, val in the dev table, a licence a clip."""
    labels = ('Electric_guitar,Guitar,Music', '/m/02sgy,/m/0342h,/m/04rlf')
    write_csv(
        tmp_path / 'FSD50K.ground_truth/dev.csv',
        ('fname', 'labels', 'mids', 'split'),
        [('64760', *labels, 'train'), ('16399', 'Rain', '/m/06mb1', 'val')],
    )
    write_csv(
        tmp_path / 'FSD50K.ground_truth/eval.csv',
        ('fname', 'labels', 'mids'),
        [('37199', 'Rain', '/m/06mb1'), ('1', 'Rain', '/m/06mb1')],
    )
    info = {'title': 'guitar_riff.wav', 'description': 'Played\r\nby me.', 'tags': ['x']}
    info |= {
        'license': 'http://creativecommons.org/publicdomain/zero/1.0/',
        'uploader': 'casualdave',
    }
    (tmp_path / 'FSD50K.metadata').mkdir()
    for part, number in (('dev', '64760'), ('eval', '37199')):
        path = tmp_path / f'FSD50K.metadata/{part}_clips_info_FSD50K.json'
        path.write_text(json.dumps({number: info}))
    clips.write(tmp_path / 'FSD50K.dev_audio/64760.wav', 0, 44100)
    clips.zip(tmp_path / 'FSD50K.dev_audio.zip', {'FSD50K.dev_audio/16399.wav': 1}, 44100)
    clips.zip(tmp_path / 'joined.zip', {'FSD50K.eval_audio/37199.wav': 2}, 44100)
    found = items_of(catalog.find('fsd50k'), tmp_path)
    assert {item.id: (item.split, len(item.audio)) for item in found.values()} == {
        '64760': ('train', 1), '16399': ('validation', 1), '37199': ('test', 1), '1': ('test', 0),
    }  # fmt: skip
    guitar = found['64760'].fields
    assert guitar['tags'] == ['Electric guitar', 'Guitar', 'Music']
    assert (guitar['licence'], guitar['author']) == ('CC0-1.0', 'casualdave')
    assert guitar['recording_id'] == 'freesound/64760'
    described = items_of(catalog.find('fsd50k'), tmp_path, 'described')
    assert described['64760'].fields['captions'] == ['guitar riff: Played by me.']
    assert 'captions' not in described['1'].fields
    assert described['64760'].fields['provenance'] == 'web'
    (record,) = prepared(catalog.find('fsd50k'), tmp_path, 'described', 'validation').values()
    assert (record['tags'], record['provenance']) == (['Rain'], 'web')


SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=2, num_segs=2, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
"""


def test_audioset(tmp_path, clips, write_csv, items_of):
    """Three lines of comments, label lists quoted after a space, ids that begin with '-'."""
    write_csv(
        tmp_path / 'class_labels_indices.csv',
        ('index', 'mid', 'display_name'),
        [(0, '/m/09x0r', 'Speech'), (1, '/m/06mb1', 'Rain'), (2, '/m/05zppz', 'Male speech, man')],
    )
    rows = {
        'balanced_train': '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/05zppz"\n',
        'unbalanced_train': 'b0RFKhbpFJA, 0.000, 10.000, "/m/06mb1"\n',
        'eval': '-0SdAVK79lg, 5.500, 15.500, "/m/06mb1,/m/09x0r"\n',
    }
    for part, row in rows.items():
        (tmp_path / f'{part}_segments.csv').write_text(SEGMENTS + row)
    clips.write(tmp_path / 'audio/balanced_train_segments/Y--PJHxphWEs.wav', 0)
    clips.write(tmp_path / 'audio/unbalanced_train_segments/b0RFKhbpFJA_0_10.flac', 1)
    dataset = catalog.find('audioset')
    found = items_of(dataset, tmp_path)
    assert {item.id: (item.split, len(item.audio)) for item in found.values()} == {
        '--PJHxphWEs_30': ('train', 1),
        'b0RFKhbpFJA_0': ('train', 1),
        '-0SdAVK79lg_5.5': ('test', 0),
    }
    assert found['--PJHxphWEs_30'].fields['tags'] == ['Speech', 'Male speech, man']
    assert found['--PJHxphWEs_30'].fields['recording_id'] == 'youtube/--PJHxphWEs'
    assert list(items_of(dataset, tmp_path, 'balanced')) == ['--PJHxphWEs_30', '-0SdAVK79lg_5.5']


def test_audioset_strong(tmp_path, clips, write_csv, prepared):
    """A row an event, the start of the clip in milliseconds, names that hold a quote."""
    header = ('segment_id', 'start_time_seconds', 'end_time_seconds', 'label')
    for part, rows in {
        'train': [
            ('b0RFKhbpFJA_30000', 0.0, 10.0, '/m/03m9d0z'),
            ('b0RFKhbpFJA_30000', 4.75, 5.7, '/m/05zppz'),
        ],
        'eval': [('s9d-2nhuJCQ_30000', 2.627, 7.237, '/m/05zppz')],
    }.items():
        write_csv(tmp_path / f'audioset_{part}_strong.tsv', header, rows, delimiter='\t')
    names = '/m/03m9d0z\tWind\n/m/05zppz\tMale "speech", man\n'
    (tmp_path / 'mid_to_display_name.tsv').write_text(names)
    clips.write(tmp_path / 'audio/b0RFKhbpFJA_30000_40000.wav', 0)
    dataset = catalog.find('audioset')
    items = list(dataset.items(Files(tmp_path), 'strong'))
    assert dataset.joined
    assert [item.id for item in items] == ['b0RFKhbpFJA_30'] * 2 + ['s9d-2nhuJCQ_30']
    assert items[1].fields['times'] == [
        {'onset': 4.75, 'offset': 5.7, 'text': 'Male "speech", man'}
    ]
    assert [len(item.audio) for item in items] == [1, 1, 0]
    (record,) = prepared(dataset, tmp_path, 'strong').values()
    assert record['tags'] == ['Wind', 'Male "speech", man']
    assert [event['onset'] for event in record['times']] == [0.0, 4.75]


def test_openaqa(tmp_path, clips, prepared):
    """Paths of the authors' machine, relative paths of the toy set, what is said as transcript."""
    row = {'instruction': 'What is heard?', 'input': '', 'task': 'open-ended question'}
    rows = [
        {**row, 'audio_id': '/data/sls/audioset/dave_version/audio/LZq4Neh-oWU.flac',
         'dataset': 'as_strong_train', 'output': 'Crying.'},
        {**row, 'audio_id': '/data/fsd/FSD50K.dev_audio_16k/64760.wav', 'dataset': 'fsd50k_train',
         'output': 'A guitar.'},
        {**row, 'audio_id': '/data/sls/audioset/dave_version/audio/LZq4Neh-oWU.flac',
         'dataset': 'as_strong_train', 'input': 'I am so sad', 'output': 'Someone sad.'},
    ]  # fmt: skip
    (tmp_path / 'openaqa_5.6M.json').write_text(json.dumps(rows, indent=1))
    toy = [{**rows[0], 'audio_id': '../../../openaqa/data/sample_audio/audio/LZq4Neh-oWU.flac'}]
    (tmp_path / 'openaqa_toy_relative.json').write_text(json.dumps(toy))
    clips.write(tmp_path / 'audio/as_strong_train/LZq4Neh-oWU.flac', 0, 16000)
    clips.write(tmp_path / 'audio/64760.flac', 1, 16000)
    clips.write(tmp_path / 'openaqa/data/sample_audio/audio/LZq4Neh-oWU.flac', 2, 16000)
    dataset = catalog.find('openaqa')
    items = list(dataset.items(Files(tmp_path), 'openaqa'))
    assert [item.id for item in items] == [
        'data/sls/audioset/dave_version/audio/LZq4Neh-oWU',
        'data/fsd/FSD50K.dev_audio_16k/64760',
        'data/sls/audioset/dave_version/audio/LZq4Neh-oWU',
    ]
    assert [item.fields['recording_id'] for item in items] == [
        'youtube/LZq4Neh-oWU', 'freesound/64760', 'youtube/LZq4Neh-oWU',
    ]  # fmt: skip
    assert [item.fields['turns'][0]['answer'] for item in items] == [
        'Crying.', 'A guitar.', 'Someone sad.',
    ]  # fmt: skip
    assert items[2].fields['transcript'] == 'I am so sad'
    assert [item.audio[0].path.rsplit('audio/', 1)[1] for item in items[:2]] == [
        'as_strong_train/LZq4Neh-oWU.flac', '64760.flac',
    ]  # fmt: skip
    (small,) = dataset.items(Files(tmp_path), 'openaqa_toy')
    assert small.id == 'openaqa/data/sample_audio/audio/LZq4Neh-oWU'
    assert small.audio[0].path.endswith('openaqa/data/sample_audio/audio/LZq4Neh-oWU.flac')
    records = prepared(dataset, tmp_path)
    crying = records['data/sls/audioset/dave_version/audio/LZq4Neh-oWU']
    assert [(t['dialogue'], t['answer']) for t in crying['turns']] == [
        (0, 'Crying.'), (1, 'Someone sad.'),
    ]  # fmt: skip
    assert crying['transcript'] == 'I am so sad'
