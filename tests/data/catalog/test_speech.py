"""Speech datasets on miniatures in their official layouts, of real English speech."""

import collections
import shutil

import numpy as np
import pytest
import soundfile

from alm_jax.audio import decode
from alm_jax.audio.resample import resample
from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.data.catalog import crema_d, librispeech, ravdess, speech_commands


class Speech:
    """Real utterances with transcripts; ``write(path, n, rate)`` writes one in any format."""

    def __init__(self, source):
        indices = source.sorted_indices()[:12]
        self._records = [source[int(i)] for i in indices]

    def transcript(self, number):
        return self._records[number]['transcript']

    def write(self, path, number, rate=16_000):
        record = self._records[number % len(self._records)]
        x = resample(decode.from_pcm16(record['audio']), record['rate'], rate)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.clip(x, -1, 1), rate, 'PCM_16')
        return path


@pytest.fixture(scope='module')
def speech(packaged_tiny):
    where = {'kind': 'speech', 'duration': {'min': 0.5, 'max': 4.0}}
    return Speech(sources.open_source('packaged_sounds/tiny:train', packaged_tiny, where))


@pytest.fixture(scope='module')
def commands_dir(speech, tmp_path_factory):
    """Speech Commands v0.02: two speakers in test and validation, one in train, noise."""
    root = tmp_path_factory.mktemp('speech_commands')
    names = ('yes/0a7c2a8d_nohash_0.wav', 'yes/0a7c2a8d_nohash_1.wav', 'no/00f0204f_nohash_0.wav')
    for number, name in enumerate((*names, '_background_noise_/dude_miaowing.wav')):
        speech.write(root / name, number)
    (root / 'validation_list.txt').write_text('no/00f0204f_nohash_0.wav\n')
    (root / 'testing_list.txt').write_text(
        'yes/ffd2ba2f_nohash_0.wav\nstop/ffd2ba2f_nohash_2.wav\n'
    )
    speech.write(root / 'yes/ffd2ba2f_nohash_0.wav', 5)
    (root / 'LICENSE').write_text('CC-BY 4.0')
    (root / 'README.md').write_text('v0.02')
    return root


def test_speech_commands_follows_the_official_lists(commands_dir, items_of):
    items = items_of(speech_commands.DATASET, commands_dir)
    assert {name: item.split for name, item in items.items()} == {
        'yes/0a7c2a8d_nohash_0.wav': 'train',
        'yes/0a7c2a8d_nohash_1.wav': 'train',
        'no/00f0204f_nohash_0.wav': 'validation',
        'yes/ffd2ba2f_nohash_0.wav': 'test',
        'stop/ffd2ba2f_nohash_2.wav': 'test',
        '_background_noise_/dude_miaowing.wav': 'noise',
    }
    fields = speech_commands.DATASET.fields(items['yes/0a7c2a8d_nohash_1.wav'])
    assert fields['transcript'] == fields['label'] == 'yes'
    assert fields['group'] == 'speech_commands/0a7c2a8d'
    assert fields['recording_id'] == 'speech_commands/yes/0a7c2a8d_nohash_1.wav'
    noise = speech_commands.DATASET.fields(items['_background_noise_/dude_miaowing.wav'])
    assert (noise['kind'], noise['language'], noise['label']) == ('sound', '', '')


def test_speech_commands_lists_an_utterance_that_is_not_on_disk(commands_dir, items_of):
    items = items_of(speech_commands.DATASET, commands_dir)
    missing = [name for name, item in items.items() if not item.audio]
    assert missing == ['stop/ffd2ba2f_nohash_2.wav']


def test_speech_commands_reads_the_archive_as_fetched(commands_dir, items_of, tmp_path):
    archive = tmp_path / 'speech_commands_v0.02'
    shutil.make_archive(str(archive), 'gztar', commands_dir, '.')  # members begin with './'
    packed = items_of(speech_commands.DATASET, tmp_path)
    unpacked = items_of(speech_commands.DATASET, commands_dir)
    assert {k: (v.split, v.fields) for k, v in packed.items()} == {
        k: (v.split, v.fields) for k, v in unpacked.items()
    }


@pytest.fixture(scope='module')
def libri_dir(speech, tmp_path_factory):
    """LibriSpeech with three subsets; one utterance of dev-clean has no audio."""
    root = tmp_path_factory.mktemp('librispeech')
    number = 0
    for subset, speaker, chapter, count in (
        ('train-clean-100', 103, 1240, 3),
        ('train-clean-360', 14, 208, 1),
        ('dev-clean', 1272, 128104, 2),
        ('test-clean', 1089, 134686, 2),
    ):
        folder = root / 'LibriSpeech' / subset / str(speaker) / str(chapter)
        lines = []
        for n in range(count):
            utterance = f'{speaker}-{chapter}-{n:04d}'
            speech.write(folder / f'{utterance}.flac', number)
            lines.append(f'{utterance} {speech.transcript(number).upper()}\n')
            number += 1
        (folder / f'{speaker}-{chapter}.trans.txt').write_text(''.join(lines))
    (root / 'LibriSpeech/dev-clean/1272/128104/1272-128104-0001.flac').unlink()
    (root / 'LibriSpeech/SPEAKERS.TXT').write_text(';ID  |SEX| SUBSET\n103 | F | train-clean-100\n')
    return root


def test_librispeech_reads_transcripts_and_subsets(libri_dir, items_of, speech):
    items = items_of(librispeech.DATASET, libri_dir, 'clean_100')
    assert {name: item.split for name, item in items.items()} == {
        '103-1240-0000': 'train',
        '103-1240-0001': 'train',
        '103-1240-0002': 'train',
        '1272-128104-0000': 'validation',
        '1272-128104-0001': 'validation',
        '1089-134686-0000': 'test',
        '1089-134686-0001': 'test',
    }
    fields = librispeech.DATASET.fields(items['103-1240-0001'])
    assert fields['transcript'] == speech.transcript(1).upper()
    assert fields['recording_id'] == 'librispeech/103-1240-0001'
    assert (fields['group'], fields['language']) == ('librispeech/103', 'en')
    assert fields['source'] == '103-1240-0001.flac'
    assert [name for name, item in items.items() if not item.audio] == ['1272-128104-0001']


def test_librispeech_clean_has_360_hours_more(libri_dir, items_of):
    items = items_of(librispeech.DATASET, libri_dir, 'clean')
    assert items['14-208-0000'].split == 'train'
    assert len(items) == 8


@pytest.mark.parametrize('config', ['all', 'other'])
def test_librispeech_names_the_subset_that_a_config_lacks(libri_dir, items_of, config):
    with pytest.raises(ConfigError, match=r'LibriSpeech/train-other-500.*is not in(?s:.*)openslr'):
        items_of(librispeech.DATASET, libri_dir, config)


@pytest.fixture
def crema_dir(speech, tmp_path, write_csv):
    names = ('1001_IEO_NEU_XX', '1001_IEO_HAP_LO', '1002_WSI_ANG_XX', '1040_ITH_SAD_XX')
    names += ('1064_IEO_DIS_MD', '1076_MTI_SAD_XX', '1009_DFA_FEA_XX')
    for number, name in enumerate(names[:-1]):
        speech.write(tmp_path / f'AudioWAV/{name}.wav', number)
    # The one file of the distribution that its own list calls otherwise.
    wav = tmp_path / 'AudioWAV'
    (wav / '1040_ITH_SAD_XX.wav').rename(wav / '1040_ITH_SAD_X.wav')
    rows = [[number, name] for number, name in enumerate(names, start=1)]
    write_csv(tmp_path / 'SentenceFilenames.csv', ['Stimulus_Number', 'Filename'], rows)
    header = ['ActorID', 'Age', 'Sex', 'Race', 'Ethnicity']
    rows = [[a, 51, s, 'Caucasian', 'Not Hispanic'] for a, s in ((1001, 'Male'), (1002, 'Female'))]
    write_csv(tmp_path / 'VideoDemographics.csv', header, rows)
    return tmp_path


def test_crema_d_decodes_its_file_names(crema_dir, items_of):
    items = items_of(crema_d.DATASET, crema_dir)
    low = crema_d.DATASET.fields(items['1001_IEO_HAP_LO'])
    assert low['label'] == 'happiness'
    assert low['transcript'] == "It's eleven o'clock."
    assert low['tags'] == ['low intensity', 'male']
    assert low['group'] == 'crema_d/1001'
    assert items['1002_WSI_ANG_XX'].fields['tags'] == ['female']
    assert items['1040_ITH_SAD_XX'].audio[0].path.endswith('1040_ITH_SAD_X.wav')
    assert items['1009_DFA_FEA_XX'].audio == ()


def test_crema_d_splits_by_actor_and_keeps_faulty_clips_apart(crema_dir, items_of):
    items = items_of(crema_d.DATASET, crema_dir)
    splits = {name: item.split for name, item in items.items()}
    assert splits['1001_IEO_NEU_XX'] == splits['1001_IEO_HAP_LO'] == 'validation'
    assert splits['1002_WSI_ANG_XX'] == 'test'
    assert splits['1064_IEO_DIS_MD'] == splits['1076_MTI_SAD_XX'] == 'faulty'


def test_crema_d_names_the_row_of_a_code_it_does_not_know(crema_dir, items_of):
    with (crema_dir / 'SentenceFilenames.csv').open('a') as file:
        file.write('8,1001_XYZ_NEU_XX\n')
    with pytest.raises(ConfigError, match=r"SentenceFilenames.csv, row 9: 'Filename' is '1001_XYZ"):
        items_of(crema_d.DATASET, crema_dir)


@pytest.fixture(scope='module')
def ravdess_dir(speech, tmp_path_factory):
    """Actors 1 and 24 unpacked, actor 22 in the zip; one song."""
    root = tmp_path_factory.mktemp('ravdess')
    for number, name in enumerate(
        ('01/03-01-01-01-01-01-01', '01/03-01-08-02-02-02-01', '24/03-01-06-01-02-01-24')
    ):
        speech.write(root / f'Actor_{name}.wav', number, 48_000)
    inside = root / 'unpacked'
    speech.write(inside / 'Actor_22/03-01-05-02-01-01-22.wav', 4, 48_000)
    shutil.make_archive(str(root / 'Audio_Speech_Actors_01-24'), 'zip', inside)
    shutil.rmtree(inside)
    speech.write(root / 'Audio_Song_Actors_01-24/Actor_02/03-02-04-01-02-02-02.wav', 5, 48_000)
    return root


def test_ravdess_expects_all_that_its_design_gives(ravdess_dir, items_of):
    items = items_of(ravdess.DATASET, ravdess_dir, 'all')
    channels = collections.Counter(name[3:5] for name in items)
    assert channels == {'01': 1440, '02': 1012}  # as its authors count
    here = {name: item for name, item in items.items() if item.audio}
    assert {name: item.split for name, item in here.items()} == {
        '03-01-01-01-01-01-01': 'train',
        '03-01-08-02-02-02-01': 'train',
        '03-01-05-02-01-01-22': 'validation',
        '03-01-06-01-02-01-24': 'test',
        '03-02-04-01-02-02-02': 'train',
    }
    angry = ravdess.DATASET.fields(here['03-01-05-02-01-01-22'])
    assert angry['label'] == 'angry'
    assert angry['tags'] == ['strong intensity', 'female']
    assert angry['transcript'] == 'Kids are talking by the door.'
    assert angry['source'] == '03-01-05-02-01-01-22.wav'
    song = ravdess.DATASET.fields(here['03-02-04-01-02-02-02'])
    assert (song['kind'], song['tags'][-1]) == ('music', 'singing')
    groups = {item.fields['group']: item.split for item in items.values()}
    assert len(groups) == 24  # no actor in two splits


def test_prepared_librispeech(libri_dir, prepared):
    records = prepared(librispeech.DATASET, libri_dir, 'clean_100')
    assert list(records) == ['103-1240-0000', '103-1240-0001', '103-1240-0002']
    for record in records.values():
        assert 0.4 < record['duration'] < 4.1
        assert record['group'] == 'librispeech/103'


def test_prepared_speech_commands_noise_is_a_split(commands_dir, prepared):
    (noise,) = prepared(speech_commands.DATASET, commands_dir, split='noise').values()
    assert (noise['kind'], noise['transcript']) == ('sound', '')


def test_prepared_crema_d(crema_dir, prepared):
    records = prepared(crema_d.DATASET, crema_dir, split='validation')
    assert sorted(record['label'] for record in records.values()) == ['happiness', 'neutral']


def test_prepared_ravdess_is_resampled(ravdess_dir, prepared):
    (record,) = prepared(ravdess.DATASET, ravdess_dir, 'song').values()  # recorded at 48 kHz
    assert (record['kind'], record['label']) == ('music', 'sad')
