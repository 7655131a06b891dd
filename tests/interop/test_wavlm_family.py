"""WavLM folders against transformers."""

import pytest
import speech_parity

# Of the reference, which gives torch two kinds of masks.
pytestmark = pytest.mark.filterwarnings('ignore:Support for mismatched key_padding_mask')

# Few buckets, so that all of them are used: distances up to 11, all beyond 9 alike.
BIAS = {'num_buckets': 12, 'max_bucket_distance': 9}
KINDS = {
    'base': ('ForCTC', BIAS),
    'large': ('Model', {**speech_parity.LARGE, **BIAS, 'conv_bias': False}),
}


@pytest.fixture(scope='module', params=KINDS)
def pair(request, tmp_path_factory):
    name, options = KINDS[request.param]
    return speech_parity.make('WavLM', name, tmp_path_factory.mktemp('wavlm'), **options)


def test_every_intermediate_of_a_padded_batch(pair):
    speech_parity.check_small(pair)


@pytest.mark.parametrize('pair', ['large'], indirect=True)
def test_input_gradient(pair):
    speech_parity.check_input_gradient(pair)


@pytest.mark.parametrize('pair', ['large'], indirect=True)
def test_waveforms_are_encoded_as_by_the_reference(pair):
    speech_parity.check_encode(pair)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    speech_parity.check_written(pair, tmp_path / 'again')


@pytest.mark.parametrize('pair', ['large'], indirect=True)
def test_padding_changes_nothing(pair):
    speech_parity.check_padding(pair[0])


@pytest.mark.slow_local
@pytest.mark.parametrize(
    ('size', 'options'), [('base', {}), ('large', {**speech_parity.LARGE, 'conv_bias': False})]
)
def test_published_sizes(tmp_path, size, options):
    """wavlm-base-plus and wavlm-large, random weights."""
    options = {**speech_parity.PUBLISHED[size], **options}
    pair = speech_parity.make('WavLM', 'Model', tmp_path, **options)
    speech_parity.check_published(pair)
