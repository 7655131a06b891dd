"""Datasets of sound classes on miniatures in their official layouts."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from alm_jax.audio import decode
from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.data.catalog import esc50, gtzan, nsynth, urbansound8k, vggsound
from alm_jax.data.catalog.building import builder
from alm_jax.data.catalog.recordings import recording_id

ESC50 = [
    ('1-100032-A-0.wav', 1, 0, 'dog', True, 100032, 'A'),
    ('5-9032-A-0.wav', 5, 0, 'dog', 'TRUE', 9032, 'A'),  # once saved by a spreadsheet
    ('4-132383-B-2.wav', 4, 2, 'crying_baby', False, 132383, 'B'),
]
ESC50_LICENCE = """# ESC-50: Dataset for Environmental Sound Classification

101 - Dog:
- [1-100032-A.ogg]: clip derived from rose_bark.wav (http://www.freesound.org/x/) by nfrae [CC0]
- [5-9032-A.ogg]:  clip derived from [dog] by me (http://www.freesound.org/x/) by a by b [CC-BY]
"""


@pytest.fixture
def esc50_dir(clips, write_csv, tmp_path):
    header = ('filename', 'fold', 'target', 'category', 'esc10', 'src_file', 'take')
    write_csv(tmp_path / 'meta/esc50.csv', header, ESC50)
    for number, row in enumerate(ESC50[:2]):
        clips.write(tmp_path / 'audio' / row[0], number)
    (tmp_path / 'LICENSE').write_text(ESC50_LICENCE)
    return tmp_path


def test_esc50_keeps_folds_and_the_licence_of_every_clip(esc50_dir, items_of, prepared, clips):
    items = items_of(esc50.DATASET, esc50_dir)
    assert {item.split for item in items.values()} == {'test'}
    dog = items['1-100032-A-0.wav']
    assert dog.fields == {
        'label': 'dog',
        'tags': ['esc10'],
        'recording_id': 'freesound/100032',
        'group': 'fold1',
        'author': 'nfrae',
        'licence': 'CC0',
    }
    assert items['5-9032-A-0.wav'].fields['tags'] == ['esc10']
    assert items['5-9032-A-0.wav'].fields['author'] == 'a by b'
    assert items['5-9032-A-0.wav'].fields['licence'] == 'CC-BY'
    lost = items['4-132383-B-2.wav']
    assert lost.audio == ()
    assert lost.fields['label'] == 'crying baby'
    assert esc50.DATASET.fields(lost)['licence'] == 'CC-BY-NC-3.0'
    records = prepared(esc50.DATASET, esc50_dir, split='test')
    assert sorted(records) == ['1-100032-A-0.wav', '5-9032-A-0.wav']
    record = records['5-9032-A-0.wav']
    assert (record['label'], record['group'], record['licence']) == ('dog', 'fold5', 'CC-BY')
    assert record['num_samples'] == pytest.approx(len(clips.samples(1, 16_000)[0]), abs=2)


def test_esc50_folds_are_chosen_by_where(esc50_dir, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp('data')
    builder.build(
        esc50.DATASET, '', esc50_dir, data_dir, builder.Options(allow_missing=True, workers=1)
    )
    source = sources.open_source('esc50:test', data_dir, where={'group': ['fold1', 'fold2']})
    assert [source.id(i) for i in range(len(source))] == ['1-100032-A-0.wav']


def test_a_missing_clip_stops_the_preparation_unless_told(esc50_dir, tmp_path):
    with pytest.raises(ConfigError, match=r'(?s)test: 1 of 3 records: 4-132383-B-2\.wav.*--allow'):
        builder.build(esc50.DATASET, '', esc50_dir, tmp_path / 'data', builder.Options())


def test_esc50_reads_the_zip_of_the_repository(clips, esc50_dir, items_of, tmp_path_factory):
    root = tmp_path_factory.mktemp('zipped')
    archive = clips.zip(root / 'ESC-50-master.zip', {f'ESC-50-master/audio/{ESC50[0][0]}': 0})
    with zipfile.ZipFile(archive, 'a') as file:
        file.write(esc50_dir / 'meta/esc50.csv', 'ESC-50-master/meta/esc50.csv')
    items = items_of(esc50.DATASET, root)
    assert items['1-100032-A-0.wav'].audio[0].member == 'ESC-50-master/audio/1-100032-A-0.wav'
    assert items['1-100032-A-0.wav'].fields['author'] == ''


US8K = [
    ('100032-3-0-0.wav', 100032, 0.0, 0.317551, 1, 5, 3, 'dog_bark'),
    ('100263-2-0-117.wav', 100263, 58.5, 62.5, 2, 10, 2, 'children_playing'),
]
US8K_HEADER = ('slice_file_name', 'fsID', 'start', 'end', 'salience', 'fold', 'classID', 'class')


def test_urbansound8k_finds_slices_in_their_folds(clips, write_csv, items_of, prepared, tmp_path):
    write_csv(tmp_path / 'metadata/UrbanSound8K.csv', US8K_HEADER, US8K)
    clips.write(tmp_path / 'audio/fold5/100032-3-0-0.wav', 0)
    clips.write(tmp_path / 'audio/fold1/100263-2-0-117.wav', 1)  # not where the table says
    items = items_of(urbansound8k.DATASET, tmp_path)
    assert items['100032-3-0-0.wav'].fields == {
        'label': 'dog bark',
        'tags': ['foreground'],
        'recording_id': 'freesound/100032',
        'group': 'fold5',
    }
    assert items['100032-3-0-0.wav'].audio[0].path.endswith('fold5/100032-3-0-0.wav')
    assert items['100263-2-0-117.wav'].audio == ()
    assert items['100263-2-0-117.wav'].fields['group'] == 'fold10'
    assert items['100263-2-0-117.wav'].fields['tags'] == ['background']
    (record,) = prepared(urbansound8k.DATASET, tmp_path, split='test').values()
    assert (record['label'], record['tags']) == ('dog bark', ['foreground'])


def test_urbansound8k_names_the_row_of_a_wrong_cell(write_csv, items_of, tmp_path):
    bad = [*US8K, ('7-1-0-0.wav', 7, 0, 1, 3, 1, 1, 'car_horn')]
    write_csv(tmp_path / 'metadata/UrbanSound8K.csv', US8K_HEADER, bad)
    with pytest.raises(ConfigError, match=r"UrbanSound8K\.csv, row 4: 'salience' is '3'"):
        items_of(urbansound8k.DATASET, tmp_path)


def test_vggsound_has_no_header_and_commas_in_classes(
    clips, write_csv, items_of, prepared, tmp_path
):
    rows = [
        ('---g-f_I2yQ', 1, 'people marching', 'test'),
        ('Yabc-efgh_0', 30, 'bird chirping, tweeting', 'train'),
        ('zzzzzzzzzzz', 115, 'skiing', 'train'),
    ]
    write_csv(tmp_path / 'vggsound.csv', (), rows)
    clips.write(tmp_path / 'audio/---g-f_I2yQ_000001.flac', 0)
    clips.tar(tmp_path / 'audio/vggsound_00.tar', {'scratch/x/Yabc-efgh_0_000030.wav': 1})
    items = items_of(vggsound.DATASET, tmp_path)
    assert [(name, item.split, len(item.audio)) for name, item in items.items()] == [
        ('---g-f_I2yQ_000001', 'test', 1),
        ('Yabc-efgh_0_000030', 'train', 1),
        ('zzzzzzzzzzz_000115', 'train', 0),
    ]
    birds = items['Yabc-efgh_0_000030'].fields
    assert birds == {'label': 'bird chirping, tweeting', 'recording_id': 'youtube/Yabc-efgh_0'}
    (record,) = prepared(vggsound.DATASET, tmp_path, split='train').values()
    assert record['label'] == 'bird chirping, tweeting'
    assert record['num_samples'] == pytest.approx(len(clips.samples(1, 16_000)[0]), abs=2)


@pytest.fixture
def gtzan_dir(clips, tmp_path):
    for number in (0, 54, 99):
        clips.write(tmp_path / f'genres/jazz/jazz.{number:05d}.au', number)
    (tmp_path / 'genres/jazz/jazz.00054.au').write_bytes(b'\0' * 4096)  # the known bad file
    clips.write(tmp_path / 'genres/hiphop/hiphop.00007.wav', 7)
    (tmp_path / 'genres/jazz/._jazz.00001.au').write_bytes(b'\0\5\x16\7')  # macOS' own
    (tmp_path / 'train_filtered.txt').write_text('hiphop/hiphop.00007.wav\njazz/jazz.00001.wav\n')
    (tmp_path / 'valid_filtered.txt').write_text('jazz/jazz.00000.wav\n')
    (tmp_path / 'test_filtered.txt').write_text('jazz/jazz.00099.wav\n')
    return tmp_path


def test_gtzan_lists_a_thousand_clips(gtzan_dir, items_of):
    items = items_of(gtzan.DATASET, gtzan_dir)
    assert len(items) == 1000
    assert {item.split for item in items.values()} == {'test'}
    found = {name for name, item in items.items() if item.audio}
    assert found == {'jazz.00000', 'jazz.00054', 'jazz.00099', 'hiphop.00007'}
    fields = {'label': 'hiphop', 'tags': ['hiphop'], 'recording_id': 'gtzan/hiphop.00007'}
    assert items['hiphop.00007'].fields == fields


def test_gtzan_names_the_clip_that_cannot_be_decoded(gtzan_dir, tmp_path_factory):
    lists = {'train': 'hiphop.00007', 'valid': 'jazz.00000', 'test': 'jazz.00054'}
    for part, name in lists.items():
        line = f'{name.split(".")[0]}/{name}.wav\n'
        (gtzan_dir / f'{part}_filtered.txt').write_text(line)
    with (gtzan_dir / 'test_filtered.txt').open('a') as file:
        file.write('jazz/jazz.00099.wav\n')
    data_dir = tmp_path_factory.mktemp('data')
    with pytest.raises(ConfigError, match=r'(?s)1 records cannot be decoded:\n  jazz\.00054'):
        builder.build(gtzan.DATASET, 'filtered', gtzan_dir, data_dir, builder.Options(workers=1))
    allowed = builder.Options(allow_missing=True, workers=1)
    builder.build(gtzan.DATASET, 'filtered', gtzan_dir, data_dir, allowed)
    source = sources.open_source('gtzan/filtered:test', data_dir)
    assert [source.id(i) for i in range(len(source))] == ['jazz.00099']
    assert (source[0]['kind'], source[0]['label']) == ('music', 'jazz')


def test_gtzan_filtered_follows_the_lists(gtzan_dir, items_of):
    items = items_of(gtzan.DATASET, gtzan_dir, 'filtered')
    assert [(name, item.split, len(item.audio)) for name, item in items.items()] == [
        ('hiphop.00007', 'train', 1),
        ('jazz.00001', 'train', 0),
        ('jazz.00000', 'validation', 1),
        ('jazz.00099', 'test', 1),
    ]
    (gtzan_dir / 'valid_filtered.txt').unlink()
    with pytest.raises(ConfigError, match=r'valid_filtered\.txt.* is not in'):
        items_of(gtzan.DATASET, gtzan_dir, 'filtered')


def nsynth_note(name, family, source, pitch, qualities=()):
    return {
        'note': 201034,
        'note_str': name,
        'instrument_str': name.rsplit('-', 2)[0],
        'instrument_family_str': family,
        'instrument_source_str': source,
        'pitch': pitch,
        'velocity': 127,
        'sample_rate': 16000,
        'qualities': [0] * 10,
        'qualities_str': list(qualities),
    }


def test_nsynth_tells_what_a_note_is(clips, items_of, prepared, tmp_path):
    notes = {
        'train': [('keyboard_acoustic_004-060-025', 'keyboard', 'acoustic', 60, ['bright'])],
        'valid': [('synth_lead_synthetic_011-021-127', 'synth_lead', 'synthetic', 21, ())],
        'test': [('bass_electronic_018-097-050', 'bass', 'electronic', 97, ['long_release'])],
    }
    for part, described in notes.items():
        table = {note[0]: nsynth_note(*note) for note in described}
        folder = f'nsynth-{part}'
        if part == 'train':  # as fetched
            archive = tmp_path / 'nsynth-train.jsonwav.tar.gz'
            with tarfile.open(archive, 'w:gz') as tar:
                for name, content in (
                    (f'{folder}/examples.json', json.dumps(table).encode()),
                    (f'{folder}/audio/{described[0][0]}.wav', clips.content('wav', 0, 16_000)),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        else:
            clips.write(tmp_path / folder / f'audio/{described[0][0]}.wav', 1, 16_000)
            (tmp_path / folder / 'examples.json').write_text(json.dumps(table))
    items = items_of(nsynth.DATASET, tmp_path)
    assert [(item.split, len(item.audio), *item.fields['captions']) for item in items.values()] == [
        ('train', 1, 'An acoustic keyboard plays the note C 4: bright.'),
        ('validation', 1, 'A synthetic synth lead plays the note A 0.'),
        ('test', 1, 'An electronic bass plays the note C sharp 7: long release.'),
    ]
    bass = nsynth.DATASET.fields(items['bass_electronic_018-097-050'])
    assert bass['tags'] == ['bass', 'electronic', 'long release']
    assert (bass['label'], bass['kind']) == ('bass', 'instrument')
    assert bass['group'] == 'nsynth/bass_electronic_018'
    assert bass['provenance'] == 'generated: template'
    (record,) = prepared(nsynth.DATASET, tmp_path).values()
    assert record['captions'] == ['An acoustic keyboard plays the note C 4: bright.']
    np.testing.assert_allclose(
        record['audio'], decode.to_pcm16(clips.samples(0, 16_000)[0]), rtol=0, atol=1
    )


@pytest.mark.parametrize(
    ('path', 'recording'),
    [
        ('ESC-50/audio/5-9032-A-0.wav', 'freesound/9032'),
        ('UrbanSound8K/audio/fold5/100032-3-0-0.wav', 'freesound/100032'),
        ('vggsound/Yabc-efgh_0_000030.flac', 'youtube/Yabc-efgh_0'),
        ('GTZAN/genres/hiphop/hiphop.00007.wav', 'gtzan/hiphop.00007'),
        ('nsynth-test/bass_electronic_018-097-050.wav', 'nsynth/bass_electronic_018-097-050'),
        (
            'audio/public_square-helsinki-111-3230-a.wav',
            'tau2019/public_square-helsinki-111-3230-a',
        ),
    ],
)
def test_a_manifest_over_these_corpora_names_the_same_recordings(path, recording):
    assert recording_id(path) == recording
