"""Blocklists in our format and the published ones, on real recordings and on a million rows."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data import index, record, sources
from alm_jax.data.hygiene import blocklists


@pytest.fixture
def entry(recordings):
    return {'folder': str(recordings), 'captions': 'captions.csv', 'split': 'test'}


def _index(*recording_ids: str, ids=()) -> index.Index:
    ids = ids or [f'clips/{number:03}.wav' for number in range(len(recording_ids))]
    fields = zip(ids, recording_ids)
    return index.Index.of({**record.DEFAULTS, 'id': i, 'recording_id': r} for i, r in fields)


def _kept(path, of: index.Index) -> list[int]:
    return blocklists.rows_not_blocked(of, [blocklists.read(path)]).tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ids=st.lists(st.text(st.characters(exclude_categories=('Cs',)), min_size=1), min_size=1))
def test_any_ids_are_read_as_they_were_written(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp('lists') / 'blocked.txt'
    blocklists.write(path, ['made by a test'], [('first', ids[:1]), ('then\nthe rest', ids[1:])])
    found = blocklists.read(path)
    assert found.ids == set(ids)
    assert found.recordings.values.tolist() == sorted({record.stable_hash(i) for i in ids})


def test_a_line_blocks_the_recording_and_the_record_of_that_name(entry, tmp_path):
    whole = sources.open_source(entry, tmp_path)
    path = tmp_path / 'blocked.txt'
    path.write_text('# made by hand\n\ndefault_break_glass\nfire_large.ogg\n')
    left = sources.open_source({**entry, 'blocklists': (str(path),)}, tmp_path)
    gone = set(whole.columns['id']) - set(left.columns['id'])
    assert gone == {f'default_break_glass.{i}.ogg' for i in (1, 2, 3)} | {'fire_large.ogg'}


def test_wavcaps_json_names_videos_and_freesound_numbers(tmp_path):
    path = tmp_path / 'blacklist_exclude_all_ac.json'
    content = {'AudioSet': ['Yr1nicOVtvkQ.wav', 'Y-5weqk40jaI.wav'], 'FreeSound': ['117790']}
    path.write_text(json.dumps(content))
    of = _index(
        'youtube/r1nicOVtvkQ',
        'youtube/-5weqk40jaI',
        'freesound/117790',
        'freesound/1177900',
        'youtube/Yr1nicOVtvk',
        'soundbible/117790',
    )
    assert _kept(path, of) == [3, 4, 5]


def test_aac_datasets_csv_counts_what_it_could_not_trace(tmp_path, caplog):
    path = tmp_path / 'blacklist_clotho.full.csv'
    path.write_text('index,id\n0,117790\n761,Not found\n762,74504\n1054,Not found\n')
    of = _index('freesound/117790', 'freesound/74504', 'freesound/7')
    assert _kept(path, of) == [2]
    assert blocklists.read(path).skipped == 2
    assert '2 entries name no recording' in caplog.text
    path.write_text('index,id\n0,Yr1nicOVtvkQ.wav\n')
    assert _kept(path, _index('youtube/r1nicOVtvkQ', 'freesound/117790')) == [1]


@pytest.mark.parametrize(
    ('name', 'value', 'blocked'),
    [
        ('audioset_in_audiocaps', 'Yusasw640oaU.wav', 'youtube/usasw640oaU'),
        ('audiocaps_in_vggsound', 'Zvv6Jl2K52g', 'youtube/Zvv6Jl2K52g'),
        ('multis_in_audioset', '1iR8szT4Rj8_250.000_260.000.wav', 'youtube/1iR8szT4Rj8'),
        ('favdbench_in_audioset', 'train/8DU-J83TMfA_30000_40000.wav', 'youtube/8DU-J83TMfA'),
        ('fsd50k_in_clotho', '203830', 'freesound/203830'),
    ],
)
def test_survey_csv_of_a_site_names_recordings(tmp_path, name, value, blocked):
    path = tmp_path / f'{name}.csv'
    path.write_text(f'file_name\n{value}\n')
    assert _kept(path, _index('freesound/1', blocked, 'youtube/aaaaaaaaaaa')) == [0, 2]


def test_survey_csv_of_numbered_files_names_files_and_no_recordings(tmp_path):
    path = tmp_path / 'freesound_in_clotho.csv'
    path.write_text('file_name\ntrain/39065.flac\n"Wind Chimes, ME.A1.wav"\n')
    ids = ['laion/train/39065.flac', 'laion/139065.flac', 'development/Wind Chimes, ME.A1.wav']
    # LAION's file 39065 is not Freesound's sound 39065.
    of = _index('freesound/1', 'freesound/39065', 'freesound/2', ids=ids)
    assert _kept(path, of) == [1]


def test_a_list_of_another_dataset_is_told(recordings, entry, tmp_path, caplog):
    path = tmp_path / 'blocked.txt'
    path.write_text('youtube/r1nicOVtvkQ\n')
    left = sources.open_source({**entry, 'blocklists': (str(path),)}, tmp_path)
    assert len(left) == 17
    assert 'names none of 17 records' in caplog.text
    assert 'another dataset' in caplog.text


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('absent.txt', None, 'cannot be read'),
        ('empty.txt', '\n', 'names no record'),
        ('empty.csv', 'index,id\n', 'names no record'),
        ('broken.txt', '"never closed\n', 'line 1: not JSON'),
        ('broken.json', '{"AudioSet": ', 'not JSON'),
        ('list.json', '["Yr1nicOVtvkQ.wav"]', 'expected'),
        ('other.json', '{"Audioset": ["Yr1nicOVtvkQ.wav"]}', "Did you mean 'AudioSet'"),
        ('other.csv', 'youtube_id\nr1nicOVtvkQ\n', "no column 'id' or 'file_name'"),
    ],
)
def test_mistakes_are_told_by_file(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message) as raised:
        blocklists.read(tmp_path / name)
    assert name in str(raised.value)


def test_a_search_that_found_nothing_leaves_a_list_that_blocks_nothing(tmp_path):
    path = tmp_path / 'blocked.txt'
    blocklists.write(path, ['nothing found'], [])
    assert _kept(path, _index('freesound/1', 'freesound/2')) == [0, 1]


def test_a_million_records_are_filtered_in_stretches(million, tmp_path):
    path = tmp_path / 'blocked.txt'
    path.write_text('\n'.join(f'recordings/{i}' for i in range(0, 1_000_000, 1000)))
    blocked = blocklists.read(path)
    kept = blocklists.rows_not_blocked(million, [blocked])
    assert kept.dtype == np.uint32
    assert np.setdiff1d(np.arange(1_000_000), kept).tolist() == list(range(0, 1_000_000, 1000))
