"""A run of HTS-AT and BERT, written as a ClapModel: transformers gives the same embeddings."""

import jax
import numpy as np
import parity
import pytest
import torch
import transformers

from alm_jax import config as config_lib
from alm_jax.audio import decode
from alm_jax.config import ConfigError
from alm_jax.data import loader
from alm_jax.interop import convert, export, inspection, pretrained, sources
from alm_jax.tasks import build_task
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import checkpoint, optimizer, state

TEXTS = ['a dog barks', 'water is running.', 'glass']


@pytest.fixture(scope='module')
def run(tiny_run):
    """(config, params, extra, task) of a small model as training would leave it."""
    config = config_lib.base()
    config.front_end.preset = 'clap'
    config.front_end.seconds = 2.0
    config.model.audio = config_lib.ConfigDict({'name': 'htsat', 'variant': 'mu'})
    config.model.text = config_lib.ConfigDict({'name': 'bert', 'variant': 'mu_roberta'})
    config.model.projection = 'mlp'
    config.model.embed_dim = 20
    tokenizer = Tokenizer.load(tiny_run / 'tokenizer', (32,))
    config.text.lengths = (32,)
    task = build_task(config, tokenizer=tokenizer)
    spec = loader.batch_spec(config, window_samples=task.window_samples)
    params, extra = jax.jit(lambda: task.init(jax.random.key(0), spec))()
    noise = jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))
    leaves = [
        leaf + 0.05 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(noise, jax.tree.leaves(params))
    ]
    params = jax.tree.unflatten(jax.tree.structure(params), leaves)
    return config, params, extra, task


def test_transformers_gives_the_same_embeddings(run, recordings, tmp_path):
    config, params, extra, task = run
    folder = export.export_clap(config, params, extra, task.predictors.tokenizer, tmp_path / 'clap')
    theirs = transformers.ClapModel.from_pretrained(folder).eval()
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = ('default_break_glass.1.ogg', 'doors_door_open.ogg')
    rate = 48_000  # as if: what is compared is what follows the resampling
    x = [decode.decode(recordings / name)[0][: 2 * rate] for name in names]
    features = extractor(x, sampling_rate=rate, return_tensors='pt')
    tokens = tokenizer(TEXTS, padding=True, return_tensors='pt')
    again = pretrained.from_pretrained(folder)
    ours = task.predictors.embed_audio(params, extra, [(clip, rate) for clip in x])
    with torch.no_grad():
        audio = theirs.get_audio_features(features['input_features']).pooler_output
        text = theirs.get_text_features(tokens['input_ids'], tokens['attention_mask']).pooler_output
    parity.check(
        {
            'audio': (ours, audio),
            'text': (task.predictors.embed_text(params, extra, TEXTS), text),
            'audio, read here': (again.embed_audio(x, sampling_rate=rate), audio),
            'text, read here': (again.embed_text(TEXTS), text),
            'scale': (np.exp(params['logit_scale']), theirs.logit_scale_t.exp()),
        }
    )


def test_a_workdir_is_converted(run, tmp_path):
    config, params, extra, task = run
    workdir = tmp_path / 'run'
    task.predictors.tokenizer.save(workdir / 'tokenizer')
    config = config.copy_and_resolve_references()
    config.text.tokenizer = str(workdir / 'tokenizer')
    (workdir / 'config.json').write_text(config_lib.to_json(config))
    with checkpoint.Checkpointer(workdir, keep=1) as checkpointer:
        checkpointer.save(state.create(params, extra, optimizer.make_optimizer(config, params)))
    convert.convert(workdir, tmp_path / 'converted')
    export.export_clap(config, params, extra, task.predictors.tokenizer, tmp_path / 'exported')
    names = [sorted(p.name for p in (tmp_path / n).iterdir()) for n in ('converted', 'exported')]
    assert names[0] == names[1]
    for name in names[0]:
        written = [(tmp_path / n / name).read_bytes() for n in ('converted', 'exported')]
        assert written[0] == written[1], name
    text = inspection.table(sources.open_source(tmp_path / 'converted'))
    assert 'all names match' in text


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('model.projection', 'linear', 'projection mlp'),
        ('front_end.preset', 'yamnet', 'preset clap'),
        ('front_end.seconds', 2.5, 'whole seconds'),
        ('model.text', {'name': 'bert', 'variant': 'mu'}, 'pooler'),
    ],
)
def test_what_a_clap_model_cannot_hold_is_refused(run, tmp_path, key, value, message):
    config, params, extra, task = run
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=message):
        export.export_clap(config, params, extra, task.predictors.tokenizer, tmp_path / 'x')
