"""Mimi folders against transformers: halves, transformers, split codes, and as a user has it."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
import transformers
from codecs_parity import (
    Recorder,
    check_again,
    check_codes,
    clips,
    program,
    spread_codebooks,
    theirs,
)

from alm_jax.interop import pretrained
from alm_jax.load import load
from alm_jax.models.audio.mimi import Size, SplitQuantizer

SMALL = {
    'num_filters': 4,
    'hidden_size': 16,
    'upsampling_ratios': [4, 2],
    'codebook_size': 32,
    'codebook_dim': 8,
    'vector_quantization_hidden_dimension': 8,
    'num_quantizers': 4,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 4,
    'intermediate_size': 24,
    'upsample_groups': 16,
    'sliding_window': 5,
}
HALVES = ('encoder', 'decoder')


def make(size, folder):
    torch.manual_seed(0)
    config = transformers.MimiConfig(**size, attn_implementation='eager')
    reference = transformers.MimiModel(config).eval()
    parity.randomise(reference)
    with torch.no_grad():
        latents = reference.encoder(theirs(clips([6000])[0])).latents
        for part in ('semantic', 'acoustic'):
            quantizer = getattr(reference.quantizer, f'{part}_residual_vector_quantizer')
            books = [layer.codebook for layer in quantizer.layers]
            spread_codebooks([book.embed_sum for book in books], quantizer.input_proj(latents))
            for book in books:
                book.cluster_usage.uniform_(0.5, 3)
                book.embed_sum.mul_(book.cluster_usage[:, None])
                book.cluster_usage[0], book.embed_sum[0], book._embed = 0, 0, None
    reference.save_pretrained(folder)
    transformers.EncodecFeatureExtractor(sampling_rate=24_000).save_pretrained(folder)
    return pretrained.from_pretrained(folder), reference


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make(SMALL, tmp_path_factory.mktemp('mimi'))


def compare(model, reference, x, lengths, count=None):
    """Checks every intermediate, the codes, and the decoding of the reference's codes."""
    seanets = (reference.encoder.encoder_seanet.layers, reference.decoder.decoder_seanet.layers)
    attending = (reference.encoder.encoder_transformer, reference.decoder.decoder_transformer)
    modules = {
        'upsampled': reference.decoder.upsample,
        'latents': reference.encoder.downsample,
    }
    for half, layers, transformer in zip(HALVES, seanets, attending):
        modules[f'{half} conv_in'] = layers[0]
        for i in range(len(reference.config.upsampling_ratios)):
            modules[f'{half} stage {i}'] = layers[3 * (i + 1)]
        modules[f'{half} conv_out'] = layers[-1]
        for i, layer in enumerate(transformer.layers):
            modules[f'{half} layer {i}'] = layer
    record = Recorder(**modules)
    with torch.no_grad():
        wanted = reference.encode(theirs(x), num_quantizers=count).audio_codes
        waveform = reference.decode(wanted).audio_values
    variables = {'params': model.params, **model.extra}
    ours = program(model.module, 'encode', codebooks=count)(variables, x, lengths)
    check_codes(ours['codes'], wanted)
    got = program(model.module, 'decode')(variables, wanted.numpy().astype(np.int32))
    pairs = {
        'latents': (ours['latents'], record.last()['latents']),
        'upsampled': (got['upsampled'], record.last()['upsampled']),
        'waveform': (got['waveform'], waveform.transpose(1, 2)),
    }
    for half, outputs in zip(HALVES, (ours, got)):
        named = {'conv_in': outputs[half]['conv_in']}
        named |= {f'stage {i}': stage for i, stage in enumerate(outputs[half]['stages'])}
        named['conv_out'] = outputs[half]['latents' if half == 'encoder' else 'waveform']
        for i, layer in enumerate(outputs[f'{half}_transformer']['hidden']):
            named[f'layer {i}'] = layer.swapaxes(1, 2)  # not channels first there
        for name, value in named.items():
            pairs[f'{half} {name}'] = value, record.last()[f'{half} {name}']
    return parity.check(pairs)


LENGTHS = [400, 333, 4]


def test_every_intermediate_of_a_padded_batch(made):
    compare(*made, *clips(LENGTHS))


def test_semantic_codes_alone(made):
    model, reference = made
    x, _ = clips([96, 96])
    with torch.no_grad():
        latents = reference.encoder(theirs(x)).latents
        wanted = reference.quantizer.encode(latents, 1).transpose(0, 1)

    def coded(quantizer, x):
        codes, quantised = quantizer(x, 1)
        return codes, quantised, quantizer.decode(codes)

    variables = {'params': model.params['quantizer']}
    quantizer = SplitQuantizer(model.module.size)
    codes, *quantised = quantizer.apply(variables, theirs(latents).numpy(), method=coded)
    np.testing.assert_array_equal(codes, wanted)
    for ours in quantised:
        parity.check({'quantised': (ours, reference.quantizer.decode(wanted).transpose(1, 2))})


def test_input_gradient(made):
    model, reference = made
    x, _ = clips([96, 96])
    target = np.random.default_rng(1).normal(size=(2, 6, 16)).astype(np.float32)

    def ours(x):
        variables = {'params': model.params, **model.extra}
        return model.module.apply(variables, x, method='encode')['latents']

    def wanted(x):
        return reference.encoder(x.transpose(1, 2)).latents.transpose(1, 2)

    parity.check_input_gradient(jax.jit(ours), wanted, x, target)


def test_it_is_written_as_it_was_read(made, tmp_path):
    check_again(*made, tmp_path / 'again')


def test_user(made):
    """alm_jax.load: clips of unequal length, as the reference's own extractor pads them."""
    reference, model = made[1], load(made[0].folder)
    waveforms = [clips([n], seed=n)[0][0, :, 0] for n in (330, 203)]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(model.folder)
    inputs = extractor(waveforms, sampling_rate=24_000, return_tensors='pt')
    with torch.no_grad():
        wanted = reference(**inputs)
    got = model.encode(waveforms, sampling_rate=24_000)
    check_codes(got.codes, wanted.audio_codes)
    assert got.frame_mask.sum(axis=1).tolist() == [21, 13]
    waves = model.decode(got)
    for wave, theirs_, samples in zip(waves, wanted.audio_values, (330, 203)):
        assert len(wave) == samples
        parity.check({'waveform': (wave, theirs_[0, :samples])})


def test_padding_changes_no_whole_code(made):
    model = made[0]
    x, lengths = clips(LENGTHS)
    longer = jnp.pad(x, ((0, 0), (0, 150), (0, 0)), constant_values=9.0)
    encode = program(model.module, 'encode', codebooks=None)
    variables = {'params': model.params, **model.extra}
    short, long = encode(variables, x, lengths), encode(variables, longer, lengths)
    for row, whole in ((0, 25), (1, 20)):
        difference = short['latents'][row, :whole] - long['latents'][row, :whole]
        assert np.abs(difference).max() <= 1e-5
        pair = (np.asarray(outputs['codes'])[row, :, :whole] for outputs in (short, long))
        np.testing.assert_array_equal(*pair)


@pytest.mark.slow_local
def test_published_size(tmp_path):
    """kyutai/mimi: all codebooks, two clips of up to 12 s, longer than the window of 250."""
    model, reference = make({}, tmp_path)
    assert model.module.size == Size(rope=model.module.size.rope)
    compare(model, reference, *clips([12 * 24_000, 80_000]))
