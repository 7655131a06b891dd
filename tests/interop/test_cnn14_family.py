"""Cnn14 folders against panns-inference's Cnn14, waveforms included."""

import json

import audio_reference
import jax
import numpy as np
import parity
import pytest
import torch
from bare_packages import module

from alm_jax.interop import pretrained, tensor_files

WIDTHS = (8, 12, 16, 20, 24, 32)
RATE = 32_000


def published(widths=None):
    """The reference; its own blocks made narrower with ``widths``."""
    models = module('panns_inference.models', 'torchlibrosa')
    arguments = (RATE, 1024, 320, 64, 50, 14_000, 527)
    if widths:
        kept, models.init_layer = models.init_layer, lambda layer: None
        with audio_reference.empty_convolutions():
            reference = models.Cnn14(*arguments)
        models.init_layer = kept
        audio_reference.narrow(reference, models.ConvBlock, widths, 40)
    else:
        reference = models.Cnn14(*arguments)
    audio_reference.settle(reference)
    return reference.eval()


def loaded(reference, folder, **config):
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    tensor_files.write(folder, tensors)
    (folder / 'config.json').write_text(json.dumps({'model_type': 'panns_cnn14', **config}))
    return pretrained.from_pretrained(folder)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    torch.manual_seed(0)
    reference = published(WIDTHS)
    folder = tmp_path_factory.mktemp('cnn14')
    return loaded(reference, folder, widths=list(WIDTHS), out_emb=40), reference


def noise(*lengths):
    rng = np.random.default_rng(0)
    return [(0.3 * rng.normal(size=n)).astype(np.float32) for n in lengths]


def theirs_of(reference, clips):
    """The named intermediates of a batch of equal clips: by hooks, and the result."""
    seen = {}

    def keep(name):
        return lambda _, __, output: seen.update({name: output})

    hooks = [reference.logmel_extractor.register_forward_hook(keep('mel'))]
    hooks.append(reference.bn0.register_forward_hook(keep('normed')))
    for i in range(1, 7):
        block = getattr(reference, f'conv_block{i}')
        hooks.append(block.register_forward_hook(keep(f'block_{i}')))
    hooks.append(reference.fc_audioset.register_forward_hook(keep('logits')))
    with torch.no_grad():
        seen['pooled'] = reference(torch.tensor(np.stack(clips)))['embedding']
    for hook in hooks:
        hook.remove()
    seen['normed'] = seen['normed'][..., 0].transpose(1, 2)
    for i in range(1, 7):
        seen[f'block_{i}'] = seen[f'block_{i}'].permute(0, 2, 3, 1)
    return seen


def check_batch(model, reference, clips):
    """Every intermediate of equal clips, the silence at the end of one included."""
    theirs = theirs_of(reference, clips)
    mel = theirs.pop('mel')[:, 0].numpy()
    ours = model._program(mel)
    parity.check({name: (ours[name], theirs[name]) for name in theirs})


def test_every_intermediate(pair):
    """The padded clip of the batch is pooled with its padding, as the original does."""
    short, long = noise(12_000, 21_000)
    check_batch(*pair, [np.pad(short, (0, len(long) - len(short))), long])


def test_a_waveform_gives_what_the_original_gives_for_it_alone(pair):
    """Clips of unequal length, through front end and network; one is too short for the network."""
    model, reference = pair
    clips = noise(12_000, 21_000, 2_000)
    ours = model.encode(clips, sampling_rate=RATE)
    clips[2] = np.pad(clips[2], (0, 31 * 320 - len(clips[2])))  # which the original refuses
    for row, clip in enumerate(clips):
        theirs = theirs_of(reference, [clip])
        frames = theirs['mel'].shape[2]
        pairs = {name: (ours[name][row : row + 1], theirs[name]) for name in ('pooled', 'logits')}
        pairs['normed'] = (ours['normed'][row, :frames], theirs['normed'][0])
        length = theirs['block_6'].shape[1]
        pairs['block_6'] = (ours['block_6'][row, :length], theirs['block_6'][0])
        parity.check(pairs)
        assert ours['frame_mask'][row].sum() == length


def test_input_gradient(pair):
    model, reference = pair
    mel = np.random.default_rng(1).normal(-30, 10, (2, 64, 64)).astype(np.float32)
    target = np.random.default_rng(2).normal(size=(2, 40)).astype(np.float32)

    def theirs(x):
        extractors = reference.spectrogram_extractor, reference.logmel_extractor
        reference.spectrogram_extractor = torch.nn.Identity()
        reference.logmel_extractor = torch.nn.Identity()
        embedding = reference(x[:, None])['embedding']
        reference.spectrogram_extractor, reference.logmel_extractor = extractors
        return embedding

    parity.check_input_gradient(jax.jit(lambda mel: model(mel)['pooled']), theirs, mel, target)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    model, reference = pair
    parity.check_round_trip(model, tmp_path / 'again')
    again = tensor_files.TensorFiles(tmp_path / 'again')
    state = {name: torch.tensor(again[name]) for name in again}
    lacking = reference.load_state_dict(state, strict=False)
    assert not lacking.unexpected_keys
    for name in lacking.missing_keys:
        assert name.endswith(('num_batches_tracked', 'stft.conv_real.weight', 'melW')) or (
            name == 'spectrogram_extractor.stft.conv_imag.weight'
        )


@pytest.mark.slow_local
def test_published_size(tmp_path):
    torch.manual_seed(0)
    reference = published()
    model = loaded(reference, tmp_path)
    clips = noise(64_000, 96_000)
    check_batch(model, reference, [np.pad(clips[0], (0, 32_000)), clips[1]])
    ours = model.encode(clips, sampling_rate=RATE)
    for row, clip in enumerate(clips):
        theirs = theirs_of(reference, [clip])
        parity.check({n: (ours[n][row : row + 1], theirs[n]) for n in ('pooled', 'logits')})
