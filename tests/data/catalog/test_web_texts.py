"""Datasets with texts of web sites or listeners, on miniatures in their official layouts."""

import collections
import io
import json
import pickle
import tarfile

import pytest
import yaml

from alm_jax.config import ConfigError
from alm_jax.data.catalog import (
    laion_audio_630k,
    laion_audio_630k_tables,
    macs,
    sounddescs,
    wavtext5k,
)

WAVTEXT_HEADER = ('view_link', 'download_link', 'title', 'description', 'fname', 'tags')
BIG = 'https://bigsoundbank.com/UPLOAD/wav/'
SB = 'https://soundbible.com/grab.php?id='


def test_wavtext5k_takes_what_text_there_is(clips, write_csv, items_of, prepared, tmp_path):
    rows = [
        ('v', f'{BIG}0100.wav', 'Forest', 'Birds singing, drive away, fly.', '0100.wav', ''),
        ('v', f'{BIG}0477.wav', 'Wilhelm scream', '', '0477.wav', ''),
        ('v', f'{SB}7&type=wav', 'Gun', ' A "gun".', 'anti gun_2114.wav', "['gun', 'war']"),
    ]
    write_csv(tmp_path / 'WavText5K.csv', WAVTEXT_HEADER, rows)
    clips.write(tmp_path / 'download/0100.wav', 0)
    clips.write(tmp_path / '44100/audios/anti gun_2114.wav', 1)
    items = items_of(wavtext5k.DATASET, tmp_path)
    assert [len(item.audio) for item in items.values()] == [1, 0, 1]
    forest, scream, gun = (item.fields for item in items.values())
    assert forest['captions'] == ['Birds singing, drive away, fly.', 'Forest']
    assert scream['captions'] == ['Wilhelm scream']
    assert gun['captions'] == ['A "gun".', 'Gun']
    assert (forest['tags'], gun['tags']) == ([], ['gun', 'war'])
    assert forest['recording_id'] == 'bigsoundbank/0100'
    assert gun['recording_id'] == 'soundbible/7'
    record = prepared(wavtext5k.DATASET, tmp_path)['anti gun_2114.wav']
    assert (record['captions'], record['provenance']) == (['A "gun".', 'Gun'], 'web')
    assert (record['package'], record['source']) == ('soundbible', 'anti gun_2114.wav')


def test_markup_that_the_crawler_left_among_the_tags_is_dropped(write_csv, items_of, tmp_path):
    cell = '[\'arrow\', <li><i class="icofont"></i> <a href="x">bow</a></li>, \'bow and arrow\']'
    row = ('v', f'{BIG}0100.wav', 'Arrow', '', '0100.wav', cell)
    write_csv(tmp_path / 'WavText5K.csv', WAVTEXT_HEADER, [row])
    (item,) = items_of(wavtext5k.DATASET, tmp_path).values()
    assert item.fields['tags'] == ['arrow', 'bow and arrow']


@pytest.mark.parametrize('cell', ['[open("x")]', 'dog, cat', '[1]', '["dog"'])
def test_a_tags_cell_that_is_no_list_of_texts_is_named(cell, write_csv, items_of, tmp_path):
    row = ('v', f'{BIG}0100.wav', 'Forest', '', '0100.wav', cell)
    write_csv(tmp_path / 'WavText5K.csv', WAVTEXT_HEADER, [row])
    with pytest.raises(ConfigError, match=r"row 2: 'tags' is .* expected a list"):
        items_of(wavtext5k.DATASET, tmp_path)


@pytest.fixture
def sounddescs_dir(clips, tmp_path):
    descriptions = {'07051146': 'Door, creaking.', 'nhu05102079': ' Birds ', '23085': 'Rain'}
    categories = collections.defaultdict(list)  # as the official table is stored
    categories['07051146'].append('Daily Life')
    categories['nhu05102079'].extend(['Nature', 'Birds'])
    for name, table in (('descriptions', descriptions), ('categories', categories)):
        (tmp_path / f'{name}.pkl').write_bytes(pickle.dumps(table, 3))
    (tmp_path / 'train_list.txt').write_text('07051146\n23085\n')
    (tmp_path / 'val_list.txt').write_text('nhu05102079\n')
    (tmp_path / 'test_list.txt').write_text('07000000\n')
    clips.write(tmp_path / 'audios/07051146/07051146.wav', 0)
    member = {'NHU05102079.wav': 1}
    clips.zip(tmp_path / 'zip_audios/nhu05102079/NHU05102079.wav.zip', member)
    return tmp_path


def test_sounddescs_reads_its_tables_without_pickle(sounddescs_dir, items_of, prepared):
    items = items_of(sounddescs.DATASET, sounddescs_dir)
    assert [(name, item.split, len(item.audio)) for name, item in items.items()] == [
        ('07051146', 'train', 1),
        ('23085', 'train', 0),
        ('nhu05102079', 'validation', 1),
        ('07000000', 'test', 0),
    ]
    birds = items['nhu05102079']
    assert birds.audio[0].member == 'NHU05102079.wav'
    assert birds.fields == {
        'captions': ['Birds'],
        'tags': ['Nature', 'Birds'],
        'recording_id': 'bbc/NHU05102079',
    }
    assert items['23085'].fields['tags'] == []
    assert items['07000000'].fields['captions'] == []
    (record,) = prepared(sounddescs.DATASET, sounddescs_dir, split='validation').values()
    assert (record['captions'], record['licence']) == (['Birds'], 'RemArc: non-commercial')


def test_sounddescs_runs_nothing_that_a_table_names(sounddescs_dir, items_of):
    (sounddescs_dir / 'descriptions.pkl').write_bytes(b'cos\nsystem\n(S"true"\ntR.')
    with pytest.raises(ConfigError, match=r'descriptions\.pkl: .*os system.* never done'):
        items_of(sounddescs.DATASET, sounddescs_dir)


def macs_table(*filenames):
    notes = [
        {'annotator_id': 54, 'sentence': 'people talk, a bird sings', 'tags': ['adults talking']},
        {'annotator_id': 7, 'sentence': 'steps: a café', 'tags': ['footsteps', 'adults talking']},
    ]
    return yaml.safe_dump(
        {'files': [{'filename': name, 'annotations': notes} for name in filenames]},
        allow_unicode=True,
    )


def test_macs_joins_what_several_listeners_wrote(clips, items_of, prepared, tmp_path):
    names = ('public_square-helsinki-111-3230-a.wav', 'airport-barcelona-0-0-a.wav')
    (tmp_path / 'MACS.yaml').write_text(macs_table(*names), encoding='utf-8')
    tau = 'TAU-urban-acoustic-scenes-2019-development'
    clips.zip(tmp_path / f'{tau}.audio.1.zip', {f'{tau}/audio/{names[0]}': 0})
    items = items_of(macs.DATASET, tmp_path)
    square = items[names[0]]
    assert square.audio[0].path.endswith('.audio.1.zip')
    assert square.fields == {
        'captions': ['people talk, a bird sings', 'steps: a café'],
        'tags': ['adults talking', 'footsteps'],
        'label': 'public square',
        'group': f'{tau}/helsinki-111',
        'recording_id': 'tau2019/public_square-helsinki-111-3230-a',
    }
    assert items[names[1]].audio == ()
    (record,) = prepared(macs.DATASET, tmp_path).values()
    assert record['captions'] == ['people talk, a bird sings', 'steps: a café']


def test_macs_refuses_objects_in_yaml_and_odd_names(items_of, tmp_path):
    (tmp_path / 'MACS.yaml').write_text('files: !!python/object/apply:os.getcwd []')
    with pytest.raises(ConfigError, match=r'MACS\.yaml cannot be read as YAML'):
        items_of(macs.DATASET, tmp_path)
    (tmp_path / 'MACS.yaml').write_text(macs_table('airport.wav'))
    with pytest.raises(ConfigError, match=r"files\[0\]: 'filename' is 'airport\.wav'"):
        items_of(macs.DATASET, tmp_path)


def pack(path, samples):
    """A WebDataset tar: (name, ending, content) of every member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as tar:
        for name, ending, content in samples:
            info = tarfile.TarInfo(f'{name}.{ending}')
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def freesound_json(number, *texts):
    about = {'id': number, 'username': 'someone', 'title': 'x', 'tags': ['a'], 'description': ''}
    return json.dumps({'text': texts, 'tag': ['dog', 'bark'], 'original_data': about}).encode()


def test_laion_audio_630k_reads_tars(clips, write_csv, items_of, prepared, tmp_path):
    root = tmp_path / 'freesound_no_overlap'
    flac = clips.content('flac', 0, 48_000)
    json_1 = freesound_json(282776, 'DSI Tetra - B4.', 'Single note sampled.')
    json_2 = freesound_json(158824, 'futuresoundfx-795.', '.')
    pack(root / 'train_1/0.tar', [('2', 'flac', flac), ('2', 'json', json_1)])
    pack(root / 'train_2/0.tar', [('2', 'json', json_2)])
    pack(root / 'test/0.tar', [('9', 'flac', flac), ('9', 'json', freesound_json(7, 'Bark'))])
    (root / 'sizes.json').write_text('{"0.tar": 1}')
    header = ('audio_filename', 'caption_1', 'freesound_id', 'username', 'license')
    cc0 = 'http://creativecommons.org/publicdomain/zero/1.0/'
    rows = [('train_1/2.flac', 'x', '282776.0', 'someone', cc0)]  # pandas wrote numbers so
    write_csv(tmp_path / 'freesound_no_overlap_meta.csv', header, rows)
    items = items_of(laion_audio_630k.DATASET, tmp_path)
    assert {name: (item.split, len(item.audio)) for name, item in items.items()} == {
        'train_1/0/2': ('train', 1),
        'train_2/0/2': ('train', 0),  # its audio is not in the tar
        'test/0/9': ('test', 1),
    }
    assert items['train_1/0/2'].fields == {
        'captions': ['DSI Tetra - B4.', 'Single note sampled.'],
        'tags': ['dog', 'bark'],
        'author': 'someone',
        'recording_id': 'freesound/282776',
        'licence': 'CC0-1.0',
    }
    assert items['train_2/0/2'].fields['captions'] == ['futuresoundfx-795.']
    assert items['train_2/0/2'].fields['licence'] == laion_audio_630k.DATASET.licence
    (record,) = prepared(laion_audio_630k.DATASET, tmp_path).values()
    assert (record['id'], record['licence'], record['source']) == (
        'train_1/0/2',
        'CC0-1.0',
        '2.flac',
    )
    assert record['num_samples'] == pytest.approx(len(clips.samples(0, 16_000)[0]), abs=2)


def test_laion_audio_630k_of_the_bbc_has_one_text_and_no_more(clips, items_of, tmp_path):
    flac = clips.content('flac', 0, 48_000)
    place = 'mnt/audio_clip/processed_datasets/BBCSoundEffects/train/12'
    text = b'{"text": "Busy French Village Street"}'
    pack(tmp_path / 'bbc/train/3.tar', [(place, 'flac', flac), (place, 'json', text)])
    items = items_of(laion_audio_630k.DATASET, tmp_path, 'bbc')
    fields = laion_audio_630k.DATASET.fields(items['train/3/12'])
    assert fields['captions'] == ['Busy French Village Street']
    assert fields['recording_id'] == 'laion_audio_630k/train/3/12'
    assert fields['tags'] == []


def test_laion_audio_630k_tables_find_files_by_number_or_address(
    clips, write_csv, items_of, prepared, tmp_path
):
    header = ('url', 'caption1', 'caption2', 'caption_t5', 'id')
    address = (
        'https://x.cloudfront.net/ES_ITUNES/Wrestling%20Crowd%205/ES_Wrestling%20Crowd%205.mp3'
    )
    rows = [
        (address, 'Wrestling Crowd', 'the sounds of crowd, and loop.', 'a crowd loops.', '130586'),
        ('https://x/ES_Fire.mp3', 'Fire', '', '', '7'),
    ]
    write_csv(tmp_path / 'Epidemic_all_debiased.csv', header, rows)
    clips.write(tmp_path / 'epidemic_sound/ES_Wrestling Crowd 5.mp3', 0)
    clips.write(tmp_path / 'epidemic_sound/7.mp3', 1)
    items = items_of(laion_audio_630k_tables.DATASET, tmp_path, 'epidemic_sound')
    assert [len(item.audio) for item in items.values()] == [1, 1]
    crowd = laion_audio_630k_tables.DATASET.fields(items['130586'])
    assert crowd['captions'] == ['Wrestling Crowd', 'the sounds of crowd, and loop.']
    assert (crowd['provenance'], crowd['package']) == ('web', 'epidemic_sound')
    assert crowd['recording_id'] == 'epidemic_sound/130586'
    items = items_of(laion_audio_630k_tables.DATASET, tmp_path, 'epidemic_sound_t5')
    made = laion_audio_630k_tables.DATASET.fields(items['130586'])
    assert (made['captions'], made['provenance']) == (['a crowd loops.'], 'generated: T5')
    assert items['7'].fields['captions'] == []

    rows = [('https://audiostock.net/audio/1150592/play', 'Bubble 02')]
    write_csv(tmp_path / 'Audiostock.csv', ('url', 'caption1'), rows)
    clips.write(tmp_path / 'audiostock/1150592.mp3', 2)
    items = items_of(laion_audio_630k_tables.DATASET, tmp_path, 'audiostock')
    assert items['1150592'].fields['captions'] == ['Bubble 02']
    assert len(items['1150592'].audio) == 1
    (record,) = prepared(laion_audio_630k_tables.DATASET, tmp_path, 'audiostock').values()
    assert (record['captions'], record['package']) == (['Bubble 02'], 'audiostock')
