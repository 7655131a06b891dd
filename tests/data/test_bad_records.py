"""Records that cannot be used: keyed substitutes, counts, the quarantine file, and when to stop."""

import itertools
import json

import numpy as np
import pytest
import soundfile
from makers import letters

from alm_jax.audio import decode
from alm_jax.config import ConfigError, base
from alm_jax.data import batch_maker, loader, sources
from alm_jax.data.bad_records import BadRecord, BadRecords

BAD = ('default_break_glass.2.flac', 'fire_small.flac')


@pytest.fixture
def damaged(recordings, tmp_path):
    """The 17 recordings as FLAC, of which two are cut off in the middle."""
    folder = tmp_path / 'damaged'
    folder.mkdir()
    for path in recordings.glob('*.ogg'):
        x, rate = soundfile.read(path, dtype='int16')
        soundfile.write(folder / f'{path.stem}.flac', x, rate)
    captions = (recordings / 'captions.csv').read_text().replace('.ogg,', '.flac,')
    (folder / 'captions.csv').write_text(captions)
    for name in BAD:
        cut(folder / name)
    return folder


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture
def config(damaged):
    config = base()
    config.batch_size = 12
    config.text.lengths = (64,)
    config.data.workers = 0
    config.data.max_bad_share = 1.0
    config.data.train = ({'folder': str(damaged), 'captions': 'captions.csv'},)
    return config


def started(config, **options):
    return loader.batches(
        config, sampling_rate=16000, window_samples=16000, tokenizer=letters, **options
    )


def test_a_bad_record_gives_way_to_the_same_other_one_on_any_number_of_hosts(config, tmp_path):
    one = started(config, quarantine=tmp_path / 'quarantine.jsonl')
    whole = list(itertools.islice(one, 4))
    one.close()
    hosts = [started(config, process_index=i, process_count=3) for i in range(3)]
    for batch in whole:
        parts = [next(host) for host in hosts]
        for name in batch:
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), batch[name])
    for host in hosts:
        host.close()
    assert one.skipped == sum(host.skipped for host in hosts) >= 4
    assert one.bad_records.read == 4 * 12 + one.skipped
    assert dict(one.bad_records.by_dataset) == {'captions.csv': one.skipped}
    lines = (tmp_path / 'quarantine.jsonl').read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    assert sorted(line['id'] for line in lines) == sorted(BAD)
    for line in lines:
        assert line['dataset'] == 'captions.csv'
        assert line['reason'].endswith('Fetch it again.') or 'cannot be decoded' in line['reason']
        assert 0 <= line['data_step'] < 4


def test_workers_report_what_they_skip(config):
    by_threads, by_workers = started(config), None
    config.data.workers = 2
    by_workers = started(config)
    for _ in range(3):
        batch, other = next(by_threads), next(by_workers)
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])
    for made in (by_threads, by_workers):
        made.close()
    assert by_workers.skipped == by_threads.skipped > 0
    assert by_workers.bad_records.by_dataset == by_threads.bad_records.by_dataset


def test_a_run_with_many_bad_records_stops_and_says_where_they_are(config, tmp_path):
    config.data.max_bad_share = 0.004
    made = started(config, quarantine=tmp_path / 'quarantine.jsonl')
    with pytest.raises(ConfigError) as raised:
        list(itertools.islice(made, 100))
    message = str(raised.value)
    assert message.startswith('5 of ')
    assert 'config.data.max_bad_share (0.004)' in message
    assert 'of captions.csv' in message
    assert all(name in message for name in BAD)
    assert str(tmp_path / 'quarantine.jsonl') in message
    with pytest.raises(StopIteration):
        next(made)


def test_on_bad_fail_names_the_record(config):
    config.data.on_bad = 'fail'
    made = started(config)
    with pytest.raises(ConfigError, match=r"record '(default_br|fire_).*\.flac' of "):
        list(itertools.islice(made, 5))


def test_a_dataset_of_bad_records_alone_ends_the_run(config, damaged):
    for path in damaged.glob('*.flac'):
        cut(path)
    made = started(config)
    with pytest.raises(ConfigError, match='50 records one after another cannot be used'):
        next(made)


class Flaky:
    """A source whose files the system fails to read some times."""

    def __init__(self, source, failures, error=None):
        self.source, self.failures, self.reads = source, failures, 0
        self.error = error or OSError(5, 'Input/output error')
        self.name = source.name

    def __len__(self):
        return len(self.source)

    def id(self, i):
        return self.source.id(i)

    def shard(self, i):
        return self.source.shard(i)

    def read(self, i):
        self.reads += 1
        if self.reads <= self.failures:
            raise self.error
        return self.source.read(i)


def maker(config, flaky):
    _, mixture = loader.open_mixture(config)
    return batch_maker.BatchMaker(
        sources=[flaky],
        mixture=mixture,
        transform=loader.transforms.build(config, 16000, 16000),
        window_samples=(16000,),
        tokenizer=letters,
        text_length=64,
        seed=0,
        batch_size=1,
        rows=slice(0, 1),
        on_bad='skip',
    )


@pytest.fixture
def source(recordings, config):
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv'},)
    return sources.open_source(config.data.train[0], config.data.dir)


def test_what_the_system_cannot_read_is_read_again(config, source, monkeypatch):
    monkeypatch.setattr(batch_maker, '_WAIT', 0.001)
    flaky = Flaky(source, failures=2)
    batch, made = maker(config, flaky).whole(0)
    assert made.bad == []
    expected = maker(config, source)(0)
    np.testing.assert_array_equal(batch['pcm'], expected['pcm'])


def wrapped(error):
    """An AudioError that a failing read is behind."""
    try:
        raise decode.AudioError('x.tar cannot be read: no.') from error
    except decode.AudioError as raised:
        return raised


@pytest.mark.parametrize(
    'error',
    [
        OSError(5, 'Input/output error'),
        decode.UnreadableFile('x.wav cannot be read: no.'),
        wrapped(OSError(5, 'no')),
    ],
)
def test_what_the_system_never_reads_is_fatal_and_not_skipped(config, source, error, monkeypatch):
    monkeypatch.setattr(batch_maker, '_WAIT', 0.001)
    flaky = Flaky(source, failures=3, error=error)
    with pytest.raises(ConfigError, match=r"record '.*\.ogg' of .*: ") as raised:
        maker(config, flaky).whole(0)
    assert str(error) in str(raised.value)
    assert flaky.reads == 3


def test_a_file_that_vanishes_is_fatal(config, damaged):
    made = started(config)
    for path in damaged.glob('*.flac'):
        path.unlink()
    with pytest.raises(ConfigError, match=r'cannot be read: No such file'):
        list(itertools.islice(made, 20))


def test_a_few_bad_records_at_the_start_are_no_verdict():
    tally = BadRecords(max_share=0.01)
    bad = [BadRecord('set', str(i), 'cut', 0) for i in range(11)]
    tally.add(20, bad[:10])
    with pytest.raises(ConfigError, match=r'11 of 30 records.*Most of them, 11, are of set'):
        tally.add(10, bad[10:])
    later = BadRecords(max_share=0.01)
    later.add(5000, bad * 4)
    assert later.skipped == 44
