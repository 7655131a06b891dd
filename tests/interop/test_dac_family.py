"""DAC folders against transformers: both halves, codes, and as a user has it."""

import jax
import numpy as np
import parity
import pytest
import torch
import transformers
from codecs_parity import Recorder, check_again, check_codes, clips, program, theirs

from alm_jax.config import ConfigError
from alm_jax.interop import pretrained
from alm_jax.load import load
from alm_jax.models.audio.dac import VARIANTS

SMALL = {
    'encoder_hidden_size': 4,
    'decoder_hidden_size': 32,
    'downsampling_ratios': [2, 5],
    'n_codebooks': 3,
    'codebook_size': 32,
    'codebook_dim': 4,
}


def make(size, folder):
    torch.manual_seed(0)
    reference = transformers.DacModel(transformers.DacConfig(**size)).eval()
    parity.randomise(reference)
    with torch.no_grad():  # what is looked up lies around zero, and so in all directions
        residual = reference.encoder(theirs(clips([4000])[0]))
        for quantizer in reference.quantizer.quantizers:
            looked_up = quantizer.in_proj(residual).transpose(1, 2).flatten(0, 1)
            quantizer.in_proj.bias -= looked_up.mean(0)
            quantizer.codebook.weight.normal_().mul_(looked_up.std(0))
            residual = residual - quantizer(residual)[0]
        record = Recorder(loud=reference.decoder.conv2)
        reference(theirs(clips([4000])[0]))
        for parameter in reference.decoder.conv2.parameters():  # tanh would saturate
            parameter /= record.last()['loud'].std()
    reference.save_pretrained(folder)
    extractor = transformers.DacFeatureExtractor(
        sampling_rate=reference.config.sampling_rate, hop_length=reference.config.hop_length
    )
    extractor.save_pretrained(folder)
    return pretrained.from_pretrained(folder), reference, extractor


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make(SMALL, tmp_path_factory.mktemp('dac'))


def compare(model, reference, x, lengths, count=None):
    """Checks every intermediate, the codes, and the decoding of the reference's codes."""
    halves = {'encoder': reference.encoder, 'decoder': reference.decoder}
    record = Recorder(
        **{f'{name} conv_in': half.conv1 for name, half in halves.items()},
        **{f'{name} stage {i}': b for name, h in halves.items() for i, b in enumerate(h.block)},
        latents=reference.encoder.conv2,
    )
    with torch.no_grad():
        wanted = reference.encode(theirs(x), count)
        waveform = reference.decode(audio_codes=wanted.audio_codes).audio_values
    variables = {'params': model.params}
    ours = program(model.module, 'encode', codebooks=count)(variables, x, lengths)
    check_codes(ours['codes'], wanted.audio_codes)
    codes = wanted.audio_codes.numpy().astype(np.int32)
    got = program(model.module, 'decode')(variables, codes)
    pairs = {
        'latents': (ours['latents'], record.last()['latents']),
        'projected': (ours['projected'], wanted.projected_latents.transpose(1, 2)),
        'quantised': (got['quantised'], wanted.quantized_representation.transpose(1, 2)),
        'waveform': (got['waveform'][..., 0], waveform),
    }
    for name, part in (('encoder', ours['encoder']), ('decoder', got['decoder'])):
        pairs[f'{name} conv_in'] = part['conv_in'], record.last()[f'{name} conv_in']
        for i, stage in enumerate(part['stages']):
            pairs[f'{name} stage {i}'] = stage, record.last()[f'{name} stage {i}']
    return parity.check(pairs)


def test_every_intermediate_of_a_padded_batch(made):
    """By the first two of three codebooks; by all in ``test_user``."""
    model, reference, _ = made
    compare(model, reference, *clips([400, 333, 4]), 2)


def test_input_gradient(made):
    """Of the latents, and of the waveform through all the codebooks."""
    model, reference, _ = made
    x, _ = clips([80, 80])
    rng = np.random.default_rng(1)
    targets = [rng.normal(size=(2, 8, 16)), rng.normal(size=(2, 78, 1))]
    names, ends = ('latents', 'waveform'), (8, 78)

    def ours(x):
        outputs = model.module.apply({'params': model.params}, x)
        parts = [outputs[name][:, :end] for name, end in zip(names, ends)]
        return jax.numpy.concatenate([part.reshape(2, -1) for part in parts], axis=1)

    def wanted(x):
        latents = reference.encoder(x.transpose(1, 2)).transpose(1, 2)
        waveform = reference(x.transpose(1, 2)).audio_values[:, :78]
        return torch.cat([latents.flatten(1), waveform], dim=1)

    target = np.concatenate([t.reshape(2, -1) for t in targets], axis=1).astype(np.float32)
    parity.check_input_gradient(jax.jit(ours), wanted, x, target)


def test_it_is_written_as_it_was_read(made, tmp_path):
    check_again(made[0], made[1], tmp_path / 'again')


def test_user(made):
    """alm_jax.load: clips of unequal length, padded as the reference's own extractor does."""
    _, reference, extractor = made
    model = load(made[0].folder)
    waveforms = [clips([n], seed=n)[0][0, :, 0] for n in (333, 204)]
    inputs = extractor(waveforms, sampling_rate=16_000, return_tensors='pt')
    with torch.no_grad():
        wanted = reference(inputs['input_values'])
    got = model.encode(waveforms, sampling_rate=16_000)
    check_codes(got.codes, wanted.audio_codes)
    assert got.frame_mask.sum(axis=1).tolist() == [34, 21]
    waves = model.decode(got)
    assert [len(wave) for wave in waves] == [333, 204]
    for wave, theirs_ in zip(waves, wanted.audio_values):
        parity.check({'waveform': (wave, theirs_[: len(wave)])})
    again = model.decode(got.codes)
    np.testing.assert_array_equal(again[1][:204], waves[1])
    with pytest.raises(ConfigError, match='codebooks is 4'):
        model.encode(waveforms, sampling_rate=16_000, codebooks=4)
    with pytest.raises(ConfigError, match=r'expected \[b, codebooks, t\]'):
        model.decode(got.codes[0])


@pytest.mark.slow_local
@pytest.mark.parametrize('name', ['16khz', '44khz'])
def test_published_sizes(name, tmp_path):
    """All codebooks, two clips of up to 1 s, random weights."""
    variant = VARIANTS[name]
    rate = 16_000 if name == '16khz' else 44_100
    config = {'downsampling_ratios': list(variant.ratios), 'n_codebooks': variant.codebooks}
    model, reference, _ = make({**config, 'sampling_rate': rate}, tmp_path)
    assert model.module.size == variant
    samples = rate // variant.hop * variant.hop
    compare(model, reference, *clips([samples, samples // 2]))
