"""Preparing: the same bytes however it is run; what is missing is told, what is done is kept."""

import collections
import hashlib
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import tracemalloc

import hypothesis
import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds
from hypothesis import strategies as st

from alm_jax.config import ConfigError
from alm_jax.data import catalog, index, record, sources
from alm_jax.data.catalog.building import builder, card, listing, shards
from alm_jax.data.catalog.declaration import Dataset, Item, turn
from alm_jax.data.catalog.declaration import time as event
from alm_jax.data.catalog.files import Files

few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
OPTIONS = {'workers': 1, 'records_per_shard': 4}


def declared(files, config):
    """Items of a table with columns file, split, caption."""
    for row in files.csv('table.csv', required=('file', 'split')):
        clip = files.audio(row['file'])
        fields = {'captions': [row['caption']], 'tags': row['caption'].split()}
        yield Item(row['split'], row['file'], (clip,) if clip else (), fields)


MINIATURE = Dataset(
    name='miniature',
    version='1.2.0',
    title='A miniature',
    homepage='https://example.org',
    licence='CC0-1.0',
    provenance='human',
    layout='table.csv, *.wav',
    items=declared,
)


@pytest.fixture
def folder(tmp_path, clips, write_csv):
    """The distribution: 15 records of train, 2 of test, listed in no order."""
    rows = [(f'{n:02d}.wav', 'test' if n % 6 == 5 else 'train', f'clip {n}') for n in range(17)]
    for file, _, _ in rows:
        clips.write(tmp_path / 'official' / file, int(file[:2]))
    random.Random(0).shuffle(rows)
    write_csv(tmp_path / 'official/table.csv', ('file', 'split', 'caption'), rows)
    return tmp_path / 'official'


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def build(folder, data_dir, **options):
    return builder.build(MINIATURE, '', folder, data_dir, builder.Options(**{**OPTIONS, **options}))


def test_what_is_prepared_is_complete_and_described(folder, tmp_path, clips):
    path, built = build(folder, tmp_path)
    assert (path, built) == (tmp_path / 'miniature/1.2.0', True)
    assert not path.with_name('1.2.0.part').exists()
    names = sorted(p.name for p in path.iterdir())
    assert names == [
        'LICENSE', 'README.md', 'card.json', 'checksums.json', 'dataset_info.json',
        'features.json', 'index-test.arrow', 'index-train.arrow', 'left_out.jsonl',
        'miniature-test.array_record-00000-of-00001',
        *(f'miniature-train.array_record-0000{n}-of-00004' for n in range(4)),
    ]  # fmt: skip
    sums = json.loads((path / 'checksums.json').read_text())
    assert len(sums) == 7
    for name, described in sums.items():
        assert described['sha256'] == digests(path)[name]
        assert described['bytes'] == (path / name).stat().st_size
    summary = json.loads((path / 'card.json').read_text())
    assert summary['splits']['train']['shards'] == [4, 4, 4, 3]
    assert summary['splits']['test']['records'] == 2
    assert '| train | 15 |' in (path / 'README.md').read_text()
    source = sources.open_source('miniature:train+test', tmp_path)
    assert [source.id(i) for i in range(17)] == [
        f'{n:02d}.wav' for n in sorted(range(17), key=lambda n: (n % 6 == 5, n))
    ]
    for i in range(17):
        made, number = source[i], int(source.id(i)[:2])
        expected, rate = clips.samples(number)
        np.testing.assert_allclose(made['audio'] / 32768, expected, atol=1 / 32768)
        assert (made['rate'], made['captions']) == (rate, [f'clip {number}'])
        assert (made['licence'], made['recording_id']) == ('CC0-1.0', f'miniature/{number:02d}.wav')


def test_the_index_is_that_of_the_records_and_need_not_be_made_again(folder, tmp_path):
    path, _ = build(folder, tmp_path)
    stamp = (path / 'index-train.arrow').stat().st_mtime_ns
    source = sources.open_source('miniature:train', tmp_path)
    assert (path / 'index-train.arrow').stat().st_mtime_ns == stamp
    columns = [record.columns_of(source[i]) for i in range(len(source))]
    for name in record.COLUMNS:
        expected = np.array([row[name] for row in columns], source.columns[name].dtype)
        np.testing.assert_array_equal(source.columns[name], expected, name)
    assert np.isfinite(source.columns['loudness']).all()


def test_tfds_reads_it_by_its_own_means_without_tensorflow(folder, tmp_path):
    path, _ = build(folder, tmp_path, storage='pcm16', sampling_rate=16_000)
    opened = tfds.builder_from_directory(path)
    assert opened.info.name == 'miniature'
    assert str(opened.info.version) == '1.2.0'
    assert opened.info.splits['train'].num_examples == 15
    data = opened.as_data_source('train')
    source = sources.open_source('miniature:train', tmp_path)
    assert len(data) == 15
    for i in (0, 5, 14):
        assert data[i]['id'].decode() == source.id(i)
        assert data[i]['rate'] == 16_000
        np.testing.assert_array_equal(np.frombuffer(data[i]['audio'], '<i2'), source[i]['audio'])
        assert [c.decode() for c in data[i]['captions']] == source[i]['captions']
    assert 'tensorflow' not in sys.modules


def test_bytes_do_not_depend_on_processes_nor_on_the_run(folder, tmp_path):
    made = [digests(build(folder, tmp_path / str(n), workers=n)[0]) for n in (1, 2)]
    assert made[0] == made[1]
    again, built = build(folder, tmp_path / '1')
    assert not built
    assert digests(again) == made[0]


PREPARE = """
import sys
sys.path.insert(0, {here!r})
from alm_jax.data.catalog.building import builder
import test_building
if __name__ == '__main__':
    test_building.build(sys.argv[1], test_building.pathlib.Path(sys.argv[2]), {options})
"""


def started(tmp_path, folder, data_dir, **options):
    """A process that prepares; in a script, because workers import the main module again."""
    script = tmp_path / 'prepare_miniature.py'
    arguments = ', '.join(f'{name}={value!r}' for name, value in options.items())
    script.write_text(PREPARE.format(here=str(pathlib.Path(__file__).parent), options=arguments))
    command = [sys.executable, str(script), str(folder), str(data_dir)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_results(process, data_dir, count):
    results = data_dir / 'miniature/1.2.0.part/results'
    while len(list(results.glob('*.json'))) < count:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.005)
    return {p: p.stat().st_mtime_ns for p in results.glob('*.json')}


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_killed_it_goes_on_and_leaves_no_process(folder, tmp_path, how):
    for n in range(60):  # enough to be killed in the midst of
        os.symlink(folder / f'{n % 17:02d}.wav', folder / f'copy{n}.wav')
    with (folder / 'table.csv').open('a') as table:
        table.writelines(f'copy{n}.wav,train,copy\n' for n in range(60))
    data_dir = tmp_path / 'killed'
    with started(tmp_path, folder, data_dir, workers=2, records_per_shard=4) as process:
        wait_for_results(process, data_dir, 3)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(how)
        process.wait(30)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
    assert not (data_dir / 'miniature/1.2.0').exists()
    part = data_dir / 'miniature/1.2.0.part'
    finished = {p.stem for p in (part / 'results').glob('*.json')}
    assert 3 <= len(finished) < 20
    stamps = {
        p.name: p.stat().st_mtime_ns
        for p in (part / 'ready').glob('*.array_record-*')
        if p.name.removeprefix('miniature-').replace('.array_record', '') in finished
    }
    assert len(stamps) == len(finished)
    path, _ = build(folder, data_dir)
    assert {name: (path / name).stat().st_mtime_ns for name in stamps} == stamps
    assert digests(path) == digests(build(folder, tmp_path / 'whole')[0])


def test_audio_that_is_not_on_disk_is_counted(folder, tmp_path):
    for name in ('02.wav', '03.wav', '05.wav'):
        (folder / name).unlink()
    with pytest.raises(ConfigError) as failed:
        build(folder, tmp_path)
    said = str(failed.value)
    for part in ('test: 1 of 2 records: 05.wav', 'train: 2 of 15 records: 0', '--allow_missing'):
        assert part in said
    assert 'table.csv, *.wav' in said
    path, _ = build(folder, tmp_path, allow_missing=True)
    splits = card.read(path)['splits']
    assert (splits['train']['records'], splits['train']['missing']) == (13, 2)
    assert (splits['test']['records'], splits['test']['missing']) == (1, 1)
    lines = [json.loads(line) for line in (path / 'left_out.jsonl').read_text().splitlines()]
    assert {line['id'] for line in lines} == {'02.wav', '03.wav', '05.wav'}
    assert '3 listed records are not here' in (path / 'README.md').read_text()


def test_nothing_on_disk_is_an_error_whatever_is_allowed(folder, tmp_path):
    for path in folder.glob('*.wav'):
        path.unlink()
    with pytest.raises(ConfigError, match=r'no record has its audio(?s:.*)15 of 15'):
        build(folder, tmp_path, allow_missing=True)


def test_audio_that_cannot_be_decoded_is_counted(folder, tmp_path, clips):
    (folder / '04.wav').write_bytes(b'RIFF no wave')
    (folder / '06.wav').write_bytes(clips.content('wav', 6)[:-500])
    with pytest.raises(ConfigError, match=r'2 records cannot be decoded(?s:.*)04\.wav(?s:.*)06'):
        build(folder, tmp_path)
    clips.write(folder / '06.wav', 6)  # fetched again
    results = tmp_path / 'miniature/1.2.0.part/results'
    before = {p.name: p.stat().st_mtime_ns for p in results.glob('*.json')}
    path, _ = build(folder, tmp_path, allow_missing=True)
    splits = card.read(path)['splits']
    assert (splits['train']['records'], splits['train']['unusable']) == (14, 1)
    (line,) = (path / 'left_out.jsonl').read_text().splitlines()
    assert '04.wav cannot be decoded as audio' in json.loads(line)['reason']
    assert len(before) == 5
    assert len(sources.open_source('miniature:train', tmp_path)) == 14


def test_finished_shards_are_used_only_for_the_same_files_and_options(folder, tmp_path, clips):
    listed = [list_jobs(folder, tmp_path / 'a')[0]]
    shards.write_shard(listed[0])
    assert listed[0].finished()
    clips.write(folder / '00.wav', 16)
    assert list_jobs(folder, tmp_path / 'a')[0].finished() is None
    shards.write_shard(list_jobs(folder, tmp_path / 'a')[0])
    assert list_jobs(folder, tmp_path / 'a')[0].finished()
    assert list_jobs(folder, tmp_path / 'a', sampling_rate=8_000)[0].finished() is None
    pathlib.Path(listed[0].shard).write_bytes(b'cut off')
    assert list_jobs(folder, tmp_path / 'a')[0].finished() is None


def list_jobs(folder, place, **options):
    (place / 'jobs').mkdir(parents=True, exist_ok=True)
    found = listing.list_items(MINIATURE, '', Files(folder), place, splits=('train',), size=4)
    return [
        shards.Job(str(path), str(place / f'shard{n}'), str(place / f'{n}.json'), **options)
        for n, path in enumerate(found.jobs['train'])
    ]


def test_splits_may_be_prepared_one_after_the_other(folder, tmp_path):
    path, _ = build(folder, tmp_path, splits=('test',))
    assert list(card.read(path)['splits']) == ['test']
    with pytest.raises(ConfigError, match="has no split 'train'"):
        sources.open_source('miniature:train', tmp_path)
    assert build(folder, tmp_path, splits=('test',)) == (path, False)
    before = digests(path)
    assert build(folder, tmp_path) == (path, True)
    assert build(folder, tmp_path) == (path, False)
    together = digests(path)
    assert {name: together[name] for name in before if 'test' in name} == {
        name: digest for name, digest in before.items() if 'test' in name
    }
    assert together == digests(build(folder, tmp_path / 'at once')[0])
    with pytest.raises(ConfigError, match=r"has no split 'tset'\. Did you mean 'test'"):
        build(folder, tmp_path / 'x', splits=('tset',))


def test_options_of_what_is_there_are_kept(folder, tmp_path):
    build(folder, tmp_path, sampling_rate=8_000)
    with pytest.raises(ConfigError, match=r'is prepared with (?s:.*)8000(?s:.*)delete it'):
        build(folder, tmp_path)
    for wrong in (
        {'storage': 'flacc'}, {'sampling_rate': 12}, {'records_per_shard': 0}, {'workers': -1},
        {'max_seconds': -1},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            build(folder, tmp_path / 'y', **wrong)


def test_two_at_once_are_refused(folder, tmp_path):
    lock = tmp_path / 'lock'
    refused = pytest.raises(ConfigError, match='Another process')
    with builder._locked(lock), refused, builder._locked(lock):
        pass


def test_configs_are_folders_and_an_unknown_one_names_the_nearest():
    dataset = catalog.find('audiocaps')
    assert builder.choose_config(dataset, '') == '1.0'
    place = builder.folder_of(dataset, '2.0', pathlib.Path('/data'))
    assert place == pathlib.Path('/data/audiocaps/2.0/1.0.0')
    with pytest.raises(ConfigError, match=r"has no config '2\.1'\. Did you mean '2\.0'"):
        builder.choose_config(dataset, '2.1')


def test_an_id_that_occurs_twice_is_named(folder, tmp_path):
    with (folder / 'table.csv').open('a') as table:
        table.write('03.wav,train,again\n')
    with pytest.raises(ConfigError, match=r"'train' has two records with the id '03\.wav'"):
        build(folder, tmp_path)


def joined(rows):
    """A dataset whose items of one id are one record."""

    def items(files, config):
        for number, (name, text) in enumerate(rows):
            fields = {
                'captions': [text], 'tags': ['x', text], 'turns': [turn(text, str(number))],
                'times': [event(number, number + 1, text)], 'transcript': text * (number % 2),
            }  # fmt: skip
            yield Item('train', name, (files.audio('00'),), fields)

    return Dataset(**{**vars(MINIATURE), 'items': items, 'joined': True})


@few
@hypothesis.given(
    st.lists(st.tuples(st.sampled_from(['b', 'a/x', 'ü', 'B']), st.text('pq', min_size=1))),
    st.integers(1, 700),
    st.integers(1, 3),
)
def test_joined_items_are_grouped_whatever_the_memory(small_folder, rows, run, size):
    """Against a dictionary; runs of a few lines, so that merging is done from disk."""
    place = small_folder / f'{abs(hash((tuple(rows), run, size)))}'
    place.mkdir(exist_ok=True)
    before, listing._RUN = listing._RUN, run
    try:
        found = listing.list_items(
            joined(rows), '', Files(small_folder), place, splits=(), size=size
        )
    finally:
        listing._RUN = before
    read = [list(listing.items_of(job)) for job in found.jobs.get('train', [])]
    assert all(len(job) == size for job in read[:-1])
    expected = collections.defaultdict(list)
    for number, (name, text) in enumerate(rows):
        expected[name].append((number, text))
    flat = list(itertools.chain(*read))
    assert [name for name, _, _ in flat] == sorted(expected)
    for name, _, fields in flat:
        numbers, texts = zip(*expected[name])
        assert fields['captions'] == list(dict.fromkeys(texts))
        assert fields['tags'] == list(dict.fromkeys(['x', *texts]))
        assert [t['onset'] for t in fields['times']] == list(numbers)
        assert [(t['question'], t['answer']) for t in fields['turns']] == [
            (text, str(number)) for number, text in expected[name]
        ]
        assert [t['dialogue'] for t in fields['turns']] == list(range(len(numbers)))
        assert fields.get('transcript', '') == next(
            (text for number, text in expected[name] if number % 2), ''
        )


@pytest.fixture(scope='module')
def small_folder(tmp_path_factory, clips):
    folder = tmp_path_factory.mktemp('small')
    clips.write(folder / '00.wav', 0)
    return folder


def test_listing_needs_memory_for_a_run_not_for_the_dataset(small_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, '_RUN', 1 << 17)
    count = 4_000
    rows = ((f'{n * 7919 % count:06d}', 'pq') for n in range(count))
    dataset = Dataset(**{**vars(joined(rows)), 'joined': False})
    tracemalloc.start()
    found = listing.list_items(dataset, '', Files(small_folder), tmp_path, splits=(), size=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.jobs['train']) == count // 100
    assert peak < 0.3 * sum(job.stat().st_size for job in found.jobs['train'])


def test_indices_of_many_shards_become_one(tmp_path):
    """Categories are numbered anew in every part."""
    blank = {**record.DEFAULTS, 'rate': 8_000}
    rows = [
        record.columns_of({**blank, 'id': str(n), 'label': f'class {n % 5}', 'kind': 'sound'})
        for n in range(30)
    ]
    parts = []
    for start in range(0, 30, 4):
        job = shards.Job('', str(tmp_path / f'shard{start}'), str(tmp_path / f'{start}.json'))
        index.write(job.index_part(), rows[start : start + 4])
        pathlib.Path(job.shard).touch()
        parts.append((job, {'sha256': str(start)}))
    builder._merge_indices(tmp_path / 'index.arrow', parts)
    merged = index.Index.open(tmp_path / 'index.arrow')
    assert merged.numpy('id').tolist() == [str(n) for n in range(30)]
    assert merged.numpy('label').tolist() == [f'class {n % 5}' for n in range(30)]
    assert merged.table.column('id').num_chunks == 1
