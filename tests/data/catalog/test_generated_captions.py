"""Datasets of YouTube clips with generated text, on miniatures in their official layouts."""

import pytest

from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.data.catalog import audiosetcaps, auto_acd, sound_vecaps
from alm_jax.data.catalog.building import builder


def test_auto_acd_tells_its_two_forms_of_names_apart(
    clips, write_csv, items_of, prepared, tmp_path
):
    train = [
        ('oPRC3zComfA_000117', 'Electronic music plays.'),
        ('YmAJAqzo-Y_Y', 'A woman talks quietly.'),  # AudioSet: a Y before the video
        ('Ybcdefghij-_000030', 'A dog barks.'),  # VGGSound: the video itself begins with Y
        ('YBy9kurkyNvk', 'The caption for this could be: "A car idles, "knocking", in a room."'),
    ]
    write_csv(tmp_path / 'train.csv', ('youtube_id', 'caption'), train)
    write_csv(tmp_path / 'test.csv', ('youtube_id', 'caption'), [('YPsERnugT1hs', 'A lady.')])
    clips.write(tmp_path / 'audio/oPRC3zComfA_000117.flac', 0)
    clips.write(tmp_path / 'audio/mAJAqzo-Y_Y.wav', 1)
    clips.write(tmp_path / 'audio/YPsERnugT1hs.wav', 2)
    items = items_of(auto_acd.DATASET, tmp_path)
    assert {name: item.fields['recording_id'] for name, item in items.items()} == {
        'oPRC3zComfA_000117': 'youtube/oPRC3zComfA',
        'YmAJAqzo-Y_Y': 'youtube/mAJAqzo-Y_Y',
        'Ybcdefghij-_000030': 'youtube/Ybcdefghij-',
        'YBy9kurkyNvk': 'youtube/By9kurkyNvk',
        'YPsERnugT1hs': 'youtube/PsERnugT1hs',
    }
    assert [item.split for item in items.values()] == ['train'] * 4 + ['test']
    assert [len(item.audio) for item in items.values()] == [1, 1, 0, 0, 1]
    assert items['YBy9kurkyNvk'].fields['captions'] == ['A car idles, "knocking", in a room.']
    records = prepared(auto_acd.DATASET, tmp_path)
    assert sorted(records) == ['YmAJAqzo-Y_Y', 'oPRC3zComfA_000117']
    assert records['YmAJAqzo-Y_Y']['captions'] == ['A woman talks quietly.']


def test_rows_of_one_clip_are_one_record(clips, write_csv, tmp_path):
    rows = [('YmAJAqzo-Y_Y', 'A woman talks.'), ('YPsERnugT1hs', 'A bell.')]
    rows += [('YmAJAqzo-Y_Y', 'Someone talks.'), ('YmAJAqzo-Y_Y', 'A woman talks.')]
    write_csv(tmp_path / 'train.csv', ('youtube_id', 'caption'), rows)
    write_csv(tmp_path / 'test.csv', ('youtube_id', 'caption'), [])
    for number, name in enumerate(('YmAJAqzo-Y_Y', 'YPsERnugT1hs')):
        clips.write(tmp_path / f'audio/{name}.wav', number)
    builder.build(auto_acd.DATASET, '', tmp_path, tmp_path / 'data', builder.Options(workers=1))
    source = sources.open_source('auto_acd:train', tmp_path / 'data')
    assert {source.id(i): list(source.read(i)['captions']) for i in range(len(source))} == {
        'YmAJAqzo-Y_Y': ['A woman talks.', 'Someone talks.'],
        'YPsERnugT1hs': ['A bell.'],
    }


def test_auto_acd_names_the_row_of_what_is_no_video(write_csv, items_of, tmp_path):
    write_csv(tmp_path / 'train.csv', ('youtube_id', 'caption'), [('short', 'A dog.')])
    with pytest.raises(ConfigError, match=r"train\.csv, row 2: 'youtube_id' is 'short'"):
        items_of(auto_acd.DATASET, tmp_path)


@pytest.mark.parametrize(
    ('config', 'table', 'name', 'video'),
    [
        ('audioset', 'AudioSetCaps_caption.csv', 'Y---1_cCGK4M', '---1_cCGK4M'),
        ('vggsound', 'VGGSound_AudioSetCaps_caption.csv', 'OxPnZzn1_L8_000883', 'OxPnZzn1_L8'),
        ('youtube8m', 'YouTube-8M_AudioSetCaps_caption.csv', '9eUrEyAR3xk_84_10', '9eUrEyAR3xk'),
        ('youtube8m', 'YouTube-8M_AudioSetCaps_caption.csv', '_7Xe9vD3Hpg_4_10', '_7Xe9vD3Hpg'),
        ('youtube8m', 'YouTube-8M_AudioSetCaps_caption.csv', 'Y1ZooVL-H9A_30_40', 'Y1ZooVL-H9A'),
    ],
)
def test_audiosetcaps_reads_three_forms_of_names(
    config, table, name, video, clips, write_csv, items_of, tmp_path
):
    rows = [(name, 'A solemn "piece",\nwith a bell.'), ('Y00000000000', 'Lost.')]
    write_csv(tmp_path / 'Dataset' / table, ('id', 'caption'), rows)
    clips.write(tmp_path / f'audio/{config}/{name}.mp3', 0)
    items = items_of(audiosetcaps.DATASET, tmp_path, config)
    assert [len(item.audio) for item in items.values()] == [1, 0]
    assert items[name].fields == {
        'captions': ['A solemn "piece",\nwith a bell.'],
        'recording_id': f'youtube/{video}',
    }


def test_audiosetcaps_questions_stand_alone(clips, write_csv, items_of, prepared, tmp_path):
    answers = ('A bell rings.', 'There is no speech.', 'The genre is instrumental.')
    path = tmp_path / 'Dataset/VGGSound_Qwen-Audio_Q&A.csv'
    columns = [f'answer_{i}' for i in (1, 2, 3)]
    write_csv(path, ('id', *columns), [('OxPnZzn1_L8_000883', *answers)])
    clips.write(tmp_path / 'audio/OxPnZzn1_L8_000883.wav', 0)
    (item,) = items_of(audiosetcaps.DATASET, tmp_path, 'vggsound_qa').values()
    turns = item.fields['turns']
    assert [turn['answer'] for turn in turns] == list(answers)
    assert len({turn['dialogue'] for turn in turns}) == 3
    assert turns[0]['question'] == 'Describe this audio according to the sounds in it.'
    columns += [f'question_{i}' for i in (1, 2, 3)]
    write_csv(path, ('id', *columns), [('OxPnZzn1_L8_000883', *answers, 'Q1', 'Q2', 'Q3')])
    (item,) = items_of(audiosetcaps.DATASET, tmp_path, 'vggsound_qa').values()
    assert [turn['question'] for turn in item.fields['turns']] == ['Q1', 'Q2', 'Q3']
    (record,) = prepared(audiosetcaps.DATASET, tmp_path, 'vggsound_qa').values()
    assert list(record['turns']) == item.fields['turns']
    assert record['provenance'] == 'generated: Qwen-Audio and Mistral-7B'


def test_sound_vecaps_has_two_tables_of_captions(clips, write_csv, items_of, prepared, tmp_path):
    names = ('Y--4gqARaEJE.wav', 'YBy9kurkyNvk.wav')
    for config in ('audio', 'full'):
        rows = [(name, f'{config}: a dog barks, then a car.') for name in names]
        write_csv(tmp_path / f'Sound-VECaps_{config}.csv', ('id', 'caption'), rows)
    clips.tar(tmp_path / 'audio/part_1.tar', {'x/--4gqARaEJE.flac': 0})  # without the Y
    for config in ('audio', 'full'):
        items = items_of(sound_vecaps.DATASET, tmp_path, config)
        assert [len(item.audio) for item in items.values()] == [1, 0]
        assert items[names[0]].fields == {
            'captions': [f'{config}: a dog barks, then a car.'],
            'recording_id': 'youtube/--4gqARaEJE',
        }
    (record,) = prepared(sound_vecaps.DATASET, tmp_path, 'full').values()
    assert record['captions'] == ['full: a dog barks, then a car.']
    assert record['source'] == '--4gqARaEJE.flac'
