"""AudioMAE folders, pre-trained and fine-tuned, against timm's vision transformer."""

import json

import jax
import numpy as np
import parity
import pytest
import timm_packages
import torch
from bare_packages import module

from alm_jax.config import ConfigError
from alm_jax.interop import pretrained, tensor_files
from alm_jax.interop.families import audiomae

SMALL = {'img_size': [64, 32], 'patch_size': 8, 'embed_dim': 48, 'depth': 3, 'num_heads': 4}
KINDS = {
    'audiomae_as2m': {'num_classes': 0},
    'audiomae_as2m_ft_as20k': {'num_classes': 7, 'global_pool': 'avg'},
}


def loaded(folder, arguments, extra=()):
    """(ours, timm's) with the same random weights; sizes as timm stores them."""
    torch.manual_seed(0)
    create = timm_packages.module('timm').create_model
    reference = create('vit_base_patch16_224', in_chans=1, **arguments)
    parity.randomise(reference)
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    tensor_files.write(folder, tensors | dict(extra))
    config = {'model_type': 'audiomae', 'model_args': arguments}
    (folder / 'config.json').write_text(json.dumps(config))
    return pretrained.from_pretrained(folder), reference.eval()


@pytest.fixture(scope='module', params=KINDS)
def pair(request, tmp_path_factory):
    return loaded(tmp_path_factory.mktemp('audiomae'), {**SMALL, **KINDS[request.param]})


def check_intermediates(model, reference, mel_btf):
    hidden = []

    def record(_, args, output):
        hidden.extend([args[0], output] if not hidden else [output])

    hooks = [block.register_forward_hook(record) for block in reference.blocks]
    ours = model._program(mel_btf)
    with torch.no_grad():
        tokens = reference.forward_features(torch.tensor(mel_btf)[:, None])
        pairs = {
            'tokens': (ours['tokens'], tokens),
            'pooled': (ours['pooled'], reference.forward_head(tokens, pre_logits=True)),
        }
        if model.module.classes:
            pairs['logits'] = ours['logits'], reference.forward_head(tokens)
    for hook in hooks:
        hook.remove()
    pairs['embeddings'] = ours['embeddings'], hidden[0]
    pairs |= {f'layer {i}': (ours['hidden'][i], h) for i, h in enumerate(hidden[1:])}
    return parity.check(pairs)


def test_every_intermediate(pair):
    mel = np.random.default_rng(0).normal(size=(2, 64, 32)).astype(np.float32)
    mel[1, 40:] = 0.467  # what fills a window
    check_intermediates(*pair, mel)


@pytest.mark.parametrize('pair', ['audiomae_as2m_ft_as20k'], indirect=True)
def test_input_gradient(pair):
    model, reference = pair
    mel = np.random.default_rng(1).normal(size=(2, 64, 32)).astype(np.float32)
    target = np.random.default_rng(2).normal(size=(2, 7)).astype(np.float32)
    parity.check_input_gradient(
        jax.jit(lambda x: model(x)['logits']), lambda x: reference(x[:, None]), mel, target
    )


def test_it_is_written_as_it_was_read(pair, tmp_path):
    model, reference = pair
    parity.check_round_trip(model, tmp_path / 'again')
    assert set(tensor_files.TensorFiles(tmp_path / 'again')) == set(reference.state_dict())


def test_waveforms(pair):
    """As the model card has it: a clip is cut to the window or zeros follow its log-mel."""
    model, reference = pair
    kaldi = module('torchaudio.compliance.kaldi')
    rng = np.random.default_rng(0)
    clips = [(0.1 * rng.normal(size=n)).astype(np.float32) for n in (16_000, 4_000)]
    windows = []
    for clip in clips:
        mel = kaldi.fbank(
            torch.tensor(clip)[None], htk_compat=True, window_type='hanning', num_mel_bins=32
        )[:64]
        windows.append(torch.nn.functional.pad(mel, (0, 0, 0, 64 - len(mel))))
    mel = (torch.stack(windows) + 4.2677393) / (2 * 4.5689974)
    ours = model.encode(clips, sampling_rate=16_000)
    with torch.no_grad():
        theirs = reference(mel[:, None])
    parity.check(
        {
            'features': (model.features(clips), mel),
            'result': (ours['logits' if model.module.classes else 'pooled'], theirs),
        }
    )


@pytest.mark.parametrize(
    ('config', 'pool'),
    [
        ({}, 'prefix'),
        ({'num_classes': 527}, 'mean'),
        ({'num_classes': 527, 'global_pool': True}, 'mean'),
        ({'num_classes': 527, 'model_args': {'global_pool': 'token'}}, 'prefix'),
    ],
)
def test_the_pool_that_a_config_means(config, pool):
    module = audiomae.module(config)
    assert (module.pool, module.norm_pooled) == (pool, pool == 'mean')


def test_the_decoder_is_left_aside(tmp_path):
    """The original's pre-trained file holds it; a pool that no checkpoint has is refused."""
    decoder = dict.fromkeys(('mask_token', 'decoder_blocks.0.norm1.weight'), np.zeros(3, 'f4'))
    loaded(tmp_path / 'it', SMALL | {'num_classes': 0, 'depth': 1}, decoder)
    config = {'model_type': 'audiomae', 'global_pool': 'max'}
    (tmp_path / 'it' / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="global_pool is 'max'"):
        pretrained.from_pretrained(tmp_path / 'it')


@pytest.mark.slow_local
@pytest.mark.parametrize('classes', [0, 527])
def test_the_published_size(classes, tmp_path):
    """vit_base_patch16_1024_128.audiomae_as2m and .audiomae_as2m_ft_as20k, random weights."""
    pool = {'global_pool': 'avg'} if classes else {}
    arguments = {'img_size': (1024, 128), 'num_classes': classes, **pool}
    model, reference = loaded(tmp_path, arguments)
    mel = np.random.default_rng(0).normal(size=(2, 1024, 128)).astype(np.float32)
    mel[1, 500:] = 0.467
    check_intermediates(model, reference, mel)
