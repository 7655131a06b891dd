"""Batches: a function of config and data_step, from real files, on any number of hosts."""

import copy
import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import soundfile
from makers import letters
from travelling import travelled

from alm_jax.config import ConfigError, base
from alm_jax.data import loader, sources

RATE, WINDOW = 16_000, 16_000


@pytest.fixture
def config(small_data_dir):
    config = base()
    config.seed = 3
    config.batch_size = 8
    config.text.lengths = (32, 96)
    config.data.workers = 0  # threads, which start sooner
    config.data.dir = str(small_data_dir)
    config.data.train = (
        {'name': 'small_sounds/small:train', 'weight': 0.7, 'where': {'kind': ['sound']}},
        {'name': 'synthetic_scenes:train', 'weight': 0.3},
    )
    config.data.scenes.share = 0.4
    return config


def first(config, count, **options):
    """The first ``count`` batches; the loader is closed."""
    iterator = loader.batches(
        config, sampling_rate=RATE, window_samples=WINDOW, tokenizer=letters, **options
    )
    made = list(itertools.islice(iterator, count))
    iterator.close()
    return made


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


def test_batches_have_the_shapes_of_the_spec(config):
    spec = loader.batch_spec(config, window_samples=WINDOW)
    for batch in first(config, 3):
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
            name: (array.shape, array.dtype) for name, array in spec.items()
        }
        assert ((batch['num_samples'] > 0) & (batch['num_samples'] <= WINDOW)).all()
        assert batch['pcm'].any(axis=1).all()


def test_any_step_is_reached_at_once(config):
    whole = first(config, 6)
    assert_equal(first(config, 2, start_step=4), whole[4:])
    assert_equal(first(config, 1, start_step=10**6), first(config, 1, start_step=10**6))


@pytest.mark.parametrize(('workers', 'prefetch'), [(0, 1), (3, 1), (2, 4)])
def test_batches_do_not_depend_on_processes_and_threads(config, workers, prefetch):
    whole = first(config, 4)
    config.data.workers, config.data.prefetch = workers, prefetch
    assert_equal(first(config, 4), whole)


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_together_make_the_batch_of_one(config, hosts):
    whole = first(config, 3)
    parts = [first(config, 3, process_index=h, process_count=hosts) for h in range(hosts)]
    joined = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in whole[step]}
        for step in range(3)
    ]
    assert_equal(joined, whole)


def test_seeds_and_steps_give_other_batches(config):
    one, two = first(config, 2)
    config.seed = 4
    (other,) = first(config, 1)
    assert (one['pcm'] != two['pcm']).any()
    assert (one['pcm'] != other['pcm']).any()


def test_rows_are_the_records_of_the_plan(config):
    """Without scenes and resampling, every row is found in its source."""
    config.data.scenes.share = 0.0
    config.data.train = ({'name': 'small_sounds/small:train', 'where': {'rate': [RATE]}},)
    source = sources.open_source(config.data.train[0], config.data.dir)
    batches = first(config, 2)
    rows = np.concatenate([b['pcm'] for b in batches])[: len(source)]
    tokens = np.concatenate([b['token_ids'] for b in batches])[: len(source)]
    by_audio = {source[i]['audio'].tobytes(): source[i] for i in range(len(source))}
    assert len(by_audio) == len(source) == 11
    found = [by_audio.pop(np.trim_zeros(row, 'b').tobytes(), None) for row in rows]
    for record, ids in zip(found, tokens):
        if record is not None:  # a tone that happens to end in zeros is not found by its bytes
            assert ''.join(map(chr, ids[ids > 0])) in record['captions']
    assert sum(record is not None for record in found) >= 8


def test_a_record_that_cannot_be_decoded_is_named(config, tmp_path):
    for name in ('good.wav', 'bad.wav'):
        soundfile.write(tmp_path / name, np.full(8000, 0.1), RATE)
    (tmp_path / 'my.csv').write_text('file,caption\ngood.wav,Fine.\nbad.wav,Not fine.\n')
    entry = {'folder': str(tmp_path), 'captions': 'my.csv'}
    config.data.train = (entry,)
    config.data.on_bad = 'fail'
    config.data.workers = 1
    make = loader.batches(config, sampling_rate=RATE, window_samples=WINDOW, tokenizer=letters)
    (tmp_path / 'bad.wav').write_text('damaged after the manifest was read')
    with pytest.raises(ConfigError, match=r"record .*'bad\.wav'.* of .*my\.csv"):
        list(itertools.islice(make, 3))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'data.train': ()}, 'config.data.train is empty'),
        ({'data.train': ({'name': 'small_sounds/small:train', 'weight': 0.0},)}, 'above 0'),
        ({'data.train': ({'name': 'nothing:train'},)}, 'is unknown'),
        ({'data.scenes.share': 1.5}, 'data.scenes.share'),
        ({'batch_size': 9}, 'multiple of 2'),
        ({'data.on_bad': 'skp'}, "Did you mean 'skip'"),
        ({'data.workers': -1}, 'data.workers is -1'),
        ({'data.prefetch': 0}, 'data.prefetch is 0'),
        ({'data.max_bad_share': 2.0}, 'data.max_bad_share'),
    ],
)
def test_mistakes_are_found_before_the_first_batch(config, change, message):
    config.update_from_flattened_dict(change)
    with pytest.raises(ConfigError, match=message):
        loader.batches(
            config,
            sampling_rate=RATE,
            window_samples=WINDOW,
            tokenizer=letters,
            process_count=2,
        )


def test_closing_stops_the_threads(config):
    before = threading.active_count()
    first(config, 2)
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_batch_maker_that_travelled_makes_the_same(config):
    opened, mixture = loader.open_mixture(config)
    make = loader.BatchMaker(
        sources=opened,
        mixture=mixture,
        transform=loader.transforms.build(config, RATE, WINDOW),
        window_samples=(WINDOW,),
        tokenizer=letters,
        text_length=96,
        seed=3,
        batch_size=8,
        rows=slice(0, 8),
    )
    assert_equal([travelled(make)(2)], first(config, 3)[2:])


@pytest.mark.parametrize('hosts', [1, 3])
def test_eval_clips_come_by_id_and_are_dealt(small_data_dir, small_records, hosts):
    source = sources.open_source('small_sounds/small:train', small_data_dir)
    dealt = [list(loader.eval_clips(source, host, hosts)) for host in range(hosts)]
    ids = sorted(made['id'] for made in small_records[:33])
    assert [[clip['id'] for clip in clips] for clips in dealt] == [
        ids[host::hosts] for host in range(hosts)
    ]


@pytest.mark.parametrize('workers', [0, 1])
def test_making_batches_initialises_no_backend(small_data_dir, workers):
    program = f"""
import sys
from alm_jax.config import base
from alm_jax.data import dry_run, loader
config = base()
config.batch_size = 4
config.data.workers = {workers}
config.data.dir = sys.argv[1]
config.data.train = ({{'name': 'small_sounds/small:train'}},)
tokenizer = dry_run.Words()
next(loader.batches(config, sampling_rate={RATE}, window_samples={WINDOW}, tokenizer=tokenizer))
bridge = sys.modules.get('jax._src.xla_bridge')
assert not (bridge and bridge._backends)
assert bool(bridge) == (not {workers}), 'grain brings jax, and threads bring grain'
"""
    subprocess.run([sys.executable, '-c', program, small_data_dir], check=True, timeout=60)


def test_the_packaged_recordings_make_batches(packaged_tiny):
    config = base()
    config.batch_size = 16
    config.data.dir = str(packaged_tiny)
    config.data.train = ({'name': 'packaged_sounds/tiny:train'},)
    config.data.scenes.share = 0.5
    assert_equal(first(copy.deepcopy(config), 2), first(config, 2))


def test_memory_files_and_threads_do_not_grow(recordings):
    config = base()
    config.batch_size, config.data.workers = 8, 2
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv'},)
    config.data.scenes.share = 0.3
    here = psutil.Process()
    others = here.children()  # what earlier tests in this process have started
    batches = loader.batches(config, sampling_rate=RATE, window_samples=4000, tokenizer=letters)

    def used():
        processes = [here, *(child for child in here.children() if child not in others)]
        return {
            'files': [process.num_fds() for process in processes],
            'threads': [process.num_threads() for process in processes],
            'megabytes': sum(process.memory_info().rss for process in processes) / 1e6,
        }

    for _ in range(100):
        next(batches)
    early = used()
    for _ in range(300):
        next(batches)
    late = used()
    batches.close()
    assert len(early['files']) == 3
    for before, after in zip(early['files'], late['files']):
        assert after <= before + 1  # the file that a worker reads just then
    assert all(after <= before for before, after in zip(early['threads'], late['threads']))
    assert late['megabytes'] < early['megabytes'] + 8
