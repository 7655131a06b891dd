"""The evaluators as programs and as a checkpoint watcher."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.evals import binary
from alm_jax.evals.build import build_evaluators
from alm_jax.evals.retrieval import Retrieval


def program(name, *arguments):
    command = [sys.executable, '-m', f'alm_jax.evals.{name}', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_program_writes_the_result_of_the_newest_checkpoint(tiny_run, tmp_path):
    done = program('zero_shot', '--workdir', tiny_run, '--out', tmp_path, '--option', 'tags=true')
    assert done.returncode == 0, done.stderr
    assert 'top1' in done.stdout
    content = json.loads((tmp_path / 'evals/zero_shot/2.json').read_text())
    assert (content['n'], content['classes']) == (17, 6)
    assert 0 < content['metrics']['tags_map'] < 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give --workdir'),
        (['--workdir', 'no/such/run'], 'does not exist'),
        (['--wordir', 'x'], 'workdir'),
        (['--workdir', 'x', '--option', 'text'], 'KEY=VALUE'),
    ],
)
def test_a_mistake_is_one_screen_and_exit_code_2(arguments, message):
    done = program('retrieval', *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_the_name_follows_the_kind(tiny_run, tmp_path, recordings_data):
    arguments = ['--workdir', str(tiny_run), '--data', recordings_data, '--out', str(tmp_path)]
    done = program('retrieval', *arguments, '--kind', 'sound', '--step', 1)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / 'evals/retrieval_sound').iterdir()] == ['1.json']


def test_watch_evaluates_each_checkpoint_until_the_last_step(tiny_run, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(tiny_run, run)
    later = run / 'checkpoints' / '2'
    later.rename(tmp_path / 'later')
    seen = []

    def watch():
        binary.watch(str(run), lambda model: seen.append(model.step), poll_seconds=0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    deadline = time.monotonic() + 60
    while not seen and time.monotonic() < deadline:
        time.sleep(0.05)
    assert seen == [1]
    assert thread.is_alive()  # waits for the last step
    (tmp_path / 'later').rename(later)
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert seen == [1, 2]


def test_ctrl_c_ends_a_watch_cleanly(tiny_run, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / 'checkpoints' / '2')
    command = [sys.executable, '-m', 'alm_jax.evals.retrieval', '--watch', '--workdir', str(run)]
    pipe = subprocess.PIPE
    watcher = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    try:
        line = watcher.stdout.readline()  # the first checkpoint is done, it now waits
        watcher.send_signal(signal.SIGINT)
        _, stderr = watcher.communicate(timeout=60)
    finally:
        watcher.kill()
    assert line.startswith('retrieval, step 1')
    assert watcher.returncode == 130
    assert 'Traceback' not in stderr


def test_in_train_evaluators_come_from_the_config(model, recordings_data):
    config = config_lib.base()
    entry = {'evaluator': 'retrieval', 'every': 3, 'data': recordings_data}
    config.evals = {'retrieval_validation': entry}
    scheduled = build_evaluators(config, model.predictors)['retrieval_validation']
    assert isinstance(scheduled.evaluator, Retrieval)
    assert [step for step in range(1, 9) if scheduled.due(step, last_step=8)] == [3, 6, 8]
    for mistake, message in [
        ({**entry, 'evaluator': 'retreival'}, "evals.x.evaluator.*'retrieval'"),
        ({**entry, 'texts': 'captions'}, r"evals\.x\.texts is not a key. Did you mean 'text'"),
        ({'evaluator': 'retrieval'}, 'lacks data'),
        ({'data': recordings_data}, 'lacks evaluator'),
    ]:
        config.evals = {'x': mistake}
        with pytest.raises(ConfigError, match=message):
            build_evaluators(config, model.predictors)


def test_each_stage_of_a_run_is_evaluated_by_its_own_predictors(model, recordings_data, tmp_path):
    made = []

    class Counting(Retrieval):
        def __init__(self, predictors, *, data, data_dir=''):
            super().__init__(predictors, data=data, data_dir=data_dir)
            made.append(predictors)

    config = model.config.copy_and_resolve_references()
    with config.unlocked():
        config.steps = 3
        config.stages = ({'name': 'first', 'steps': 2}, {'name': 'second', 'steps': 1})
    evaluate = binary.Evaluation(Counting, 'x', data=recordings_data, out=str(tmp_path))
    for step in (1, 2, 3):
        predictors = dataclasses.replace(model.predictors)
        evaluate(dataclasses.replace(model, config=config, step=step, predictors=predictors))
    assert len(made) == 2
    assert made[1] is predictors
