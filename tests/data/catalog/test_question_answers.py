"""Question sets on miniatures in their official layouts, of real recordings."""

import json

import pytest

from alm_jax.config import ConfigError
from alm_jax.data.catalog import audiogrounding, clotho_aqa, compa_r, daqa, reasonaqa


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding='utf-8')


def answers(fields):
    return [(t['question'], t['answer'], t['dialogue']) for t in fields['turns']]


GEESE = 'Geese1 - (Apollonia&#39;s sPA) 18.44 05.10.wav'
AQA = {
    'train': [
        ('Are there birds?', 'yes', 'yes'),
        ('Are there birds?', 'Yes', 'maybe'),
        ('Are there birds?', 'yes', 'yes'),
        ('What is heard?', 'rain', 'yes'),
        ('What is heard?', 'rain', 'yes'),
        ('What is heard?', 'storm', 'yes'),
        ('How many people are there?', 'one', 'no'),
        ('How many people are there?', 'two', 'no'),
        ('How many people are there?', 'three', 'no'),
    ]
}


@pytest.fixture
def aqa_dir(tmp_path, clips, write_csv):
    """Zenodo's files: CSVs, and audio in audio_files.zip; two clips are spelled in two ways."""
    header = ['file_name', 'QuestionText', 'answer', 'confidence']
    train = [[GEESE, *row] for row in AQA['train']]
    train += [['souffle_me_tallique.wav', 'Est-ce métallique?', a, 'yes'] for a in 'abc']
    write_csv(tmp_path / 'clotho_aqa_train.csv', header, train)
    rows = [['Radio Garble.wav', 'Is it a radio?', 'no', 'yes']] * 3
    write_csv(tmp_path / 'clotho_aqa_val.csv', header, rows)
    rows = [['not there.wav', 'Is it there?', 'no', 'yes']] * 3
    write_csv(tmp_path / 'clotho_aqa_test.csv', header, rows)
    header = ['', 'file_name', 'keywords', 'sound_link']
    header += ['start_end_samples', 'manufacturer', 'license']
    by = 'http://creativecommons.org/licenses/by/3.0/'
    link = 'https://freesound.org/people/Benboncan/sounds/80399'
    metadata = [
        [0, GEESE.replace('18.44', '18_44'), 'geese;water', link, '[0, 9]', 'Benboncan', by],
        [1, 'Radio Garble.wav', 'radio;', '', '[0, 9]', 'someone', ''],
    ]
    write_csv(tmp_path / 'clotho_aqa_metadata.csv', header, metadata)
    members = (GEESE, 'souffle_me.tallique.wav', 'Radio Garble.wav')
    clips.zip(tmp_path / 'audio_files.zip', {f'audio_files/{m}': n for n, m in enumerate(members)})
    return tmp_path


def test_clotho_aqa_groups_questions_by_clip(aqa_dir, items_of):
    items = items_of(clotho_aqa.DATASET, aqa_dir)
    assert {name: item.split for name, item in items.items()} == {
        GEESE: 'train',
        'souffle_me_tallique.wav': 'train',
        'Radio Garble.wav': 'validation',
        'not there.wav': 'test',
    }
    assert answers(items[GEESE].fields) == [(q, a, n) for n, (q, a, _) in enumerate(AQA['train'])]
    assert [name for name, item in items.items() if not item.audio] == ['not there.wav']
    assert items['souffle_me_tallique.wav'].audio[0].member.endswith('souffle_me.tallique.wav')


def test_clotho_aqa_knows_uploads_and_licences(aqa_dir, items_of):
    items = items_of(clotho_aqa.DATASET, aqa_dir)
    geese = clotho_aqa.DATASET.fields(items[GEESE])
    assert geese['recording_id'] == geese['group'] == 'freesound/80399'
    assert geese['licence'] == 'CC-BY-3.0'
    assert (geese['tags'], geese['author']) == (['geese', 'water'], 'Benboncan')
    radio = clotho_aqa.DATASET.fields(items['Radio Garble.wav'])
    assert radio['recording_id'] == 'clotho/Radio Garble.wav'
    assert radio['licence'].startswith('MIT')


def test_clotho_aqa_unanimous_and_majority(aqa_dir, items_of):
    unanimous = items_of(clotho_aqa.DATASET, aqa_dir, 'unanimous')
    assert answers(unanimous[GEESE].fields) == [('Are there birds?', 'yes', 0)]
    assert 'souffle_me_tallique.wav' not in unanimous  # three answers
    assert answers(unanimous['Radio Garble.wav'].fields) == [('Is it a radio?', 'no', 0)]
    majority = items_of(clotho_aqa.DATASET, aqa_dir, 'majority')
    assert answers(majority[GEESE].fields) == [
        ('Are there birds?', 'yes', 0),
        ('What is heard?', 'rain', 1),
    ]


def test_clotho_aqa_names_a_row_that_has_too_few_cells(aqa_dir, items_of):
    with (aqa_dir / 'clotho_aqa_val.csv').open('a') as file:
        file.write('Radio Garble.wav,Is it?\n')
    with pytest.raises(ConfigError, match=r'clotho_aqa_val.csv, row 5: 2 cells; expected 4'):
        items_of(clotho_aqa.DATASET, aqa_dir)


@pytest.fixture
def compa_dir(tmp_path, clips):
    train = [
        {
            'audio_id': './compa_r_train_audios/Y-0AbCdEfGhI.wav',
            'instruction': f'Infer {what}.',
            'output': f'It is “{what}”.',
        }
        for what in ('the place', 'the mood')
    ]
    test = [
        {
            'audio_id': 'Yzyxwvutsrqp.wav',
            'caption': 'A dog.',
            'instruction_output': [
                {'instruction': f'Question {n}?', 'output': f'Answer {n}.'} for n in (1, 2)
            ],
        },
        {'audio_id': 'not a video.wav', 'instruction_output': []},
    ]
    write_json(tmp_path / 'CompA-R.json', train)
    write_json(tmp_path / 'CompA-R-test.json', test[:1])
    clips.write(tmp_path / 'compa_r_train_audios/Y-0AbCdEfGhI.wav', 0, 16_000)
    clips.write(tmp_path / 'compa_r_test_audios/Yzyxwvutsrqp.wav', 1, 16_000)
    return tmp_path


def test_compa_r_reads_both_forms(compa_dir, items_of):
    items = items_of(compa_r.DATASET, compa_dir)
    train = compa_r.DATASET.fields(items['train/Y-0AbCdEfGhI.wav'])
    assert answers(train) == [
        ('Infer the place.', 'It is “the place”.', 0),
        ('Infer the mood.', 'It is “the mood”.', 1),
    ]
    assert train['recording_id'] == 'youtube/-0AbCdEfGhI'
    assert train['provenance'] == 'generated: GPT-4'
    test = items['test/Yzyxwvutsrqp.wav']
    assert test.split == 'test'
    assert test.fields['provenance'] == 'human'
    assert answers(test.fields) == [
        ('Question 1?', 'Answer 1.', 0),
        ('Question 2?', 'Answer 2.', 1),
    ]
    assert all(item.audio for item in items.values())


def test_compa_r_names_the_element_that_lacks_an_answer(compa_dir, items_of):
    write_json(compa_dir / 'CompA-R.json', [{'audio_id': 'a.wav', 'instruction': 'Why?'}])
    with pytest.raises(ConfigError, match=r"CompA-R.json, element 0: there is no 'output'"):
        items_of(compa_r.DATASET, compa_dir)


ROCKET = 'AudioCapsLarger/test/Y6BJ455B1aAs.wav'
WATER = 'AudioCapsLarger/test/YZsf2YvJfCKw.wav'


def reason(**fields):
    empty = dict.fromkeys(('filepath2', 'caption1', 'caption2', 'answer'), '')
    return {'taskname': 'audiocaps', 'filepath1': ROCKET, 'subtype': 'CLE.json', **empty, **fields}


@pytest.fixture
def reason_dir(tmp_path, clips):
    test = [
        reason(input='is this "a rocket"? a) true b) false', answer='a) true'),
        reason(
            filepath2=WATER,
            input='explain the difference in few words',
            answer='Audio 1 is louder.',
            subtype='ACD-1.json',
        ),
        reason(input='what burns?', answer='fire'),
        reason(
            filepath2=WATER.replace('/', '\\'),
            caption1='A rocket flies by.',
            caption2='Water trickles',
            input='caption both audios',
        ),
    ]
    write_json(tmp_path / 'test.json', test)
    bells = reason(taskname='clothov21', filepath1='ClothoV21/development/Bells.wav')
    write_json(tmp_path / 'train.json', [bells | {'input': 'what rings?', 'answer': 'bells'}])
    write_json(tmp_path / 'val.json', [])
    clips.write(tmp_path / ROCKET, 0)
    clips.write(tmp_path / WATER, 1)
    return tmp_path


def test_reasonaqa_keeps_one_record_a_clip_or_pair(reason_dir, items_of):
    items = items_of(reasonaqa.DATASET, reason_dir)
    bells, single, pair = items.values()
    assert [clip.path.rsplit('/', 1)[-1] for clip in pair.audio] == [
        'Y6BJ455B1aAs.wav',
        'YZsf2YvJfCKw.wav',
    ]
    assert answers(single.fields) == [
        ('is this "a rocket"? a) true b) false', 'a) true', 0),
        ('what burns?', 'fire', 1),
    ]
    assert answers(pair.fields) == [
        ('explain the difference in few words', 'Audio 1 is louder.', 0),
        ('caption both audios', 'Audio 1: A rocket flies by. Audio 2: Water trickles.', 1),
    ]
    fields = reasonaqa.DATASET.fields(single)
    assert (fields['recording_id'], fields['package']) == ('youtube/6BJ455B1aAs', 'audiocaps')
    assert (bells.split, bells.audio) == ('train', ())
    assert bells.fields['recording_id'] == 'clotho/Bells.wav'


def test_reasonaqa_knows_the_uploads_of_clotho(reason_dir, write_csv, items_of):
    header = ['file_name', 'keywords', 'sound_id', 'manufacturer']
    rows = [['Bells.wav', 'été', 80399, 'Zoë'], ['Café.wav', '', 'Not found', '']]
    path = reason_dir / 'clotho_metadata_development.csv'
    write_csv(path, header, rows, encoding='iso-8859-1')
    bells, single, _ = items_of(reasonaqa.DATASET, reason_dir).values()
    assert bells.fields['recording_id'] == 'freesound/80399'
    assert single.fields['recording_id'] == 'youtube/6BJ455B1aAs'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'answer': ' '}, 'train.json, element 0: an answer is empty'),
        ({'filepath1': ''}, 'train.json, element 0: it names no audio file'),
        ({'filepath1': '../../etc/a.wav'}, r"train.json, element 0: '../../etc/a.* leads out"),
        (
            {'filepath2': 'https://example.org/a.wav'},
            r"element 0: 'https://example.org/a.wav' is no",
        ),
        ({'filepath1': 7}, r"train.json, element 0: 'filepath1' is 7; expected text"),
    ],
)
def test_reasonaqa_names_the_row_that_cannot_be_used(reason_dir, items_of, change, message):
    row = reason(input='what rings?', answer='bells')
    write_json(reason_dir / 'train.json', [row | change])
    with pytest.raises(ConfigError, match=message):
        items_of(reasonaqa.DATASET, reason_dir)


@pytest.fixture
def grounding_dir(tmp_path, clips):
    def phrase(text, start, segments):
        end = start + len(text.split()) - 1
        return {'phrase': text, 'start_index': start, 'end_index': end, 'segments': segments}

    first = {
        'audiocap_id': 107709,
        'audio_id': 'YvJ7JPEFhyLA.wav',
        'tokens': 'a man speaks , then a dog barks',
        'phrases': [
            phrase('a man speaks', 0, [[0.02, 1.4], [3, 4.5]]),
            phrase('a dog barks', 5, [[8.0, 10.0]]),
        ],
    }
    second = first | {
        'audiocap_id': 107710,
        'tokens': 'speech',
        'phrases': [phrase('speech', 0, []), phrase('speech', 0, [[1.0, 1.5]])],
    }
    other = first | {'audio_id': 'YzVacuqSb4LI.wav', 'phrases': []}
    for name, rows in (('train', [first, second]), ('val', [other]), ('test', [])):
        write_json(tmp_path / f'{name}.json', rows)
    clips.write(tmp_path / 'train/YvJ7JPEFhyLA.wav', 0)
    return tmp_path


def test_audiogrounding_phrases_become_times(grounding_dir, items_of):
    items = items_of(audiogrounding.DATASET, grounding_dir)
    fields = audiogrounding.DATASET.fields(items['YvJ7JPEFhyLA.wav'])
    assert fields['captions'] == ['a man speaks , then a dog barks', 'speech']
    assert [(t['onset'], t['offset'], t['text']) for t in fields['times']] == [
        (0.02, 1.4, 'a man speaks'),
        (3.0, 4.5, 'a man speaks'),
        (8.0, 10.0, 'a dog barks'),
        (1.0, 1.5, 'speech'),
    ]
    assert fields['recording_id'] == 'youtube/vJ7JPEFhyLA'
    missing = items['YzVacuqSb4LI.wav']
    assert (missing.split, missing.audio, missing.fields['times']) == ('validation', (), [])


@pytest.mark.parametrize(
    ('segments', 'reason'),
    [([[2.0, 1.0]], 'ends before'), ([[1.0]], 'pairs'), (None, 'pairs'), ([['a', 2]], 'pairs')],
)
def test_audiogrounding_names_a_segment_that_is_none(grounding_dir, items_of, segments, reason):
    rows = json.loads((grounding_dir / 'train.json').read_text())
    rows[1]['phrases'][1]['segments'] = segments
    write_json(grounding_dir / 'train.json', rows)
    where = r"train.json, element 1, phrases\[1\]: 'segments' is"
    with pytest.raises(ConfigError, match=f'{where}.*{reason}'):
        items_of(audiogrounding.DATASET, grounding_dir)


def test_daqa_gathers_the_questions_of_a_clip(tmp_path, clips, items_of, prepared):
    for name in ('train', 'val', 'test'):
        file = f'daqa_{name}_000001.wav'
        questions = [
            {
                'set': name,
                'audio_index': 1,
                'audio_filename': file,
                'question_template': 'exist',
                'question': f'Was there a dog barking ({n})?',
                'answer': 'yes',
                'answer_token': 'yes',
            }
            for n in range(3)
        ]
        table = f'daqa_{name}_questions_answers{"_5" * (name == "train")}.json'
        info = {'set': name, 'version': '1.0'}
        write_json(tmp_path / table, {'info': info, 'questions': questions})
        clips.write(tmp_path / 'audio' / name / file, 0)
    items = items_of(daqa.DATASET, tmp_path)
    assert {name: item.split for name, item in items.items()} == {
        'train/daqa_train_000001.wav': 'train',
        'validation/daqa_val_000001.wav': 'validation',
        'test/daqa_test_000001.wav': 'test',
    }
    assert all(item.audio for item in items.values())
    turns = answers(items['train/daqa_train_000001.wav'].fields)
    assert turns == [(f'Was there a dog barking ({n})?', 'yes', n) for n in range(3)]
    assert len(prepared(daqa.DATASET, tmp_path, split='validation')) == 1


def test_prepared_clotho_aqa(aqa_dir, prepared):
    records = prepared(clotho_aqa.DATASET, aqa_dir, 'majority')
    assert answers(records[GEESE]) == [
        ('Are there birds?', 'yes', 0),
        ('What is heard?', 'rain', 1),
    ]
    assert records[GEESE]['recording_id'] == 'freesound/80399'


def test_prepared_compa_r(compa_dir, prepared):
    (record,) = prepared(compa_r.DATASET, compa_dir, split='test').values()
    assert [t['answer'] for t in record['turns']] == ['Answer 1.', 'Answer 2.']


def test_prepared_reasonaqa_has_two_clips_in_a_record(reason_dir, prepared, clips):
    single, pair = prepared(reasonaqa.DATASET, reason_dir, split='test').values()
    assert len(pair['clip_samples']) == 2
    lengths = [len(clips.samples(number, 16_000)[0]) for number in (0, 1)]
    assert pair['clip_samples'] == lengths
    assert single['num_samples'] == lengths[0]
    assert pair['recording_id'] == single['recording_id']


def test_prepared_audiogrounding(grounding_dir, prepared):
    (record,) = prepared(audiogrounding.DATASET, grounding_dir).values()
    assert [t['text'] for t in record['times']] == ['a man speaks'] * 2 + ['a dog barks', 'speech']
