"""wav2vec 2.0 folders against transformers: encoder, front end, and what a CTC head writes."""

import json

import jax
import numpy as np
import pytest
import speech_parity
from safetensors import numpy as safetensors_numpy

from alm_jax.config import ConfigError
from alm_jax.interop import pretrained, tensor_files

KINDS = {'group': ('Model', {}), 'layer': ('ForCTC', speech_parity.LARGE)}


@pytest.fixture(scope='module', params=KINDS)
def pair(request, tmp_path_factory):
    name, options = KINDS[request.param]
    return speech_parity.make('Wav2Vec2', name, tmp_path_factory.mktemp('wav2vec2'), **options)


def test_every_intermediate_of_a_padded_batch(pair):
    speech_parity.check_small(pair)


@pytest.mark.parametrize('pair', ['layer'], indirect=True)
def test_masked_vectors(pair):
    speech_parity.check_masked(pair)


@pytest.mark.parametrize('pair', ['group'], indirect=True)
def test_input_gradient(pair):
    """With a norm that counts the padding; the other's is in HuBERT's test."""
    speech_parity.check_input_gradient(pair)


def test_waveforms_are_encoded_as_by_the_reference(pair):
    speech_parity.check_encode(pair)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    speech_parity.check_written(pair, tmp_path / 'again')


def test_older_names_of_the_weight_norm(pair, tmp_path):
    ours = pair[0]
    tensors = safetensors_numpy.load_file(ours.folder / 'model.safetensors')
    old = {'parametrizations.weight.original0': 'weight_g'}
    old |= {'parametrizations.weight.original1': 'weight_v'}
    for name in list(tensors):
        for new, older in old.items():
            if name.endswith(new):
                tensors[name.replace(new, older)] = tensors.pop(name)
    tensor_files.write(tmp_path, tensors)
    (tmp_path / 'config.json').write_text((ours.folder / 'config.json').read_text())
    again = pretrained.from_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, ours.params)


@pytest.mark.parametrize('pair', ['group'], indirect=True)
def test_padding_changes_nothing(pair):
    """Once the norm's statistics are of the clip alone; for layer norms see WavLM's test."""
    speech_parity.check_padding(pair[0], pair[0].module.clone(clip_alone=True))


@pytest.mark.parametrize('pair', ['layer'], indirect=True)
def test_a_text_is_what_the_reference_writes(pair):
    speech_parity.check_transcribe(pair)


@pytest.mark.parametrize('pair', ['group'], indirect=True)
def test_mistakes_are_named(pair, tmp_path):
    with pytest.raises(ConfigError, match='no CTC head'):
        pair[0].transcribe(np.zeros(400), sampling_rate=16_000)
    with pytest.raises(ValueError, match='at least 25'):
        pair[0](np.zeros((1, 24), np.float32))
    tensor_files.write(tmp_path, {})
    (tmp_path / 'config.json').write_text(json.dumps({**pair[0].config, 'add_adapter': True}))
    with pytest.raises(ConfigError, match='add_adapter'):
        pretrained.from_pretrained(tmp_path)


@pytest.mark.slow_local
@pytest.mark.parametrize(('size', 'kind'), [('base', 'group'), ('large', 'layer')])
def test_published_sizes(tmp_path, size, kind):
    """wav2vec2-base and wav2vec2-large-lv60 with a head, random weights."""
    name, options = KINDS[kind]
    options = {**speech_parity.PUBLISHED[size], **options}
    pair = speech_parity.make('Wav2Vec2', name, tmp_path, **options)
    speech_parity.check_published(pair)
