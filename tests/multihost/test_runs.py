"""One config on 1 process x 4 devices, 2 x 2 and 4 x 1, with parameters split over processes."""

import json
import pathlib

import numpy as np
import pytest
import soundfile

from alm_jax.text.tokenizer import Tokenizer

SEEN_BATCHES = pathlib.Path(__file__).with_name('seen_batches.py')  # trains, and notes them
STEPS, KEPT = 50, 40  # the first of the two checkpoints
TOLERANCE = 1e-5
MESHES = {
    '1x4': (1, 4, ()),
    '2x2': (2, 2, ('--config.mesh.data=1', '--config.mesh.fsdp=4')),
    '4x1': (4, 1, ('--config.evals={}',)),
}
# Where a checkpoint of 2x2 goes on.
OTHERS = {
    '1x1': (1, 1, ()),
    '4x1': (4, 1, ('--config.mesh.fsdp=2',)),
    '1x8': (1, 8, ('--config.mesh.fsdp=8',)),
}
# What one run goes through, two steps each.
CHAIN = {
    '1x1': (1, 1, 1),
    '4x1': (4, 1, 2),
    '1x8': (1, 8, 8),
    '2x2': (2, 2, 4),
    '4x2': (4, 2, 8),
    '2x1': (2, 1, 1),
    '1x4': (1, 4, 4),
    '2x4': (2, 4, 2),
}
BAD = ('default_break_glass.2.flac', 'fire_small.flac', 'fire_large.flac')
PRIMES = {'speech': 53, 'sounds': 19}  # how many clips each evaluation has


@pytest.fixture(scope='module')
def config(recordings, tmp_path_factory, request):
    """The 17 recordings as FLAC, of which three are cut off in the middle."""
    folder = tmp_path_factory.mktemp('damaged')
    for path in recordings.glob('*.ogg'):
        x, rate = soundfile.read(path, dtype='int16')
        soundfile.write(folder / f'{path.stem}.flac', x, rate)
    for name in BAD:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    captions = (recordings / 'captions.csv').read_text()
    (folder / 'captions.csv').write_text(captions.replace('.ogg,', '.flac,'))
    (folder / 'tokenizer').mkdir()
    Tokenizer.train(captions.splitlines()).save(folder / 'tokenizer')
    return f'{request.path.with_name("small.py")}:{folder}'


@pytest.fixture(scope='module')
def runs(jobs, config):
    """Workdirs by name of the mesh."""
    for name, (processes, devices, mesh) in MESHES.items():
        workdir = ('--workdir', jobs.folder / name)
        jobs.run(processes, devices, SEEN_BATCHES, '--config', config, *workdir, *mesh)
    return {name: jobs.folder / name for name in MESHES}


def metrics(workdir):
    """Lines of metrics.jsonl that are of training, by step."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    lines = [line for line in lines if 'train/loss' in line]
    assert len({line['step'] for line in lines}) == len(lines)  # one process writes
    return {line['step']: line for line in lines}


def losses(workdir, after=0):
    found = metrics(workdir)
    assert list(found)[-1] == STEPS
    return np.array([found[step]['train/loss'] for step in range(after + 1, STEPS + 1)])


def bad(workdir):
    """Ids, of several in a scene joined, of the bad records that the processes of a run list."""
    files = workdir.glob('quarantine*.jsonl')
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return {line['id'] for line in lines if line['data_step'] < STEPS}


@pytest.mark.parametrize('mesh', ['2x2', '4x1'])
def test_losses_are_those_of_one_process(runs, mesh):
    one = losses(runs['1x4'])
    assert one[-10:].mean() < one[:10].mean() - 0.1  # it does train
    np.testing.assert_allclose(losses(runs[mesh]), one, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('mesh', ['2x2', '4x1'])
def test_all_bad_records_are_listed_and_counted(runs, mesh):
    found = bad(runs['1x4'])
    assert all(any(name in listed for name in BAD) for listed in found)
    assert all(any(name in listed for listed in found) for name in BAD)
    assert bad(runs[mesh]) == found
    assert len(list(runs[mesh].glob('quarantine*.jsonl'))) > 1  # not only the first met one
    # Each process is a batch or two ahead with its own.
    counts = [metrics(runs[name])[STEPS]['train/bad_records'] for name in ('1x4', mesh)]
    assert counts[0] > 10
    assert abs(counts[1] - counts[0]) <= 4


@pytest.mark.parametrize('mesh', ['2x2', '4x1'])
def test_a_workdir_is_that_of_one_process(runs, mesh):
    def names(workdir):
        found = {p.relative_to(workdir).as_posix() for p in workdir.rglob('*') if p.is_file()}
        differ = ('quarantine.', 'tensorboard/', 'evals/', 'phase.')  # of each process
        kept = {n for n in found if not n.startswith(differ)}
        return {n for n in kept if '/params/' not in n and '/training/' not in n}

    assert names(runs[mesh]) == names(runs['1x4'])
    assert len(list((runs[mesh] / 'tensorboard').iterdir())) == 1
    steps = sorted(int(p.name) for p in (runs[mesh] / 'checkpoints').iterdir())
    assert steps == [KEPT, STEPS]


@pytest.mark.parametrize(
    ('processes', 'evaluator', 'name'),
    [(1, 'retrieval', 'speech'), (1, 'zero_shot', 'sounds'), (3, 'zero_shot', 'sounds')],
)
def test_an_evaluation_is_the_same_bytes_by_any_number_of_processes(
    jobs, runs, processes, evaluator, name
):
    """In the run by two, and as a program by others."""
    in_run = (runs['2x2'] / f'evals/{name}/{STEPS}.json').read_bytes()
    assert json.loads(in_run)['n'] == PRIMES[name]
    out = jobs.folder / f'by_{processes}'
    where = ('--workdir', runs['2x2'], '--name', name, '--out', out)
    jobs.run(processes, 1, '-m', f'alm_jax.evals.{evaluator}', *where)
    assert (out / f'evals/{name}/{STEPS}.json').read_bytes() == in_run


def batches(workdir):
    """{data_step: sha256 of each row}, put together from what all processes were given."""
    found = {}
    for file in workdir.with_name(workdir.name + '.batches').iterdir():
        for line in file.read_text().splitlines():
            data_step, rows = json.loads(line)
            whole = found.setdefault(data_step, {})
            assert all(whole.setdefault(number, row) == row for number, row in rows.items())
    assert all(set(map(int, rows)) == set(range(8)) for rows in found.values())  # config.batch_size
    return found


@pytest.mark.parametrize('mesh', OTHERS)
def test_a_checkpoint_goes_on_by_other_processes_on_another_mesh(jobs, runs, config, mesh):
    processes, devices, given = OTHERS[mesh]
    workdir = jobs.folder / f'resumed on {mesh}'
    resume = f'--config.resume={runs["2x2"]}/checkpoints/{KEPT}'
    command = ('--config', config, '--workdir', workdir, resume, '--config.evals={}', *given)
    jobs.run(processes, devices, SEEN_BATCHES, *command, '--allow_env_change')
    assert min(metrics(workdir)) == KEPT + 1
    whole = losses(runs['2x2'], after=KEPT)
    np.testing.assert_allclose(losses(workdir, after=KEPT), whole, rtol=0, atol=TOLERANCE)
    would_have_come = batches(runs['2x2'])
    assert batches(workdir) == {n: would_have_come[n] for n in range(KEPT, STEPS)}
    rows = [row for batch in would_have_come.values() for row in batch.values()]
    assert len(rows) == 8 * STEPS
    assert len(set(rows)) > 0.9 * len(rows)  # a few are drawn twice


@pytest.mark.slow_local
def test_one_run_goes_from_mesh_to_mesh(jobs, config):
    """Two steps on each, against one that stays on one device."""

    def train(name, processes, devices, fsdp, steps):
        workdir = jobs.folder / name
        given = (f'--config.steps={steps}', f'--config.mesh.fsdp={fsdp}', '--config.evals={}')
        given += ('--config.optimizer.warmup_steps=0', '--config.optimizer.schedule=constant')
        command = ('--config', config, '--workdir', workdir, *given)
        jobs.run(processes, devices, SEEN_BATCHES, *command, '--allow_env_change')
        return workdir

    for number, mesh in enumerate(CHAIN.values(), 1):
        moved = train('moved', *mesh, 2 * number)
    stayed = train('stayed', 1, 1, 1, 2 * len(CHAIN))
    assert batches(moved) == batches(stayed)
    assert len(batches(moved)) == 2 * len(CHAIN)
    found = [
        [line['train/loss'] for line in metrics(workdir).values()] for workdir in (moved, stayed)
    ]
    np.testing.assert_allclose(*found, rtol=0, atol=TOLERANCE)
