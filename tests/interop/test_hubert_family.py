"""HuBERT folders against transformers."""

import pytest
import speech_parity

# As hubert-large with a head; and with what some others have: batch-normed positions, no norm
# before the projection.
KINDS = {
    'large': ('ForCTC', speech_parity.LARGE),
    'batch norm': ('Model', {'conv_pos_batch_norm': True, 'feat_proj_layer_norm': False}),
}


@pytest.fixture(scope='module', params=KINDS)
def pair(request, tmp_path_factory):
    name, options = KINDS[request.param]
    return speech_parity.make('Hubert', name, tmp_path_factory.mktemp('hubert'), **options)


def test_every_intermediate_of_a_padded_batch(pair):
    speech_parity.check_small(pair)


@pytest.mark.parametrize('pair', ['large'], indirect=True)
def test_padding_changes_nothing(pair):
    speech_parity.check_padding(pair[0])


@pytest.mark.parametrize('pair', ['large'], indirect=True)
def test_input_gradient(pair):
    speech_parity.check_input_gradient(pair)


@pytest.mark.parametrize('pair', ['large'], indirect=True)
def test_waveforms_are_encoded_and_written_as_by_the_reference(pair):
    speech_parity.check_encode(pair)
    speech_parity.check_transcribe(pair)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    speech_parity.check_written(pair, tmp_path / 'again')


@pytest.mark.slow_local
@pytest.mark.parametrize(('size', 'options'), [('base', {}), ('large', speech_parity.LARGE)])
def test_published_sizes(tmp_path, size, options):
    """hubert-base-ls960 and hubert-large-ll60k, random weights."""
    options = {**speech_parity.PUBLISHED[size], **options}
    pair = speech_parity.make('Hubert', 'Model', tmp_path, **options)
    speech_parity.check_published(pair)
