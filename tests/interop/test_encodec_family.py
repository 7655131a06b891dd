"""EnCodec folders against transformers: both halves, codes, chunks, names, and as a user has it."""

import dataclasses

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

from alm_jax.config import ConfigError
from alm_jax.interop import pretrained, tensor_files
from alm_jax.load import load
from alm_jax.models.audio.encodec import VARIANTS

SIZES = {
    'causal': {'sampling_rate': 24_000, 'target_bandwidths': [36.0, 72.0]},
    'stereo': {
        'sampling_rate': 160,
        'target_bandwidths': [0.24, 0.48],
        'audio_channels': 2,
        'use_causal_conv': False,
        'norm_type': 'time_group_norm',
        'normalize': True,
        'chunk_length_s': 1.0,
        'overlap': 0.05,
        'upsampling_ratios': [8],
    },
}
SMALL = {'num_filters': 4, 'hidden_size': 16, 'codebook_size': 64, 'upsampling_ratios': [4, 2]}
LENGTHS = {'causal': [331, 170, 5], 'stereo': [464, 300, 152]}


def make(size, folder):
    torch.manual_seed(0)
    reference = transformers.EncodecModel(transformers.EncodecConfig(**size)).eval()
    parity.randomise(reference)
    channels, rate = reference.config.audio_channels, reference.config.sampling_rate
    x, _ = clips([min(rate, 4000) if channels == 2 else 4000], channels)
    with torch.no_grad():
        latents = reference.encoder(theirs(x))
    books = [layer.codebook for layer in reference.quantizer.layers]
    spread_codebooks([book.embed for book in books], latents)
    for book in books:
        book.cluster_size.uniform_(1, 2)
        book.embed_avg.normal_()
    reference.save_pretrained(folder)
    extractor = transformers.EncodecFeatureExtractor(
        feature_size=channels,
        sampling_rate=rate,
        chunk_length_s=reference.config.chunk_length_s,
        overlap=reference.config.overlap,
    )
    extractor.save_pretrained(folder)
    return pretrained.from_pretrained(folder), reference, extractor


@pytest.fixture(scope='module', params=SIZES)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model, reference, extractor = make(SMALL | SIZES[request.param], folder)
    return request.param, model, reference, extractor


def compare(model, reference, x, lengths, bandwidth):
    """Checks every intermediate, the codes, and the decoding of the reference's codes."""
    encoder, decoder = reference.encoder.layers, reference.decoder.layers
    size = model.module.size.halves
    lstm = len(encoder) - 3
    step = size.units + 2
    record = Recorder(
        conv_in=encoder[0],
        **{f'stage {i}': encoder[step * (i + 1)] for i in range(len(size.ratios))},
        lstm=encoder[lstm],
        latents=encoder[-1],
        decoder_conv_in=decoder[0],
        decoder_lstm=decoder[1],
        **{f'decoder stage {i}': decoder[1 + step * (i + 1)] for i in range(len(size.ratios))},
        waveform=decoder[-1],
    )
    mask = torch.tensor(np.arange(x.shape[1]) < lengths[:, None])[:, None]
    with torch.no_grad():
        wanted = reference.encode(theirs(x), mask.expand(-1, x.shape[2], -1), bandwidth)
        their_waveform = reference.decode(
            wanted.audio_codes,
            wanted.audio_scales,
            last_frame_pad_length=wanted.last_frame_pad_length,
        ).audio_values
    variables = {'params': model.params, **model.extra}
    count = wanted.audio_codes.shape[2]
    ours = program(model.module, 'encode', codebooks=count)(variables, x, lengths)
    codes, frames = wanted.audio_codes.permute(1, 2, 0, 3), ours['codes'].shape[2]
    codes = codes.reshape(len(x), count, -1)[..., :frames]
    check_codes(ours['codes'], codes, ours['frame_mask'])

    decode = program(model.module, 'decode')
    got = decode(variables, codes.numpy().astype(np.int32), ours.get('scales'))
    pairs = {'decoded': (got['waveform'], their_waveform.transpose(1, 2))}
    if 'scales' in ours:
        wanted_scales = torch.stack(list(wanted.audio_scales)).permute(1, 0, 2)[..., 0]
        pairs['scales'] = (ours['scales'], wanted_scales)
    for half, prefix in (('encoder', ''), ('decoder', 'decoder ')):
        for number, part in enumerate((ours if half == 'encoder' else got)[half]):
            named = {
                'conv_in': part['conv_in'],
                'lstm': part['lstm'],
                **{f'stage {i}': stage for i, stage in enumerate(part['stages'])},
            }
            named |= {'latents': part['latents']} if half == 'encoder' else {}
            named = {prefix + name: value for name, value in named.items()}
            for name, value in named.items():
                key = name.replace('decoder conv_in', 'decoder_conv_in')
                outputs = record.outputs[key.replace('decoder lstm', 'decoder_lstm')]
                chunks = torch.stack([o for o in outputs if o.shape[1] == value.shape[1]], dim=1)
                pairs[f'{name} of group {number}'] = (value, chunks.flatten(0, 1))
    return parity.check(pairs)


def test_every_intermediate_of_a_padded_batch(made):
    kind, model, reference, _ = made
    x, lengths = clips(LENGTHS[kind], reference.config.audio_channels)
    compare(model, reference, x, lengths, reference.config.target_bandwidths[-1])


def test_input_gradient(made):
    _, model, reference, _ = made
    x, _ = clips([80, 80], reference.config.audio_channels)
    target = np.random.default_rng(1).normal(size=(2, 10, 16)).astype(np.float32)
    normalise = reference.config.normalize

    def ours(x):
        variables = {'params': model.params, **model.extra}
        return model.module.apply(variables, x, method='encode')['latents']

    def wanted(x):
        x = x.transpose(1, 2)
        if normalise:
            x = x / (x.mean(1, keepdim=True).pow(2).mean(-1, keepdim=True).sqrt() + 1e-8)
        return reference.encoder(x).transpose(1, 2)

    parity.check_input_gradient(jax.jit(ours), wanted, x, target)


def test_it_is_written_as_it_was_read(made, tmp_path):
    check_again(made[1], made[2], tmp_path / 'again')


@pytest.mark.parametrize('made', ['stereo'], indirect=True)
def test_user(made):
    """alm_jax.load: clips of unequal length at a bandwidth, as the reference's own extractor."""
    _, model, reference, extractor = made
    model, rate, channels = load(model.folder), model.sampling_rate, model.channels
    clip_list = [clips([n], channels, seed=n)[0][0] for n in (330, 203)]
    clip_list = [clip[:, 0] for clip in clip_list] if channels == 1 else clip_list
    inputs = extractor([clip.T for clip in clip_list], sampling_rate=rate, return_tensors='pt')
    with torch.no_grad():
        wanted = reference(**inputs)
    got = model.encode(clip_list, sampling_rate=rate)
    codes = wanted.audio_codes.permute(1, 2, 0, 3).flatten(2)[..., : got.codes.shape[2]]
    check_codes(got.codes, codes, got.frame_mask)
    waves = model.decode(got)
    assert [len(wave) for wave in waves] == [330, 203]
    for wave, theirs_ in zip(waves, wanted.audio_values):
        theirs_ = theirs_.T[: len(wave)] if channels == 2 else theirs_[0, : len(wave)]
        parity.check({'waveform': (wave, theirs_)})
    with pytest.raises(ConfigError, match='bandwidth is 7'):
        model.encode(clip_list, sampling_rate=rate, bandwidth=7.0)
    with pytest.raises(ConfigError, match='expected'):
        model.encode(np.zeros((4, 3, 5)), sampling_rate=rate)
    with pytest.raises(ConfigError, match='0 to 63'):
        model.decode(dataclasses.replace(got, codes=got.codes + 64))
    with pytest.raises(ConfigError, match='with scales'):
        model.decode(got.codes)


@pytest.mark.parametrize('made', ['causal'], indirect=True)
def test_older_names_of_weight_norm(made, tmp_path):
    model = made[1]
    tensors = tensor_files.TensorFiles(model.folder)
    styles = {'parametrizations.weight.original0': 'weight_g'}
    styles |= {'parametrizations.weight.original1': 'weight_v'}
    renamed = {}
    for name in tensors:
        older = name
        for new, old in styles.items():
            older = older.replace(new, old)
        renamed[older] = tensors[name]
    tensor_files.write(tmp_path, renamed)
    (tmp_path / 'config.json').write_text((model.folder / 'config.json').read_text())
    again = pretrained.from_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.params, again.params)


@pytest.mark.parametrize('made', ['causal'], indirect=True)
def test_padding_of_a_causal_model_changes_nothing(made):
    model = made[1]
    x, lengths = clips(LENGTHS['causal'])
    longer = jnp.pad(x, ((0, 0), (0, 200), (0, 0)), constant_values=0.5)
    encode = program(model.module, 'encode', codebooks=4)
    variables = {'params': model.params, **model.extra}
    short, long = encode(variables, x, lengths), encode(variables, longer, lengths)
    for row, samples in enumerate(lengths):
        whole = samples // 8
        difference = short['latents'][row, :whole] - long['latents'][row, :whole]
        assert not whole or np.abs(difference).max() <= 1e-5
        np.testing.assert_array_equal(short['codes'][row, :, :whole], long['codes'][row, :, :whole])
        assert short['frame_mask'][row].sum() == long['frame_mask'][row].sum() == -(-samples // 8)


PUBLISHED = {
    '24khz': {},
    '48khz': {
        'sampling_rate': 48_000,
        'audio_channels': 2,
        'use_causal_conv': False,
        'norm_type': 'time_group_norm',
        'normalize': True,
        'chunk_length_s': 1.0,
        'overlap': 0.01,
        'target_bandwidths': [3.0, 6.0, 12.0, 24.0],
    },
    '32khz': {
        'sampling_rate': 32_000,
        'num_filters': 64,
        'upsampling_ratios': [8, 5, 4, 4],
        'use_causal_conv': False,
        'use_conv_shortcut': False,
        'codebook_size': 2048,
        'target_bandwidths': [2.2],
    },
}


@pytest.mark.slow_local
@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name, tmp_path):
    """All codebooks, two clips of up to 1.5 s, random weights."""
    model, reference, _ = make(PUBLISHED[name], tmp_path)
    rate = reference.config.sampling_rate
    assert model.module.size == VARIANTS[name]
    x, lengths = clips([rate * 3 // 2, rate], reference.config.audio_channels)
    compare(model, reference, x, lengths, reference.config.target_bandwidths[-1])
