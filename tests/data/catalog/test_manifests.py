"""Manifests of AudioSkills, Audio Flamingo 2, SALMONN and SLAM-LLM over real recordings."""

import json

import chat_templates
import pytest

from alm_jax.config import ConfigError
from alm_jax.data.catalog import audio_flamingo2, conversations, manifests, salmonn, slam_llm
from alm_jax.data.catalog.recordings import recording_id
from alm_jax.text.dialogue import Dialogue

LONG = 13  # a recording of more than a second


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding='utf-8')


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
    path.write_text(''.join(lines), encoding='utf-8')


def turns(item):
    return [(t['question'], t['answer'], t['dialogue']) for t in item.fields['turns']]


def said(*texts):
    """A conversation; people and model take turns."""
    roles = ('human', 'gpt')
    return [{'from': roles[n % 2], 'value': text} for n, text in enumerate(texts)]


@pytest.fixture
def skills_dir(tmp_path, clips):
    """AudioSkills' form with one clip a row, AF-Chat's with several, and a test set."""
    rain, dog = 'AudioSet/Yabcdefghijk.wav', 'AudioSet/Y0123456789-.wav'
    write_json(
        tmp_path / 'manifests/audioskills/AudioSet_SL.json',
        [
            {
                'id': '1',
                'sound': rain,
                'duration': 10.0,
                'conversations': said('<sound>\nWas hört man? (A) Regen', '(A) Regen - “stark”'),
            },
            {'id': '2', 'sound': dog, 'conversations': said('<sound>\nWhat barks?', 'A dog.')},
            {
                'id': '3',
                'sound': [rain],
                'conversations': said('<sound>\nIs it wet?', 'Yes.', 'Why?', 'It rains.'),
            },
        ],
    )
    write_json(
        tmp_path / 'manifests/afchat/sound.json',
        [
            {
                'id': 'chat',
                'sound': [rain, dog],
                'conversations': said(
                    '<sound-1>\nWhat is it?', 'Rain.', 'And <sound-2>, now?', 'A dog, not rain.'
                ),
            },
            {
                'id': 'compared',
                'sound': [rain, dog],
                'conversations': said('<sound>\n<sound>\nWhich is louder?', 'The second.'),
            },
            {'id': 'gone', 'sound': [rain, 'x/gone.wav'], 'conversations': said('Same?', 'No.')},
        ],
    )
    clap = {'id': 't', 'sound': 'other/clap.wav', 'conversations': said('What is it?', 'A clap.')}
    write_jsonl(tmp_path / 'manifests/clap_test.jsonl', [clap])
    for number, path in enumerate((rain, dog, 'other/clap.wav')):
        clips.write(tmp_path / path, number)
    return tmp_path


def test_conversations_about_one_clip_are_dialogues_of_one_record(skills_dir, items_of):
    items = items_of(conversations.DATASET, skills_dir)
    rain = items['train/audioskills/AudioSet_SL/AudioSet/Yabcdefghijk.wav']
    assert turns(rain) == [
        ('Was hört man? (A) Regen', '(A) Regen - “stark”', 0),
        ('Is it wet?', 'Yes.', 1),
        ('Why?', 'It rains.', 1),
    ]
    fields = conversations.DATASET.fields(rain)
    assert fields['recording_id'] == 'youtube/abcdefghijk'
    assert fields['package'] == 'audioskills/AudioSet_SL'
    assert fields['provenance'].startswith('generated')


def test_conversations_keep_where_each_of_several_clips_stands(skills_dir, items_of):
    items = items_of(conversations.DATASET, skills_dir)
    (pair,) = (item for item in items.values() if len(item.audio) == 2)
    assert [clip.path.rsplit('/', 1)[-1] for clip in pair.audio] == [
        'Yabcdefghijk.wav',
        'Y0123456789-.wav',
    ]
    assert turns(pair) == [
        ('<sound-1>\nWhat is it?', 'Rain.', 0),
        ('And <sound-2>, now?', 'A dog, not rain.', 0),
        ('<sound-1>\n<sound-2>\nWhich is louder?', 'The second.', 1),
    ]


def test_conversations_are_written_with_clips_in_their_places(skills_dir, items_of):
    items = items_of(conversations.DATASET, skills_dir)
    (pair,) = (item for item in items.values() if len(item.audio) == 2)
    dialogue = Dialogue('audio_flamingo3', chat_templates.byte_level())
    written = []
    for number in range(2):
        own = [(question, answer) for question, answer, n in turns(pair) if n == number]
        pieces = dialogue.pieces(own, 2)
        texts = [f'[{p.clip}]' if p.text == '' else p.text for p in pieces]
        written.append(''.join(texts).partition('<|im_start|>user\n')[2])
    assert written[0].startswith('[0]\nWhat is it?<|im_end|>')
    assert '<|im_start|>user\nAnd [1], now?<|im_end|>' in written[0]
    assert written[1].startswith('[0]\n[1]\nWhich is louder?<|im_end|>')


def test_conversations_with_a_clip_missing_are_missing(skills_dir, items_of):
    items = items_of(conversations.DATASET, skills_dir)
    assert [name for name, item in items.items() if not item.audio] == [
        'train/afchat/sound/AudioSet/Yabcdefghijk.wav + x/gone.wav'
    ]


def test_a_manifest_says_its_split_in_its_name(skills_dir, items_of):
    items = items_of(conversations.DATASET, skills_dir)
    assert items['test/clap_test/other/clap.wav'].split == 'test'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'sound': []}, 'names no audio file'),
        ({'sound': 5}, "'sound' is 5; expected text"),
        ({'conversations': said('What?')}, "'conversations'.*an answer to every question"),
        ({'conversations': said('What?', ' ')}, 'an answer is empty'),
        ({'conversations': said('<sound-2> What?', 'It.')}, "'<sound-2>', but it has 1 clips"),
        (
            {'conversations': said('A?', 'B.')[::-1]},
            r"conversations\[0\]: 'from' is 'gpt'; .*human",
        ),
        ({'conversations': ['hello']}, "'conversations'.*a list of objects"),
        ({'sound': '/nowhere/data/a.wav'}, r'absolute path.*ln -s /nowhere .*/nowhere'),
        ({'sound': 's3://bucket/a.wav'}, 'is no path below'),
        ({'sound': 'C:\\data\\a.wav'}, 'is no path below'),
        ({'sound': 'a/../../b.wav'}, 'leads out of'),
    ],
)
def test_conversations_name_file_and_row_of_a_mistake(skills_dir, items_of, change, message):
    good = {'id': '1', 'sound': 'other/clap.wav', 'conversations': said('What?', 'A clap.')}
    write_json(skills_dir / 'manifests/bad.json', [good, good | change])
    with pytest.raises(ConfigError, match=rf'bad\.json, element 1.*{message}'):
        items_of(conversations.DATASET, skills_dir)


def test_manifests_are_asked_for_by_folder(tmp_path, items_of):
    with pytest.raises(ConfigError, match=r'manifests/\*\.json(?s:.*)What --manual_dir must hold'):
        items_of(conversations.DATASET, tmp_path)


@pytest.fixture
def flamingo_dir(tmp_path, clips):
    data = [
        {'name': '5228.flac', 'prompt': 'Caption the input audio.', 'output': 'An engine idles.'},
        {'name': '19105.flac', 'prompt': 'Briefly describe it.', 'output': 'A woman speaks.'},
        {'name': '5228.flac', 'prompt': 'What is heard?', 'output': 'An engine, idling.'},
    ]
    for row in data:
        row['duration'] = 1.0
    late = {'name': 'long.wav', 'prompt': 'And then?', 'output': 'yes', 'audio_start': 0.5}
    for task, split, rows, path in (
        ('audiocaps-AudioCaptioning', 'train', data, 'audiocaps/audio/train'),
        ('Clotho-AQA-AQA', 'val', [late, late | {'audio_start': 0.25}], 'Clotho-AQA/audio_files'),
    ):
        write_json(
            tmp_path / f'manifests/{task}/{split}.json',
            {
                'split': split,
                'split_path': path,
                'flamingo_task': task,
                'total_num': len(rows),
                'data': {str(n): row for n, row in enumerate(rows)},
            },
        )
    clips.write(tmp_path / 'audiocaps/audio/train/5228.flac', 3)
    clips.write(tmp_path / 'Clotho-AQA/audio_files/long.wav', LONG)
    return tmp_path


def test_audio_flamingo2_manifests(flamingo_dir, items_of):
    items = items_of(audio_flamingo2.DATASET, flamingo_dir)
    engine = items['train/audiocaps-AudioCaptioning/audiocaps/audio/train/5228.flac']
    assert engine.fields['captions'] == ['An engine idles.', 'An engine, idling.']
    assert turns(engine)[1] == ('What is heard?', 'An engine, idling.', 1)
    assert [name for name, item in items.items() if not item.audio] == [
        'train/audiocaps-AudioCaptioning/audiocaps/audio/train/19105.flac'
    ]
    late, later = (item for item in items.values() if item.split == 'validation')
    assert (late.audio[0].start, later.audio[0].start) == (0.5, 0.25)
    assert late.fields['captions'] == []


def test_audio_flamingo2_says_when_a_manifest_was_cut_off(flamingo_dir, items_of):
    path = flamingo_dir / 'manifests/Clotho-AQA-AQA/val.json'
    write_json(path, json.loads(path.read_text()) | {'total_num': 7})
    with pytest.raises(ConfigError, match=r'val\.json: 2 rows; its total_num is another'):
        items_of(audio_flamingo2.DATASET, flamingo_dir)


@pytest.fixture
def salmonn_dir(tmp_path, clips):
    libri = '/data/LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac'
    rows = [
        {'path': libri, 'text': 'Chapter one', 'task': 'asr'},
        {'path': libri, 'text': 'female', 'task': 'gender_recognition'},
        {'path': libri, 'text': 'A house.', 'task': 'QA', 'Q': 'Was ist es - größer?'},
        {'path': 'aishell/1.wav', 'text': '你好', 'task': 'asr_zh'},
        {'path': 'AudioCaps/Yabcdefghijk.wav', 'text': 'Rain falls.', 'task': 'audiocaption'},
        {'path': 'iemocap/a.wav', 'expand_wav': ['iemocap/b.wav'], 'text': 'no', 'task': 'same'},
        {'path': 'iemocap/a.wav', 'text': 'untitled'},
    ]
    write_json(tmp_path / 'manifests/stage1.json', {'annotation': rows})
    write_json(tmp_path / 'manifests/ie-valid.json', {'annotation': rows[4:5]})
    for number, row in enumerate(rows):
        clips.write(tmp_path / row['path'].lstrip('/'), number)
    clips.write(tmp_path / 'iemocap/b.wav', 9)
    return tmp_path


def test_salmonn_tasks_become_transcripts_captions_and_turns(salmonn_dir, items_of):
    items = items_of(salmonn.DATASET, salmonn_dir)
    libri = items['train/stage1//data/LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac']
    fields = salmonn.DATASET.fields(libri)
    assert (fields['transcript'], fields['language'], fields['kind']) == (
        'Chapter one',
        'en',
        'speech',
    )
    assert turns(libri) == [('Was ist es - größer?', 'A house.', 0)]
    assert fields['recording_id'] == 'librispeech/103-1240-0000'
    chinese = items['train/stage1/aishell/1.wav'].fields
    assert (chinese['transcript'], chinese['language']) == ('你好', 'zh')
    rain = items['validation/ie-valid/AudioCaps/Yabcdefghijk.wav']
    assert (rain.split, rain.fields['captions']) == ('validation', ['Rain falls.'])
    pair = items['train/stage1/iemocap/a.wav + iemocap/b.wav']
    assert len(pair.audio) == 2
    assert all(item.audio for item in items.values())


def test_salmonn_prompts_ask_for_tasks(salmonn_dir, items_of):
    slot = '<Speech><SpeechHere></Speech>'
    prompts = {
        'asr': [f'{slot} Can you transcribe it?', f'{slot} What is said?'],
        'gender_recognition': [f'{slot} What is the gender of the speaker?'],
        'QA': [f'{slot} {{}}'],
        'asr_zh': [f'{slot} 请识别这段中文语音。'],
    }
    write_json(salmonn_dir / 'prompts/train_prompt.json', prompts)
    items = items_of(salmonn.DATASET, salmonn_dir)
    (libri,) = (name for name in items if 'LibriSpeech' in name)
    asked, gender, question = turns(items[libri])
    assert asked[0] in ('Can you transcribe it?', 'What is said?')
    assert gender == ('What is the gender of the speaker?', 'female', 1)
    assert question == ('Was ist es - größer?', 'A house.', 2)
    again = items_of(salmonn.DATASET, salmonn_dir)
    assert turns(again[libri]) == [asked, gender, question]


def test_a_link_serves_for_absolute_paths(salmonn_dir, items_of, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere') / 'data'
    (salmonn_dir / 'data').rename(elsewhere)
    with pytest.raises(ConfigError, match=r'stage1\.json, annotation 0: .*ln -s /data'):
        items_of(salmonn.DATASET, salmonn_dir)
    (salmonn_dir / 'data').symlink_to(elsewhere)
    items = items_of(salmonn.DATASET, salmonn_dir)
    assert all(item.audio for item in items.values())


def test_absolute_paths_into_manual_dir_are_its_own(salmonn_dir, items_of):
    path = str(salmonn_dir / 'aishell/1.wav')
    rows = [{'path': path, 'text': '你好', 'task': 'asr_zh'}]
    write_json(salmonn_dir / 'manifests/own.json', {'annotation': rows})
    items = items_of(salmonn.DATASET, salmonn_dir)
    assert items[f'train/own/{path}'].audio[0].path == path


@pytest.fixture
def slam_dir(tmp_path, clips):
    source = 'librispeech_audio/audio/librispeech_1001-134707-0000.wav'
    rows = [
        {'key': '1001-134707-0000_ASR', 'source': source, 'target': '1 little recks'},
        {'key': 'b', 'source': 'b.wav', 'target': 'hello', 'prompt': 'ASR'},
        {'key': 'c', 'source': 'c.wav', 'target': 'no', 'prompt': 'Is it there?'},
    ]
    write_jsonl(tmp_path / 'manifests/librispeech_train.jsonl', rows)
    rows = [{'key': f'Y_{n}', 'source': 'd.wav', 'target': f'Caption {n % 2}.'} for n in range(3)]
    write_jsonl(tmp_path / 'manifests/audiocaps_test.jsonl', rows)
    for number, name in enumerate((source, 'b.wav', 'c.wav', 'd.wav')):
        clips.write(tmp_path / name, number)
    return tmp_path


def test_slam_llm_captions_of_one_source_are_collected(slam_dir, items_of):
    items = items_of(slam_llm.DATASET, slam_dir, 'captions')
    item = items['test/audiocaps_test/d.wav']
    assert item.fields['captions'] == ['Caption 0.', 'Caption 1.']
    assert slam_llm.DATASET.fields(item)['transcript'] == ''


def test_slam_llm_transcripts_and_questions(slam_dir, items_of):
    (slam_dir / 'manifests/audiocaps_test.jsonl').unlink()
    items = items_of(slam_llm.DATASET, slam_dir)
    assert [item.fields['transcript'] for item in items.values()] == [
        '1 little recks',
        'hello',
        'no',
    ]
    assert [turns(item) for item in items.values()] == [[], [], [('Is it there?', 'no', 0)]]


def test_slam_llm_names_the_line_that_is_not_json(slam_dir, items_of):
    (slam_dir / 'manifests/audiocaps_test.jsonl').unlink()
    with (slam_dir / 'manifests/librispeech_train.jsonl').open('a') as file:
        file.write('{"key": "d", "source": \n')
    with pytest.raises(ConfigError, match=r'librispeech_train\.jsonl, row 4: not JSON'):
        items_of(slam_llm.DATASET, slam_dir)


@pytest.mark.parametrize(
    ('path', 'collection', 'recording'),
    [
        ('AudioCapsLarger/test/Y6BJ455B1aAs.wav', '', 'youtube/6BJ455B1aAs'),
        ('video/-bcdefghijk_30.000.flac', 'AudioSet_SL', 'youtube/-bcdefghijk'),
        ('FSD50K.dev_audio/64760.wav', '', 'freesound/64760'),
        ('audio/1-100032-A-0.wav', 'ESC-50', 'freesound/100032'),
        ('UrbanSound8K/audio/fold5/100032-3-0-0.wav', '', 'freesound/100032'),
        ('x/07075051.wav', 'BBC_Sound_Effects', 'bbc/07075051'),
        (
            '/d/LibriSpeech/dev-clean/84/121123/84-121123-0000.flac',
            '',
            'librispeech/84-121123-0000',
        ),
        ('AudioWAV/1001_IEO_NEU_XX.wav', '', 'crema_d/1001_IEO_NEU_XX'),
        ('Actor_01/03-01-06-01-02-01-12.wav', '', 'ravdess/03-01-06-01-02-01-12'),
        ('Clotho\\development\\Radio Garble.wav', '', 'clotho/Radio Garble.wav'),
        ('x/y/Y0123456789_.wav', 'as_strong_train', 'youtube/0123456789_'),
        ('pandas_x/elevenchars.wav', '', 'pandas_x/elevenchars'),
        ('sounds/elevenchars.wav', 'Mine', 'mine/elevenchars'),
        ('a.wav', '', 'unknown/a'),
    ],
)
def test_recording_ids_are_those_of_the_corpora(path, collection, recording):
    assert recording_id(path, collection) == recording


def test_slots_count_up_over_a_dialogue():
    row = manifests.Row({}, 'x.json, row 1')
    texts = ['<sound> and <audio>', 'yes', 'then <speech>?']
    assert manifests.placed(texts, 3, row) == ['<sound-1> and <sound-2>', 'yes', 'then <sound-3>?']
    assert manifests.placed(['<sound><sound>\nWhat?'], 1, row) == ['What?']
    with pytest.raises(ConfigError, match=r"x.json, row 1: '<speech>', but it has 2 clips"):
        manifests.placed(texts, 2, row)


def test_prepared_conversations_hold_several_clips(skills_dir, prepared):
    records = prepared(conversations.DATASET, skills_dir)
    (pair,) = (record for record in records.values() if record['clip_samples'])
    assert pair['turns'][1]['question'] == 'And <sound-2>, now?'
    assert sum(pair['clip_samples']) == pair['num_samples']


def test_prepared_audio_flamingo2_begins_where_a_row_says(flamingo_dir, prepared, clips):
    records = prepared(audio_flamingo2.DATASET, flamingo_dir, split='validation')
    whole = len(clips.samples(LONG, 16_000)[0])
    lost = sorted(whole - record['num_samples'] for record in records.values())
    assert lost == pytest.approx([4000, 8000], abs=2)  # at 16 kHz


def test_prepared_salmonn(salmonn_dir, prepared):
    records = prepared(salmonn.DATASET, salmonn_dir)
    assert {record['language'] for record in records.values()} == {'', 'en', 'zh'}


def test_prepared_slam_llm(slam_dir, prepared):
    (record,) = prepared(slam_llm.DATASET, slam_dir, 'captions', 'test').values()
    assert record['captions'] == ['Caption 0.', 'Caption 1.']
