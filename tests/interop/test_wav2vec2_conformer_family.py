"""Wav2Vec2-Conformer folders against transformers."""

import re

import numpy as np
import parity
import pytest
import speech_parity
import torch

LARGE = {'feat_extract_norm': 'layer', 'conv_bias': True, 'hidden_act': 'swish'}
SMALL = {'conv_depthwise_kernel_size': 7, **LARGE}
KINDS = {
    'relative': ('ForCTC', SMALL),
    'rotary': ('Model', {**SMALL, 'position_embeddings_type': 'rotary'}),
}


@pytest.fixture(scope='module', params=KINDS)
def pair(request, tmp_path_factory):
    name, options = KINDS[request.param]
    folder = tmp_path_factory.mktemp('conformer')
    return speech_parity.make('Wav2Vec2Conformer', name, folder, **options)


def test_every_intermediate_of_a_padded_batch(pair):
    speech_parity.check_small(pair)


@pytest.mark.parametrize('pair', ['relative'], indirect=True)
def test_input_gradient(pair):
    speech_parity.check_input_gradient(pair)


@pytest.mark.parametrize('pair', ['relative'], indirect=True)
def test_waveforms_are_encoded_as_by_the_reference(pair):
    speech_parity.check_encode(pair)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    """All that takes part; the reference has a layer that it never calls."""
    ours, theirs = pair
    parity.check_round_trip(ours, tmp_path / 'again')
    again = type(theirs).from_pretrained(tmp_path / 'again').state_dict()
    unused = re.compile(r'.*\.(pos_conv_embed|num_batches_tracked).*')
    same = [name for name in again if not unused.fullmatch('.' + name)]
    assert len(again) - len(same) == 3 + 3
    for name in same:
        assert torch.equal(theirs.state_dict()[name], again[name]), name


@pytest.mark.parametrize('pair', ['relative'], indirect=True)
def test_padding_changes_nothing_once_it_is_hidden(pair):
    """Hidden from the convolutions too; the original's see the padding."""
    model = pair[0]
    speech_parity.check_padding(model, model.module.clone(clip_alone=True))
    x, mask = speech_parity.batch()
    seen = speech_parity.outputs_of(model, x, mask)
    hidden = speech_parity.outputs_of(model, x, mask, module=model.module.clone(clip_alone=True))
    difference = np.abs(seen['tokens'] - hidden['tokens']).max(axis=(1, 2))
    assert difference[0] == 0 < difference[1]


@pytest.mark.slow_local
@pytest.mark.parametrize('positions', ['relative', 'rotary'])
def test_published_sizes(tmp_path, positions):
    """wav2vec2-conformer-rel-pos-large and -rope-large with 12 of 24 blocks, random weights."""
    options = {**speech_parity.PUBLISHED['large'], **LARGE}
    options |= {'num_hidden_layers': 12, 'position_embeddings_type': positions}
    pair = speech_parity.make('Wav2Vec2Conformer', 'Model', tmp_path, **options)
    speech_parity.check_published(pair)
