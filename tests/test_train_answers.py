"""A run that learns to answer, in two stages, the second with adapters that the first lacks."""

import json
import shutil

import jax
import numpy as np
import pytest

from alm_jax import config as config_lib
from alm_jax import run_setup
from alm_jax.config import ConfigError
from alm_jax.data import sources
from alm_jax.load import AnsweringModel, load, load_towers
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.train import train
from alm_jax.training import checkpoint, stages
from alm_jax.training.param_names import flatten_canonical

FIRST, SECOND = 3, 2  # steps of the stages


@pytest.fixture(scope='module')
def run(tmp_path_factory, packaged_tiny):
    """The workdir; the tokenizer that it was made with is gone."""
    folder = tmp_path_factory.mktemp('answers')
    config = config_lib.base()
    config.batch_size, config.steps, config.log_every = 2, FIRST + SECOND, 1
    config.data.dir, config.data.workers = str(packaged_tiny), 0
    config.data.train = ({'name': 'packaged_sounds/tiny:train', 'where': {'kind': ['sound']}},)
    config.data.text.dialogue, config.text.lengths = 'chat', (64,)
    config.front_end.seconds = 1.0
    config.task.name, config.model.family = 'generative', 'two_head'
    config.model.audio = {'name': 'spectrogram_transformer', 'variant': 'mu'}
    config.model.text = {'name': 'decoder', 'variant': 'mu', 'vocabulary': 4000}
    source = sources.open_source('packaged_sounds/tiny:train', packaged_tiny)
    captions = [text for i in range(0, len(source), 20) for text in source[i]['captions']]
    LanguageTokenizer.train(captions).save(folder / 'tokenizer')
    config.text.tokenizer = str(folder / 'tokenizer')
    config.stages = (
        {'name': 'connector', 'steps': FIRST, 'freeze': ('^audio/', '^text/')},
        {
            'name': 'adapters',
            'steps': SECOND,
            'freeze': ('^audio/', '^text/(?!.*lora_)'),
            'model.text.lora': {'rank': 2},
            'data.text.instruction': True,
        },
    )
    (folder / 'run').mkdir()
    train(config, folder / 'run')
    shutil.rmtree(folder / 'tokenizer')
    return folder / 'run'


def test_it_learns_what_each_stage_lets_it(run):
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert [line['stage'] for line in lines] == ['connector'] * FIRST + ['adapters'] * SECOND
    assert all(line['train/loss'] > 0 and line['train/counted'] > 0 for line in lines)
    paths = [run / 'checkpoints' / str(step) for step in (FIRST, FIRST + SECOND)]
    before, after = [flatten_canonical(checkpoint.load_params(path)[0]) for path in paths]
    new = after.keys() - before.keys()
    assert new == {name for name in after if 'lora_' in name}
    assert {name.rsplit('/', 2)[1] for name in new} == {'query', 'value'}
    changed = {name for name in before if np.any(before[name] != after[name])}
    assert changed == {name for name in before if name.startswith('connector/')}
    assert all(np.any(after[name]) for name in new)  # lora_b starts as nothing


def test_it_loads_from_its_workdir_alone_and_answers(run):
    clips = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 16_000)).astype(np.float32)
    model = load(run)
    assert isinstance(model, AnsweringModel)
    assert model.predictors.tokenizer.chat_template
    options = {'sampling_rate': 16_000, 'max_tokens': 4}
    both = model.generate(clips, 'What is heard?', **options)
    assert [type(text) for text in both] == [str, str]
    assert model.generate(clips[1], 'What is heard?', **options) == both[1:]
    assert len(model.generate(clips, '<audio> or <audio>?', **options)) == 1
    assert len(model.generate(clips, ['What?', 'Why?'], **options)) == 2
    with pytest.raises(ConfigError, match='2 clips for 3 places in 2 prompts'):
        model.generate(clips, ['<audio> or <audio>?', 'Why?'], **options)
    earlier = load(run, FIRST)  # whose stage had no adapters
    assert 'lora_a' not in str(jax.tree.structure(earlier.params))
    assert len(earlier.generate(clips, **options)) == 2
    with pytest.raises(ConfigError, match='answers in words and embeds nothing'):
        load_towers(run)


@pytest.mark.parametrize(('dialogue', 'evaluator'), [('', 'retrieval'), ('plain', 'captioning')])
def test_own_data_takes_the_place_of_that_of_all_stages(recordings, tmp_path, dialogue, evaluator):
    rows = (recordings / 'captions.csv').read_text().replace(',test,', ',validation,')
    (tmp_path / 'own.csv').write_text(rows)
    config = config_lib.base()
    config.steps, config.data.text.dialogue = 8, dialogue
    config.stages = ({'name': 'one', 'steps': 8, 'data.train': (), 'evals': {}, 'remat': 'dots'},)
    run_setup.use_own_data(config, str(recordings), str(tmp_path / 'own.csv'))
    (stage,) = stages.of(config)
    assert stage.config.data.train[0]['folder'] == str(recordings)
    entry = stage.config.evals[f'{evaluator}_validation']
    assert (entry['evaluator'], entry['every'], stage.config.remat) == (evaluator, 2, 'dots')
