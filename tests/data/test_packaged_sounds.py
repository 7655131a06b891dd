"""The builder on the real packages of tier tiny."""

import collections
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from alm_jax import config as config_lib
from alm_jax import prepare
from alm_jax.data.catalog.packaged_sounds import builder, card, classes, splits


@pytest.fixture(scope='module')
def folder(packaged_tiny) -> pathlib.Path:
    return packaged_tiny / 'packaged_sounds' / 'tiny' / builder.VERSION


@pytest.fixture(scope='module')
def records(folder) -> dict[str, list[dict]]:
    read = tfds.builder_from_directory(folder)
    return {name: [_texts(r) for r in read.as_data_source(name)] for name in splits.SPLITS}


def _texts(record: dict) -> dict:
    def text(value):
        if isinstance(value, bytes):
            return value.decode()
        return [text(v) for v in value] if isinstance(value, list | np.ndarray) else value

    return {key: value if key == 'audio' else text(value) for key, value in record.items()}


def test_audio_is_pcm_of_the_stated_length(records):
    for record in (r for items in records.values() for r in items):
        pcm = np.frombuffer(record['audio'], '<i2')
        assert len(pcm) == record['num_samples'] > 0
        assert record['duration'] == pytest.approx(len(pcm) / record['rate'], rel=1e-6)
        assert 4000 <= record['rate'] <= 96000
        assert pcm.any()


def test_every_record_has_captions_licence_and_source(records):
    for record in (r for items in records.values() for r in items):
        assert record['captions']
        assert all(c.strip() and c[:1] == c[:1].upper() for c in record['captions'])
        assert record['licence']
        assert record['source'].endswith(record['id'].split('/', 1)[1])
        assert record['kind'] in ('sound', 'instrument', 'speech')
        if record['kind'] == 'speech':
            assert record['language']
            assert record['transcript']


def test_ids_are_unique_and_in_order(records):
    ids = [r['id'] for items in records.values() for r in items]
    assert len(ids) == len(set(ids))
    assert all(
        [r['id'] for r in items] == sorted(r['id'] for r in items) for items in records.values()
    )


def test_no_unit_recording_or_text_straddles_splits(records):
    seen = collections.defaultdict(set)
    for split, items in records.items():
        for r in items:
            seen['group', r['group']].add(split)
            seen['recording', r['recording_id']].add(split)
            seen['audio', hashlib.sha256(r['audio']).hexdigest()].add(split)
            if r['kind'] == 'speech':
                seen['transcript', r['transcript'].casefold()].add(split)
                for caption in r['captions']:
                    seen['caption', caption.casefold()].add(split)
    assert {key for key, where in seen.items() if len(where) > 1} == set()


def test_sound_test_packages_are_whole_and_fixed(records):
    for split, items in records.items():
        packages = {r['package'] for r in items if r['kind'] != 'speech'}
        if split == 'test':
            assert packages == set(splits.TEST_PACKAGES)
        else:
            assert not packages & set(splits.TEST_PACKAGES)


def test_training_never_mentions_an_unseen_class(records):
    unseen = {label for label, info in classes.CLASSES.items() if info.unseen}
    assert unseen
    for record in records['train'] + records['validation']:
        assert record['label'] not in unseen
        for text in (*record['captions'], *record['tags'], record['transcript']):
            assert not classes.mentions_unseen(text), text
    assert {r['label'] for r in records['test']} & unseen


def test_card_counts_are_the_records(folder, records):
    summary = json.loads((folder / 'card.json').read_text())
    labels = json.loads((folder / 'classes.json').read_text())
    for split, items in records.items():
        assert summary['splits'][split]['records'] == len(items)
        seconds = sum(r['duration'] for r in items)
        assert summary['splits'][split]['seconds'] == pytest.approx(seconds, abs=0.1)
        counts = collections.Counter(r['label'] for r in items)
        assert {k: v['counts'][split] for k, v in labels.items() if v['counts'][split]} == {
            k: v for k, v in counts.items() if k
        }
    assert all(not found for found in summary['leaks'].values())
    assert len(summary['examples']) == 10
    assert summary['missing'] == {}
    readme = (folder / 'README.md').read_text()
    assert 'GPL-2' in readme
    assert all(label in readme for label in summary['labels'])


def test_killed_while_decoding_it_goes_on_and_writes_the_same_bytes(
    packaged_tiny, folder, tmp_path
):
    _link(packaged_tiny, tmp_path, 'downloads', 'unpacked')
    command = [sys.executable, '-m', 'alm_jax.prepare', 'packaged_sounds', f'--data_dir={tmp_path}']
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list((tmp_path / 'decoded').glob('*.json'))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / 'decoded').glob('*.json')}
    assert not (tmp_path / 'packaged_sounds').exists()
    again, built = builder.build('tiny', tmp_path)
    assert built
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    written = [path.name for path in again.iterdir()]
    assert 'card.json' in written
    for name in written:
        assert _sha256(again / name) == _sha256(folder / name), name


def _sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _link(packaged_tiny: pathlib.Path, folder: pathlib.Path, *names: str) -> None:
    """Borrows what is fetched or decoded already."""
    for name in names:
        (packaged_tiny / name).mkdir(exist_ok=True)
        (folder / name).symlink_to(packaged_tiny / name)


def test_second_prepare_does_nothing_and_says_so(packaged_tiny, capsys):
    prepare.prepare('packaged_sounds/tiny', None, str(packaged_tiny))
    said = capsys.readouterr().out
    assert 'nothing to do' in said
    assert '| train' in said


def test_killed_before_the_card_writes_it_without_decoding(packaged_tiny, folder, tmp_path):
    _link(packaged_tiny, tmp_path, 'downloads', 'unpacked', 'decoded')
    copy = tmp_path / 'packaged_sounds' / 'tiny' / builder.VERSION
    shutil.copytree(folder, copy)
    (copy / card.JSON_NAME).unlink()
    builder.build('tiny', tmp_path)  # decodes what other code than today's decoded before
    (copy / card.JSON_NAME).unlink()
    stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'decoded').glob('*')}
    builder.build('tiny', tmp_path)
    assert (copy / card.JSON_NAME).read_bytes() == (folder / card.JSON_NAME).read_bytes()
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / 'decoded').glob('*')} == stamps


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['packaged_sound'], "Did you mean 'packaged_sounds'?"),
        (['packaged_sounds/tinny'], "Did you mean 'tiny'?"),
        (['packaged_sounds/base', '--tier=tiny'], 'disagree'),
        (['packaged_sounds', '--data_dir=/proc/no'], 'Cannot write to the data folder /proc/no'),
    ],
)
def test_mistakes_give_one_screen(arguments, said):
    command = [sys.executable, '-m', 'alm_jax.prepare', *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert 'Traceback' not in done.stderr


def test_unknown_tier_names_the_nearest(tmp_path):
    with pytest.raises(config_lib.ConfigError, match="'full'"):
        builder.build('ful', tmp_path)


def test_caption_to_package_finds_a_planted_leak_and_no_other():
    leaking = [('dog', p, f'{p} dog') for p in ('a', 'b') for _ in range(20)]
    assert card.caption_to_package(leaking)['accuracy'] == 1.0
    clean = [('dog', p, 'a dog barks') for p in ('a', 'b') for _ in range(20)]
    assert card.caption_to_package(clean)['accuracy'] <= 0.5
