"""A run profiles itself: real steps on real recordings, traced and told apart by module."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from alm_jax import config as config_lib
from alm_jax import train
from alm_jax.config import ConfigError
from alm_jax.models.audio import spectrogram_transformer
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import goodput, profile
from alm_jax.training.perf import breakdown

STEPS = 4  # profiled
LAST = profile.WARM_UP + STEPS


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, recordings):
    """Of a run that profiles an audio tower of some ten times the FLOPs of its text tower."""
    workdir = tmp_path_factory.mktemp('profile') / 'run'
    workdir.mkdir()
    tokenizer = workdir.parent / 'tokenizer'
    captions = ['the sound of a door', 'one hears breaking glass', 'steps in water and snow']
    Tokenizer.train(captions, (32,)).save(tokenizer)
    config = config_lib.base()
    config.steps = 20
    config.batch_size = 8
    config.log_every = 1
    config.front_end.seconds = 2.0
    config.data.workers = 0
    config.data.train = ({'folder': str(recordings), 'captions': 'captions.csv', 'split': 'test'},)
    config.text.tokenizer = str(tokenizer)
    size = spectrogram_transformer.Size(width=192, depth=4, heads=4)
    config.model.audio = {'name': 'spectrogram_transformer', 'variant': size}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, 'say', lambda text: None)
        state = train.train(config, workdir, profile_steps=STEPS)
    assert int(state.step) == LAST
    return workdir


def test_the_page_tells_a_large_tower_from_a_small_one_and_sums_to_the_step(workdir):
    found = json.loads((workdir / 'profile/breakdown.json').read_text())
    assert found['steps'] == [profile.WARM_UP + 1, LAST]
    assert found['devices'] == 1
    rows = {name: row['forward'] + row['backward'] for name, row in found['rows'].items()}
    assert sum(rows.values()) == pytest.approx(found['step_seconds'], rel=1e-6)
    assert rows['audio'] > 2 * rows['text'] > 0
    assert min(found['rows']['audio'].values()) > 0
    assert found['rows']['optimizer']['backward'] == 0
    assert min(rows[name] for name in ('front_end', 'objective', 'optimizer')) > 0
    assert rows.get(breakdown.OTHER, 0) < 0.05 * found['step_seconds']
    assert found['parts']['audio/layers/mlp']['backward'] > 0
    page = (workdir / 'profile/breakdown.txt').read_text()
    assert f'Steps {profile.WARM_UP + 1} to {LAST} on 1 device(s)' in page
    assert len(page.splitlines()) < 60


def test_the_step_of_the_page_is_that_of_the_metrics(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    seconds = {line['step']: line['train/step_seconds'] for line in lines}
    found = json.loads((workdir / 'profile/breakdown.json').read_text())
    window = STEPS * found['step_seconds']
    steps = [seconds[step] for step in range(profile.WARM_UP + 1, LAST + 1)]
    assert sum(steps[1:]) < 1.1 * window  # the first one has the start of the profiler
    assert window < 1.1 * sum(steps)


def test_a_profile_saves_no_checkpoint_and_is_not_goodput(workdir):
    assert not list(workdir.glob('checkpoints/*/manifest.json'))
    assert list(workdir.glob('profile/plugins/profile/*/*.xplane.pb'))
    assert json.loads((workdir / goodput.FILE).read_text())['seconds']['profile'] > 0


def test_a_trace_without_operations_ends_no_run(tmp_path):
    state = jax.block_until_ready(jnp.zeros(2))
    program = jax.jit(lambda x: x + 1).lower(state).compile()
    with profile.Profiler(tmp_path, (1, 1)) as profiler:
        profiler.start(state)
        told = profiler.stop(state, [program])
    assert re.search(r'The trace is .*xplane.pb; there is no page of it, for it has no oper', told)


def test_the_window_of_steps():
    config = config_lib.base()
    assert profile.window(config, 0) == (0, 0)
    config.profile = (10, 13)
    config_lib.validate(config)
    assert profile.window(config, 5) == (10, 13)
    assert profile.window(config, 100, profile_steps=5) == (104, 108)
    with pytest.raises(ConfigError, match=r'must go on to step 1003.*another --workdir'):
        profile.window(config, 995, profile_steps=5)
    for wrong in ((0, 3), (5, 4), (10, 2000), (5,), (1.0, 2.0)):
        config.profile = wrong
        with pytest.raises(ConfigError, match=r'config.profile is .* such as \(10, 13\)'):
            config_lib.validate(config)
