"""The published systems that speak: what trains at their sizes trains small in the same stages."""

import json
import pathlib

import pytest
from train_program import Program

from alm_jax import config as config_lib
from alm_jax.training import stages

ROOT = pathlib.Path(__file__).parents[1]
NAMES = (
    'pengi',
    'ltu_stages',
    'salmonn',
    'qwen2_audio',
    'audio_flamingo',
    'audio_flamingo3',
)
# One with audio in its text and one that attends to it: enough for every run of the tests.
TRAINED_ALWAYS = ('pengi', 'audio_flamingo')


def config(name: str, arg: str | None = None):
    return config_lib.experiment(ROOT / f'configs/generative/{name}.py').get_config(arg)


@pytest.mark.parametrize('name', NAMES)
def test_a_smoke_has_the_parts_and_the_stages_of_the_whole(name):
    whole, smoke = stages.of(config(name)), stages.of(config(name, 'smoke'))
    assert [stage.name for stage in whole] == [stage.name for stage in smoke]
    for one, other in zip(whole, smoke, strict=True):
        for part in ('audio', 'connector', 'text'):
            assert one.config.model[part].name == other.config.model[part].name
        assert bool(one.config.model.text.get('lora')) == bool(other.config.model.text.get('lora'))
        assert one.config.data.pack == other.config.data.pack


def marked():
    for name in NAMES:
        mark = pytest.mark.slow if name in TRAINED_ALWAYS else pytest.mark.slow_local
        yield pytest.param(name, marks=mark)


@pytest.mark.parametrize('name', list(marked()))
def test_a_smoke_trains_in_all_stages_and_answers(name, packaged_tiny, tmp_path):
    program = Program(tmp_path, packaged_tiny, '')
    path = ROOT / f'configs/generative/{name}.py:smoke'
    done = program.train('run', '--config', path)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(row) for row in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
    losses = [row['train/loss'] for row in rows if 'train/loss' in row]
    assert len(losses) == config(name, 'smoke').steps
    # Of a language model from scratch, at most a little above that of a guess among its tokens.
    assert all(2 < loss < 13 for loss in losses)
    assert (tmp_path / 'run/evals/captioning').is_dir()
