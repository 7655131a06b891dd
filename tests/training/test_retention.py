"""Which checkpoints stay, and metrics that none could be the best by."""

import json

import pytest

from alm_jax import config as config_lib
from alm_jax.config import ConfigError
from alm_jax.training import retention
from alm_jax.training.retention import Retention

MANIFESTS = {step: {'kept': step == 300} for step in range(100, 1001, 100)}
VALUES = {step: 1 - abs(step - 600) / 1000 for step in range(100, 1001, 100)} | {650: 5.0}


def stay(values=VALUES, **choice):
    return {s: r for s, r in Retention(**choice).reasons(MANIFESTS, values).items() if r}


def test_each_that_stays_has_its_reasons():
    assert stay({}, keep=2) == {1000: ['last 2'], 900: ['last 2'], 300: ['end of a stage']}
    assert sorted(stay({}, keep=1, keep_every=400)) == [300, 400, 800, 1000]
    assert stay(keep=1, best='valid/top1')[600] == ['best valid/top1, 1']
    assert stay(keep=1, best='-valid/rank')[100] == ['best valid/rank, 0.5']
    assert sorted(stay(dict.fromkeys(MANIFESTS, 1.0), keep=1, best='valid/top1')) == [300, 1000]
    assert stay(keep=3, keep_every=500, best='a/b')[1000] == ['last 3', 'every 500']


def test_values_are_those_of_metrics_jsonl(tmp_path):
    assert retention.measured(tmp_path, 'valid/top1') == {}
    lines = [
        {'step': 1, 'train/loss': 1.0},
        {'step': 2, 'valid/top1': 0.5},
        {'step': 3, 'valid/top1': None},
        {'step': 4, 'valid/top1_5': 0.25},
        {'step': 5, 'valid/top1': 1},
    ]
    text = '\n'.join(map(json.dumps, lines)) + '\n{"step": 6, "valid/top1": 0.7'
    (tmp_path / 'metrics.jsonl').write_text(text)
    assert retention.measured(tmp_path, 'valid/top1') == {2: 0.5, 5: 1.0}
    assert retention.measured(tmp_path, '') == {}


def config(**choice):
    made = config_lib.base()
    made.steps, made.log_every = 1000, 10
    made.checkpoint.every = 100
    made.checkpoint.update(choice)
    made.evals = {
        'valid': {'evaluator': 'zero_shot', 'every': 50},
        'last': {'evaluator': 'zero_shot'},
        'odd': {'evaluator': 'zero_shot', 'every': 333},
    }
    return made


@pytest.mark.parametrize(
    ('choice', 'told'),
    [
        ({'keep': 0}, 'config.checkpoint.keep is 0'),
        ({'keep_every': -1}, 'config.checkpoint.keep_every is -1'),
        ({'on_error': 'go on'}, "config.checkpoint.on_error is 'go on'; it is 'stop' or 'go_on'"),
        ({'best': 'vaild/top1'}, "'vaild/top1'.* Did you mean 'valid'?"),
        ({'best': 'valid'}, "such as 'train/loss'"),
        ({'best': 'last/top1'}, 'no step before the last is both.*evals.last.every is 0'),
        ({'best': '-odd/top1'}, 'no step before the last is both.*evals.odd.every is 333'),
    ],
)
def test_what_cannot_be_is_told_before_the_first_step(choice, told):
    made = config(**choice)
    with pytest.raises(ConfigError, match=told):
        retention.check(made, [made.evals])


@pytest.mark.parametrize('best', ['', 'valid/top1', '-valid/rank', '-train/loss'])
def test_what_can_be_is_not_refused(best):
    made = config(best=best)
    assert retention.check(made, [made.evals]).best == best


def test_a_misspelt_value_is_told_when_the_first_are_there():
    made = Retention(best='-valid/medain_rank')
    made.check_name(['train/loss', 'train/skipped'])
    made.check_name(['other/median_rank'])
    with pytest.raises(ConfigError, match=r"no such value\. Did you mean 'valid/median_r"):
        made.check_name(['valid/median_rank', 'valid/r_at_1'])
    Retention(best='-valid/rank').check_name(['valid/rank', 'valid/r_at_1'])
    Retention().check_name(['valid/rank'])
