"""CAV-MAE's audio branch, of which no package is published, against the parts that timm has."""

import json

import numpy as np
import parity
import pytest
import timm_packages
import torch

from alm_jax.interop import pretrained, tensor_files

SMALL = {
    'audio_length': 64,
    'num_mel_bins': 32,
    'patch_size': 8,
    'embed_dim': 48,
    'modality_specific_depth': 2,
    'depth': 3,
    'num_heads': 4,
    'label_dim': 7,
}
UNUSED = (
    'patch_embed_v.proj.weight',
    'pos_embed_v',
    'modality_v',
    'blocks_v.0.attn.qkv.weight',
    'blocks_a.0.norm1_a.weight',
    'blocks_a.0.norm2_v.bias',
    'blocks_u.0.norm1.weight',
    'blocks_u.0.norm2_v.bias',
    'norm_v.weight',
    'norm.bias',
    'decoder_blocks.0.norm1.weight',
    'decoder_pos_embed_a',
    'mask_token',
)


def loaded(folder, config):
    """(ours, timm's parts with the same random weights, the positions and the modality)."""
    vit = timm_packages.module('timm.models.vision_transformer')
    width, heads = config.get('embed_dim', 768), config.get('num_heads', 12)
    patch, frames = config.get('patch_size', 16), config.get('audio_length', 1024)
    bins, own = config.get('num_mel_bins', 128), config.get('modality_specific_depth', 11)
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm
    parts = torch.nn.ModuleDict(
        {
            'patch_embed_a': vit.PatchEmbed((bins, frames), patch, 1, width),
            'blocks': torch.nn.ModuleList(
                vit.Block(width, heads, qkv_bias=True, norm_layer=norm)
                for _ in range(config.get('depth', 12))
            ),
            'norm_a': norm(width),
        }
    )
    if config.get('label_dim'):
        head = torch.nn.Linear(width, config['label_dim'])
        parts['mlp_head'] = torch.nn.Sequential(norm(width), head)
    parity.randomise(parts)
    generator = np.random.default_rng(0)
    steps = frames // patch * (bins // patch)
    added = {
        'pos_embed_a': generator.normal(size=(1, steps, width)).astype(np.float32),
        'modality_a': generator.normal(size=(1, 1, width)).astype(np.float32),
    }
    tensors = dict(added)
    for name, tensor in parts.state_dict().items():
        if name.startswith('blocks.'):
            _, number, rest = name.split('.', 2)
            kind, i = ('a', int(number)) if int(number) < own else ('u', int(number) - own)
            for which in ('norm1', 'norm2') if kind == 'u' else ():
                rest = rest.replace(f'{which}.', f'{which}_a.')
            name = f'blocks_{kind}.{i}.{rest}'
        tensors[name] = tensor.numpy()
    tensor_files.write(folder, tensors | dict.fromkeys(UNUSED, np.zeros(3, np.float32)))
    (folder / 'config.json').write_text(json.dumps({'model_type': 'cav_mae', **config}))
    return pretrained.from_pretrained(folder), parts.eval(), added


@pytest.fixture(scope='module')
def trio(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp('cav_mae'), SMALL)


def in_our_order(tokens, bands):
    """Theirs [b, f' * t', d], step by step within a band -> band by band within a step."""
    return tokens.unflatten(1, (bands, -1)).transpose(1, 2).flatten(1, 2)


def check_parts(model, parts, added, mel_btf):
    ours = model._program(mel_btf)
    bands, pairs = model.module.grid[1], {}
    with torch.no_grad():
        x = parts['patch_embed_a'](torch.tensor(mel_btf).transpose(1, 2)[:, None])
        for tensor in added.values():
            x = x + torch.tensor(tensor)
        pairs['embeddings'] = ours['embeddings'], in_our_order(x, bands)
        for i, block in enumerate(parts['blocks']):
            x = block(x)
            pairs[f'layer {i}'] = ours['hidden'][i], in_our_order(x, bands)
        x = parts['norm_a'](x)
        pairs['tokens'] = ours['tokens'], in_our_order(x, bands)
        pairs['pooled'] = ours['pooled'], x.mean(dim=1)
        if 'mlp_head' in parts:
            pairs['logits'] = ours['logits'], parts['mlp_head'](x.mean(dim=1))
    return parity.check(pairs)


def test_its_parts(trio):
    mel = np.random.default_rng(1).normal(size=(2, 64, 32)).astype(np.float32)
    mel[1, 40:] = 1.133  # what fills a window
    check_parts(*trio, mel)


def test_input_gradient(trio):
    model, parts, added = trio
    rng = np.random.default_rng(2)
    mel = rng.normal(size=(2, 64, 32)).astype(np.float32)
    target = rng.normal(size=(2, 48)).astype(np.float32)

    def theirs(mel):
        x = parts['patch_embed_a'](mel.transpose(1, 2)[:, None])
        for tensor in added.values():
            x = x + torch.tensor(tensor)
        for block in parts['blocks']:
            x = block(x)
        return parts['norm_a'](x).mean(dim=1)

    parity.check_input_gradient(lambda x: model._program(x)['pooled'], theirs, mel, target)


def test_it_is_written_as_it_was_read(trio, tmp_path):
    parity.check_round_trip(trio[0], tmp_path / 'again')
    names = set(tensor_files.TensorFiles(trio[0].folder)) - set(UNUSED)
    assert set(tensor_files.TensorFiles(tmp_path / 'again')) == names


def test_waveforms(trio):
    """Two clips in windows of 64 frames: AST's log-mel with CAV-MAE's mean and one deviation."""
    rng = np.random.default_rng(0)
    clips = [(0.1 * rng.normal(size=n)).astype(np.float32) for n in (16_000, 4_000)]
    model = trio[0]
    outputs = model.encode(clips, sampling_rate=16_000)
    mel = model.features(clips)
    assert mel.shape == (2, 64, 32)
    np.testing.assert_allclose(mel[1, 23:], 5.081 / 4.4849, rtol=1e-6)
    np.testing.assert_array_equal(outputs['logits'], model._program(mel)['logits'])


@pytest.mark.slow_local
def test_the_published_size(tmp_path):
    """LTU's encoder, random weights; ours takes every size by default."""
    model, parts, added = loaded(tmp_path, {})
    assert model.module.grid == (64, 8)
    mel = np.random.default_rng(0).normal(size=(2, 1024, 128)).astype(np.float32)
    check_parts(model, parts, added, mel)
