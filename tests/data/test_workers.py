"""Worker processes: what they make, how they end, and what they leave behind, which is nothing."""

import gc
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import makers
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import batch_maker, shared_memory
from alm_jax.data.workers import WorkerDied, Workers

PATIENCE = 30  # seconds, on a machine that does much else


def expected(maker, step):
    return batch_maker.stacked([maker.row(step, n) for n in range(maker.num_rows)])


def assert_equal(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        np.testing.assert_array_equal(batch[name], other[name])
        assert batch[name].dtype == other[name].dtype


@pytest.fixture
def started():
    """Starts Workers that are closed at the end of the test, whatever comes."""
    all_started = []

    def start(*args, **options):
        all_started.append(Workers(*args, **{'ahead': 2, **options}))
        return all_started[-1]

    yield start
    for one in all_started:
        one.close()


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize(('rows', 'count'), [(5, 3), (2, 4)])
def test_batches_come_in_order_with_every_row_in_place(started, rows, count):
    maker = makers.Counting(rows)
    made = started(maker, count, first_step=7)
    for step in range(7, 27):
        batch, read, bad = next(made)
        assert_equal(batch, expected(maker, step))
        assert read == rows
        assert sorted(b.id for b in bad) == [f'{step}/{n}' for n in range(1, rows, 2)]


def test_a_batch_stays_as_it_is_while_it_is_held_and_its_memory_is_used_again(started):
    maker = makers.Counting(3)
    made = started(maker, 2)
    kept = [next(made)[0] for _ in range(12)]  # more than there are slots
    for step, batch in enumerate(kept):
        assert_equal(batch, expected(maker, step))
    view = kept[1]['wide'][1:]
    del kept, batch
    gc.collect()
    files = psutil.Process().num_fds()
    for step in range(12, 60):
        assert_equal(next(made)[0], expected(maker, step))
    assert psutil.Process().num_fds() == files
    np.testing.assert_array_equal(view, expected(maker, 1)['wide'][1:])
    made.close()
    np.testing.assert_array_equal(view, expected(maker, 1)['wide'][1:])


def test_most_batches_are_not_copied(started):
    made = started(makers.Counting(2), 1)
    for _ in range(10):
        batch, _, _ = next(made)
        owner = batch['number'].base
        assert not owner.flags.owndata


@pytest.mark.parametrize(
    ('what', 'kind', 'message'),
    [
        ('config_error', ConfigError, r'^record bad\.wav: mend it$'),
        ('audio_error', AudioError, r'^record bad\.wav: truncated$'),
        ('defect', RuntimeError, r"^KeyError in a loader worker: 'caption'"),
    ],
)
def test_an_exception_arrives_when_its_batch_is_due(started, what, kind, message):
    maker = makers.Failing(4, what)
    made = started(maker, 2)
    for step in (0, 1):
        assert_equal(next(made)[0], expected(makers.Counting(4), step))
    with pytest.raises(kind, match=message) as raised:
        next(made)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    if what == 'defect':
        assert raised.value.__notes__[0] == 'record bad.wav'
        assert 'makers.py' in raised.value.__notes__[1]
    with pytest.raises(StopIteration):
        next(made)


@pytest.mark.parametrize(
    ('what', 'ending'),
    [
        ('exit_code', 'ended with exit code 3'),
        ('killed', r'was ended by SIGKILL \(if memory ran out, lower config\.data\.workers'),
        ('crash', 'was ended by SIGSEGV'),
    ],
)
def test_a_worker_that_dies_names_itself_and_its_record(started, what, ending):
    made = started(makers.Failing(4, what), 2)
    with pytest.raises(WorkerDied) as raised:
        list(itertools.islice(made, 3))
    message = str(raised.value)
    assert '\n' not in message
    assert isinstance(raised.value, ConfigError)
    assert re.search(ending, message)
    assert "while it read record '2/1' of counted (batch 2, row 1)" in message
    assert 'loader worker 1 of 2' in message


def test_a_worker_killed_from_outside_is_noticed_while_waiting(started):
    made = started(makers.Failing(4, 'hang'), 2)
    next(made), next(made)
    victim = made._processes[1]
    threading.Timer(0.5, victim.kill).start()
    begin = time.monotonic()
    with pytest.raises(WorkerDied, match='SIGKILL'):
        next(made)
    assert time.monotonic() - begin < 5
    assert victim.poll() is not None


def test_signals_to_all_processes_of_a_job_end_no_worker(started):
    made = started(makers.Counting(4), 2)
    next(made)
    for process in made._processes:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            process.send_signal(number)
    assert_equal(next(made)[0], expected(makers.Counting(4), 1))
    assert [process.poll() for process in made._processes] == [None, None]
    for step in range(2, 12):  # longer than what was made ahead
        assert_equal(next(made)[0], expected(makers.Counting(4), step))


def test_workers_run_one_thread_and_neither_jax_nor_the_main_module(started):
    batch, _, _ = next(started(makers.Telling(4), 2))
    assert len(set(batch['process'])) == 2
    assert os.getpid() not in batch['process']
    assert not batch['has_jax'].any()
    assert not batch['has_main'].any()
    np.testing.assert_array_equal(batch['threads'], 1)
    np.testing.assert_array_equal(batch['blas_threads'], 1)


@pytest.mark.parametrize('what', ['nothing', 'hang'])
def test_closing_ends_the_processes_at_once(started, what):
    maker = makers.Counting(4) if what == 'nothing' else makers.Failing(4, 'hang')
    made = started(maker, 2)
    next(made), next(made)
    processes = list(made._processes)
    begin = time.monotonic()
    if what == 'hang':  # another thread waits for the batch that never comes
        waiter = threading.Thread(target=lambda: list(made))
        waiter.start()
        time.sleep(0.3)
        made.close()
        waiter.join(PATIENCE)
        assert not waiter.is_alive()
    made.close()
    assert time.monotonic() - begin < 4
    assert all(process.returncode is not None for process in processes)
    with pytest.raises(StopIteration):
        next(made)


def test_an_iterator_that_is_forgotten_ends_its_processes(started):
    made = Workers(makers.Counting(2), 1, ahead=1)
    next(made)
    (process,) = made._processes
    del made
    gc.collect()
    assert process.returncode is not None


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import makers
from alm_jax.data.workers import Workers
made = Workers(makers.Counting(4), 2, ahead=2)
next(made)
print(*(process.pid for process in made._processes), flush=True)
try:
    while True:
        next(made)
except KeyboardInterrupt:
    made.close()
    print('interrupted', flush=True)
"""


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_and_no_memory_outlives_the_parent(how):
    program = PROGRAM.format(folder=str(pathlib.Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, '-c', program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        for pid in (parent.pid, *pids):  # no memory that has a name could be left behind
            paths = [area.path for area in psutil.Process(pid).memory_maps()]
            assert any('memfd:alm_jax' in path for path in paths)
            assert not any(path.startswith('/dev/shm') for path in paths)
        os.killpg(parent.pid, how)  # as a terminal does
        output, errors = parent.communicate(timeout=PATIENCE)
    assert errors == ''
    assert output == ('interrupted\n' if how == signal.SIGINT else '')
    assert until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.integers(1, 9).flatmap(
        lambda rows: st.tuples(st.just(rows), st.lists(st.integers(0, 3), min_size=rows))
    ),
    st.lists(st.integers(0, 5), max_size=2),
)
def test_rows_written_by_several_are_the_stacked_batch(rows_and_writers, shape):
    rows, writers = rows_and_writers
    rng = np.random.default_rng(rows)
    made = [
        {
            'a': rng.standard_normal(shape).astype(np.float32),
            'b': np.int8(rng.integers(100)),
            'c': rng.integers(0, 2, 3) > 0,
        }
        for _ in range(rows)
    ]
    buffer = shared_memory.Buffer()
    layouts = set()
    for writer in range(4):
        mine = {number: made[number] for number in range(rows) if writers[number] == writer}
        if mine:
            writing = shared_memory.RowWriter(shared_memory.Buffer(buffer.fd), rows)
            for names in ('ca', 'b'):
                for number, row in mine.items():
                    writing.write(number, {name: row[name] for name in names})
            layouts.add(tuple(writing.fields))
    (fields,) = layouts
    assert all(field.offset % 64 == 0 for field in fields)
    _, arrays = buffer.arrays(fields)
    assert_equal(arrays, batch_maker.stacked(made))
    buffer.close()


def test_rows_that_do_not_fit_together_are_refused():
    buffer = shared_memory.Buffer()
    writing = shared_memory.RowWriter(buffer, 2)
    writing.write(0, {'a': np.zeros(2)})
    with pytest.raises(ValueError, match='a of row 1 is int64'):
        writing.write(1, {'a': np.zeros(3, int)})
    with pytest.raises(TypeError, match='a batch holds numbers'):
        writing.write(0, {'b': 'text'})
    buffer.close()
