"""Datasets of music with captions, on miniatures in their official layouts."""

import pyarrow as pa
import pyarrow.parquet
import pytest

from alm_jax.config import ConfigError
from alm_jax.data.catalog import lp_musiccaps, musiccaps, song_describer

HEADER = (
    *('ytid', 'start_s', 'end_s', 'audioset_positive_labels', 'aspect_list', 'caption'),
    *('author_id', 'is_balanced_subset', 'is_audioset_eval'),
)
ASPECTS = """['low quality', "singer's voice", 'r&b, soul']"""
ROWS = [
    ('-0Gj8-vB1q4', 30, 40, '/m/0140xf,/m/02cjck', ASPECTS, 'A "ballad",\nsad.', 4, False, True),
    ('-0vPFx-wRRI', 0, 10, '/m/025_jnm', "['jazz']", 'A male voice.', 6, False, False),
    ('-0xzrMun0Rs', 160, 170, '/m/01g90h', '[]', 'Lost.', 6, True, False),
]


def test_musiccaps_reads_lists_in_cells(clips, write_csv, items_of, prepared, tmp_path):
    write_csv(tmp_path / 'musiccaps-public.csv', HEADER, ROWS)
    clips.write(tmp_path / 'audio/[-0Gj8-vB1q4]-[30-40].wav', 0)
    clips.write(tmp_path / 'audio/-0vPFx-wRRI.mp3', 1)
    items = items_of(musiccaps.DATASET, tmp_path)
    assert [(name, item.split, len(item.audio)) for name, item in items.items()] == [
        ('-0Gj8-vB1q4_30', 'test', 1),
        ('-0vPFx-wRRI_0', 'train', 1),
        ('-0xzrMun0Rs_160', 'train', 0),
    ]
    ballad = musiccaps.DATASET.fields(items['-0Gj8-vB1q4_30'])
    assert ballad['captions'] == ['A "ballad",\nsad.']
    assert ballad['tags'] == ['low quality', "singer's voice", 'r&b, soul']
    assert ballad['recording_id'] == 'youtube/-0Gj8-vB1q4'
    assert (ballad['kind'], ballad['provenance']) == ('music', 'human')
    (record,) = prepared(musiccaps.DATASET, tmp_path, split='test').values()
    assert record['captions'] == ['A "ballad",\nsad.']
    assert list(record['tags']) == ballad['tags']


def test_musiccaps_evaluates_no_cell(write_csv, items_of, tmp_path):
    row = (*ROWS[0][:4], '__import__("os").getcwd()', *ROWS[0][5:])
    write_csv(tmp_path / 'musiccaps-public.csv', HEADER, [row])
    with pytest.raises(ConfigError, match=r"'aspect_list' is '__import__.* expected a list"):
        items_of(musiccaps.DATASET, tmp_path)


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


def generated(**fields):
    kinds = ('writing', 'summary', 'paraphrase', 'attribute_prediction')
    return {**fields, **{f'caption_{kind}': f'By {kind}.' for kind in kinds}}


def test_lp_musiccaps_of_musiccaps(clips, items_of, prepared, tmp_path):
    row = generated(
        fname='[4q6e_ZDFOZI]-[30-40]',
        ytid='4q6e_ZDFOZI',
        aspect_list=['jingle', 'strings'],
        caption_ground_truth='By a person.',
        start_s=30,
        end_s=40,
    )
    folder = tmp_path / 'LP-MusicCaps-MC/data'
    write_parquet(folder / 'train-00000-of-00001-ab.parquet', [row])
    other = {**row, 'fname': '[-0xzrMun0Rs]-[0-10]', 'ytid': '-0xzrMun0Rs', 'start_s': 0}
    write_parquet(folder / 'test-00000-of-00001-cd.parquet', [{**other, 'end_s': 10}])
    clips.write(tmp_path / 'audio/[4q6e_ZDFOZI]-[30-40].wav', 0)
    items = items_of(lp_musiccaps.DATASET, tmp_path, 'mc')
    assert [(item.split, len(item.audio)) for item in items.values()] == [('train', 1), ('test', 0)]
    assert items['[4q6e_ZDFOZI]-[30-40]'].fields == {
        'captions': ['By writing.', 'By summary.', 'By paraphrase.'],
        'tags': ['jingle', 'strings'],
        'author': '',
        'recording_id': 'youtube/4q6e_ZDFOZI',
    }
    (record,) = prepared(lp_musiccaps.DATASET, tmp_path, 'mc').values()
    assert (len(record['captions']), record['provenance']) == (3, 'generated: GPT-3.5 Turbo')


def test_lp_musiccaps_of_magnatagatune_has_records_without_text(clips, items_of, tmp_path):
    path = 'd/utopia_banished-night_of_the_black_wyvern-01-by_mourning-{}.mp3'
    texts = generated(title='By Mourning', artist_name='Utopia Banished', tag_top188=['metal'])
    bare = {**{name: '' for name in texts if name.startswith('caption')}, 'tag_top188': []}
    folder = tmp_path / 'LP-MusicCaps-MTT/data'
    rows = {
        'train': {**texts, 'track_id': '831', 'path': path.format('88-117')},
        'valid': {**texts, **bare, 'track_id': '832', 'path': path.format('117-146')},
        'test': {**texts, 'track_id': '5', 'path': 'a/x-y-02-z-0-29.mp3'},
    }
    for split, row in rows.items():
        write_parquet(folder / f'{split}-00000-of-00001.parquet', [row])
    clips.write(tmp_path / 'audio' / path.format('88-117'), 0)
    items = items_of(lp_musiccaps.DATASET, tmp_path, 'mtt')
    assert {name: (item.split, len(item.audio)) for name, item in items.items()} == {
        '831': ('train', 1),
        '832': ('validation', 0),
        '5': ('test', 0),
    }
    # Two clips of one track are one recording.
    assert items['831'].fields['recording_id'] == items['832'].fields['recording_id']
    assert items['831'].fields['recording_id'].startswith('magnatagatune/d/utopia_banished')
    assert items['831'].fields['author'] == 'Utopia Banished'
    assert (items['832'].fields['captions'], items['832'].fields['tags']) == ([], [])


def test_lp_musiccaps_of_the_million_song_dataset(clips, items_of, tmp_path):
    row = generated(track_id='TRBAISB12903CF1054', artist_name='Shadows Fall', tag=['metalcore'])
    row['path'] = '8/1/8134074.clip.mp3'
    for split in ('train', 'valid', 'test'):
        track = {**row, 'track_id': f'TR{split}'} if split != 'train' else row
        write_parquet(tmp_path / f'LP-MusicCaps-MSD/data/{split}-00000-of-00001.parquet', [track])
    clips.write(tmp_path / 'audio/8/1/8134074.clip.mp3', 0)
    items = items_of(lp_musiccaps.DATASET, tmp_path, 'msd')
    assert items['TRBAISB12903CF1054'].fields['recording_id'] == 'msd/TRBAISB12903CF1054'
    assert len(items['TRBAISB12903CF1054'].audio) == 1


def test_lp_musiccaps_says_which_table_is_missing(items_of, tmp_path):
    with pytest.raises(ConfigError, match=r'LP-MusicCaps-MTT/data/train-\*\.parquet'):
        items_of(lp_musiccaps.DATASET, tmp_path, 'mtt')


SDD_HEADER = (
    *('caption_id', 'track_id', 'caption', 'is_valid_subset', 'familiarity'),
    *('artist_id', 'album_id', 'path', 'duration'),
)
SDD_LICENCES = """00/1004300.mp3
Song "A" by someone from Jamendo: http://www.jamendo.com/track/1004300
Available under a Creative Commons Attribution license: http://creativecommons.org/licenses/by/3.0/

34/1004034.2min.mp3
Song B by another from Jamendo: http://www.jamendo.com/track/1004034
Available under a CC Attribution-ShareAlike license: http://creativecommons.org/licenses/by-sa/3.0/
"""


def test_song_describer_collects_the_captions_of_a_track(
    clips, write_csv, items_of, prepared, tmp_path
):
    rows = [
        (10, 1004300, 'A retro-futurist drum machine.', True, 1, 7, 8, '00/1004300.mp3', 202.5),
        (11, 1004034, 'Calm sitar.', False, 0, 9, 8, '34/1004034.mp3', 100.0),
        (12, 1004300, 'Bubbly, "acid" bass.', False, 3, 7, 8, '00/1004300.mp3', 202.5),
        (13, 77, 'Lost.', True, 3, 7, 8, '77/77.mp3', 12.5),
    ]
    write_csv(tmp_path / 'song_describer.csv', SDD_HEADER, rows)
    (tmp_path / 'audio_licenses.txt').write_text(SDD_LICENCES)
    clips.write(tmp_path / 'audio/00/1004300.2min.mp3', 0)
    clips.write(tmp_path / 'audio/34/1004034.2min.mp3', 1)
    items = items_of(song_describer.DATASET, tmp_path)
    assert {name: (item.split, len(item.audio)) for name, item in items.items()} == {
        '1004300': ('test', 1),
        '1004034': ('test', 1),
        '77': ('test', 0),
    }
    assert items['1004300'].fields == {
        'captions': ['A retro-futurist drum machine.', 'Bubbly, "acid" bass.'],
        'recording_id': 'jamendo/1004300',
        'licence': 'CC-BY-3.0',
    }
    assert items['1004034'].fields['licence'] == 'CC-BY-SA-3.0'
    assert items['77'].fields['licence'] == song_describer.DATASET.licence
    valid = items_of(song_describer.DATASET, tmp_path, 'valid')
    assert {name: item.fields['captions'] for name, item in valid.items()} == {
        '1004300': ['A retro-futurist drum machine.'],
        '77': ['Lost.'],
    }
    records = prepared(song_describer.DATASET, tmp_path, 'valid', 'test')
    assert list(records) == ['1004300']
    assert records['1004300']['source'] == '1004300.2min.mp3'
    assert records['1004300']['captions'] == ['A retro-futurist drum machine.']
