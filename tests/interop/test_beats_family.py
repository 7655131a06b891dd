"""BEATs folders against speechbrain's BEATs, waveforms included."""

import json

import jax
import numpy as np
import parity
import pytest
import torch
from bare_packages import module

from alm_jax.interop import pretrained, tensor_files

SMALL = {
    'encoder_embed_dim': 48,
    'encoder_layers': 3,
    'encoder_attention_heads': 4,
    'encoder_ffn_embed_dim': 100,
    'embed_dim': 32,
    'conv_pos': 12,
    'conv_pos_groups': 2,
    'num_buckets': 32,
    'max_distance': 50,
    'predictor_class': 7,
}
PUBLISHED = {
    'relative_position_embedding': True,
    'gru_rel_pos': True,
    'deep_norm': True,
    'max_distance': 800,
    'finetuned_model': True,
}
RATE = 16_000


def published(cfg):
    beats = module('speechbrain.lobes.models.beats', 'torchaudio')
    make = beats.BEATsConfig
    beats.BEATsConfig = lambda _: make(cfg)  # without a checkpoint it takes no configuration
    reference = beats.BEATs(output_all_hiddens=True)
    parity.randomise(reference)
    return reference.eval()


def loaded(reference, folder, config):
    """Under the names of the published files, which speechbrain's reader turns into torch's new."""
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    for new, old in (('original0', 'weight_g'), ('original1', 'weight_v')):
        name = f'encoder.pos_conv.0.parametrizations.weight.{new}'
        tensors[f'encoder.pos_conv.0.{old}'] = tensors.pop(name)
    tensor_files.write(folder, tensors)
    (folder / 'config.json').write_text(json.dumps({'model_type': 'beats', **config}))
    return pretrained.from_pretrained(folder)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    torch.manual_seed(0)
    reference = published({**PUBLISHED, **SMALL})
    folder = tmp_path_factory.mktemp('beats')
    return loaded(reference, folder, {'cfg': {**SMALL, 'finetuned_model': True}}), reference


def noise(*lengths):
    rng = np.random.default_rng(0)
    return [(0.3 * rng.normal(size=n)).astype(np.float32) for n in lengths]


def theirs_of(reference, clips):
    """The named intermediates of clips padded to the longest, and how many frames each fills."""
    seen = {}

    def keep(name):
        return lambda _, __, output: seen.update({name: output.detach()})

    hooks = [reference.layer_norm.register_forward_hook(keep('patches'))]
    preprocess = reference.preprocess
    longest = max(len(clip) for clip in clips)

    def kept(*args):
        seen['mel'] = preprocess(*args)
        return seen['mel']

    reference.preprocess = kept
    padded = torch.tensor(np.stack([np.pad(c, (0, longest - len(c))) for c in clips]))
    shares = torch.tensor([len(clip) / longest for clip in clips], dtype=torch.float64)
    with torch.no_grad():
        hidden, probabilities, padding = reference.extract_features(padded, shares)
    reference.preprocess = preprocess
    for hook in hooks:
        hook.remove()
    hidden = hidden.transpose(1, 2)
    seen |= {'embeddings': hidden[0], 'hidden': hidden[1:], 'probabilities': probabilities}
    frames = -(-shares.numpy() * longest // (longest // seen['mel'].shape[1]))
    return seen, padding.logical_not(), np.minimum(frames, seen['mel'].shape[1]).astype(np.int32)


def check_batch(model, reference, clips):
    """A padded batch, with the original's own mask."""
    theirs, mask, frames = theirs_of(reference, clips)
    ours = model._program(theirs['mel'].numpy(), frames)
    np.testing.assert_array_equal(ours['token_mask'], mask)
    assert not mask.all()
    pairs = {name: (ours[name], theirs[name]) for name in ('patches', 'embeddings')}
    for i, hidden in enumerate(theirs['hidden']):
        pairs[f'layer {i}'] = (ours['hidden'][i], hidden)
    masks = dict.fromkeys(pairs, mask.numpy())
    pairs['probabilities'] = (jax.nn.sigmoid(ours['logits']), theirs['probabilities'])
    parity.check(pairs, masks)


def check_waveforms(model, reference, clips):
    """Clips of unequal length in one batch give what the original gives for each alone."""
    ours = model.encode(clips, sampling_rate=RATE)
    for row, clip in enumerate(clips):
        theirs, mask, _ = theirs_of(reference, [clip])
        count = mask.shape[1]
        pairs = {
            'tokens': (ours['tokens'][row, :count], theirs['hidden'][-1][0]),
            'probabilities': (jax.nn.sigmoid(ours['logits'][row]), theirs['probabilities'][0]),
            'pooled': (ours['pooled'][row], theirs['hidden'][-1][0].mean(0)),
        }
        parity.check(pairs)
        assert ours['token_mask'][row].sum() == count


def test_every_intermediate_of_a_padded_batch(pair):
    """The second clip ends within a patch, of which the original masks some bands."""
    check_batch(*pair, noise(64_000, 32_000, 41_600))


def test_a_waveform_gives_what_the_original_gives_for_it_alone(pair):
    check_waveforms(*pair, noise(30_000, 64_000))


def test_input_gradient(pair):
    model, reference = pair
    rng = np.random.default_rng(1)
    mel = rng.normal(size=(2, 64, 128)).astype(np.float32)
    target = rng.normal(size=(2, 32, 48)).astype(np.float32)
    frames = np.array([64, 48])
    padding = torch.arange(32) >= torch.tensor(frames // 2)[:, None]
    target[padding.numpy()] = 0

    def theirs(x):
        features = reference.patch_embedding(x[:, None]).flatten(2).transpose(1, 2)
        features = reference.post_extract_proj(reference.layer_norm(features))
        return reference.encoder(features, padding_mask=padding)[0]

    def ours(x):
        return model(x, frames)['tokens']

    parity.check_input_gradient(jax.jit(ours), theirs, mel, target)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    model, reference = pair
    parity.check_round_trip(model, tmp_path / 'again')
    again = tensor_files.TensorFiles(tmp_path / 'again')
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    reference.load_state_dict({name: torch.tensor(again[name]) for name in again})
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_newer_names_of_the_weight_norm_are_read(pair, tmp_path):
    model, reference = pair
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    tensor_files.write(tmp_path, tensors)
    (tmp_path / 'config.json').write_text(json.dumps(model.config))
    again = pretrained.from_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


@pytest.mark.slow_local
def test_published_size(tmp_path):
    torch.manual_seed(0)
    reference = published(PUBLISHED)
    model = loaded(reference, tmp_path, {'finetuned_model': True})
    check_batch(model, reference, noise(80_000, 51_200))
    check_waveforms(model, reference, noise(51_200, 80_000))
