"""--verify_resume as a user gives it: augmentation, dropout, mixture and packing in one config."""

import pathlib
import re
import signal
import time

import pytest
from train_program import SECONDS, Program

from alm_jax.data import sources
from alm_jax.text.language_tokenizer import LanguageTokenizer

CONFIG = """
from alm_jax.config import base


def get_config(arg=None):
    c = base()
    c.steps = 1000
    c.batch_size = 4
    tiny = 'packaged_sounds/tiny:train'
    c.data.train = (
        {'name': tiny, 'where': {'kind': ['sound']}, 'weight': 2.0},
        {'name': tiny, 'where': {'kind': ['speech']}},
    )
    c.data.text.dialogue = 'plain'
    c.data.pack = True
    c.data.max_clips = 3
    c.data.gain_db = 3.0
    c.text.tokenizer = 'tokenizer'
    c.text.lengths = (64,)
    c.front_end.seconds = 1.0
    c.augment.gain_db = 6.0
    c.augment.shift_seconds = 0.1
    c.augment.noise_snr_db = (10.0, 30.0)
    c.augment.time_masks = c.augment.freq_masks = 1
    c.task.name = 'generative'
    c.model.family = 'two_head'
    c.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu', 'dropout': 0.1}
    c.model.text = {'name': 'decoder', 'variant': 'mu', 'dropout': 0.1, 'vocabulary': 4000}
    c.optimizer.warmup_steps = 100
    c.evals = {'captions': {'evaluator': 'captioning', 'data': 'packaged_sounds/tiny:validation'}}
    return c
"""
# Python runs it before all else: what a resume would be whose data began one batch too late.
FAULT = """
import pathlib
import sys

(workdir,) = [a for a in sys.orig_argv if a.endswith('verify_resume/killed')] or ['']
if list(pathlib.Path(workdir).glob('checkpoints/*/manifest.json')):
    from alm_jax.data import loader

    batches = loader.batches
    loader.batches = lambda *a, start_step, **k: batches(*a, start_step=start_step + 1, **k)
"""


@pytest.fixture(scope='module')
def program(tmp_path_factory, packaged_tiny):
    program = Program(tmp_path_factory.mktemp('verify'), packaged_tiny, CONFIG)
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    captions = [text for i in range(0, len(source), 20) for text in source[i]['captions']]
    LanguageTokenizer.train(captions).save(program.folder / 'tokenizer')
    return program


def test_a_run_is_killed_and_goes_on_bit_for_bit_beside_another(program):
    workdir = program.folder / 'run'
    workdir.mkdir()
    (workdir / 'metrics.jsonl').write_text('that of a run\n')
    done = program.train(workdir, '--verify_resume')
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith('PASS: killed 1 time(s), and all numbers of 6 steps and every')
    assert 'to be killed (1 of 1):  50%' in done.stderr
    assert [path.name for path in workdir.iterdir()] == ['metrics.jsonl']
    assert (workdir / 'metrics.jsonl').read_text() == 'that of a run\n'


@pytest.mark.slow_local
def test_what_a_faulty_resume_changes_is_told(program):
    (program.folder / 'hidden' / 'sitecustomize.py').write_text(FAULT)
    done = program.train(program.folder / 'faulty', '--verify_resume')
    (program.folder / 'hidden' / 'sitecustomize.py').unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    fail, step, parameter, where = done.stdout.splitlines()
    assert fail == 'FAIL'
    found = re.match(r'The first step that differs is (\d): train/loss is ([\d.]+) without', step)
    assert int(found[1]) in (3, 5)  # after either checkpoint
    assert 'The first parameter that differs at the end is audio/' in parameter
    folder = program.folder / 'faulty' / 'verify_resume'
    assert where == f'Both runs are under {folder}.'


@pytest.mark.slow_local
@pytest.mark.parametrize(('how', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_when_it_is_ended_so_are_its_runs(program, how, code):
    workdir = program.folder / how.name
    process = program.start(
        'train', '--config', 'small.py', '--workdir', workdir, '--verify_resume'
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not (workdir / 'verify_resume/whole/config.json').exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(of_workdir(workdir)) >= 2  # itself and its run
        process.send_signal(how)
        stderr = process.communicate(timeout=SECONDS)[1]
    finally:
        process.kill()
    assert process.returncode == code
    assert 'Traceback' not in stderr
    assert of_workdir(workdir) == []
    assert list(workdir.iterdir()) == []


def of_workdir(workdir: pathlib.Path) -> list[int]:
    """Processes that were given a folder of ``workdir``."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        try:
            if str(workdir).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
