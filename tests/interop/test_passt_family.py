"""PaSST folders against hear21passt, its front end and patchout included."""

import contextlib
import io
import json
import types

import jax
import numpy as np
import parity
import pytest
import timm_packages
import torch
from bare_packages import module

from alm_jax.config import ConfigError
from alm_jax.interop import pretrained, tensor_files

# The original warns of other lengths than that of its training, and calls what is deprecated.
pytestmark = pytest.mark.filterwarnings(
    'ignore:Input image size', 'ignore:stft with return_complex', 'ignore::FutureWarning'
)
SMALL = {
    'img_size': [32, 60],
    'stride': [6, 5],
    'patch_size': 8,
    'embed_dim': 48,
    'depth': 3,
    'num_heads': 4,
    'num_classes': 7,
    'distilled': True,
}
MEL = {'n_mels': 32}


def loaded(folder, config, mel=None):
    """(ours, the reference's network) with the same random weights."""
    passt = timm_packages.module('hear21passt.models.passt')
    passt.first_RUN = False  # it prints
    torch.manual_seed(0)
    reference = passt.PaSST(**config)
    parity.randomise(reference)
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    tensor_files.write(folder, tensors)
    (folder / 'config.json').write_text(
        json.dumps({'model_type': 'passt', **config, **(mel or {})})
    )
    return pretrained.from_pretrained(folder), reference.eval()


def their_front_end(**options):
    kaldi = module('torchaudio.compliance.kaldi')
    preprocess = module('hear21passt.models.preprocess', 'torchaudio')
    preprocess.torchaudio.compliance = types.SimpleNamespace(kaldi=kaldi)
    options = {'freqm': 0, 'timem': 0, 'fmin_aug_range': 10, 'fmax_aug_range': 2000, **options}
    with contextlib.redirect_stdout(io.StringIO()):
        return preprocess.AugmentMelSTFT(**options).eval()


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp('passt'), SMALL, MEL)


def theirs_in_our_order(reference, mel_btf):
    """Every intermediate of clips without padding, band by band within a step."""
    hidden = []

    def record(_, args, output):
        hidden.extend([args[0], output] if not hidden else [output])

    hooks = [block.register_forward_hook(record) for block in reference.blocks]
    x = torch.as_tensor(mel_btf).transpose(1, 2)[:, None]
    with torch.no_grad():
        logits, features = reference(x)
    for hook in hooks:
        hook.remove()
    count, bands = reference.num_tokens, reference.freq_new_pos_embed.shape[2]

    def turned(tokens):
        patches = tokens[:, count:].unflatten(1, (bands, -1))
        return torch.cat([tokens[:, :count], patches.transpose(1, 2).flatten(1, 2)], dim=1)

    return [turned(h) for h in hidden], features, logits


def check_intermediates(model, reference, lengths, bins):
    """A padded batch, row by row against the reference on each clip alone."""
    frames = (model.module.grid[0] - 1) * model.module.stride[0] + model.module.patch[0]
    frames += model.module.stride[0] - 1  # as ``encode`` pads clips
    mel = np.random.default_rng(0).normal(size=(len(lengths), frames, bins)).astype(np.float32)
    ours = model._program(mel, np.array(lengths))
    pairs = {}
    for row, length in enumerate(lengths):
        hidden, features, logits = theirs_in_our_order(reference, mel[row : row + 1, :length])
        count = hidden[0].shape[1]
        pairs[f'{row} embeddings'] = ours['embeddings'][row, :count], hidden[0][0]
        for i, h in enumerate(hidden[1:]):
            pairs[f'{row} layer {i}'] = ours['hidden'][i, row, :count], h[0]
        pairs[f'{row} pooled'] = ours['pooled'][row], features[0]
        pairs[f'{row} logits'] = ours['logits'][row], logits[0]
    parity.check(pairs)


def test_every_intermediate_of_a_padded_batch(pair):
    check_intermediates(*pair, lengths=[60, 37, 8], bins=32)


def test_input_gradient(pair):
    model, reference = pair
    mel = np.random.default_rng(1).normal(size=(2, 60, 32)).astype(np.float32)
    target = np.random.default_rng(2).normal(size=(2, 7)).astype(np.float32)
    parity.check_input_gradient(
        jax.jit(lambda x: model(x)['logits']),
        lambda x: reference(x.transpose(1, 2)[:, None])[0],
        mel,
        target,
    )


def test_patchout_is_the_references(pair, tmp_path, monkeypatch):
    """With the same draws: torch's permutations are made those that we drew."""
    config = SMALL | {'s_patchout_t': 3, 's_patchout_f': 1, 'u_patchout': 4, 'depth': 1}
    model, reference = loaded(tmp_path, config, MEL)
    mel = np.random.default_rng(3).normal(size=(2, 60, 32)).astype(np.float32)
    ours = jax.jit(lambda x: model(x, train=True, rngs={'dropout': jax.random.key(0)}))(mel)
    steps, bands, tokens = (np.asarray(ours[f'kept_{n}']) for n in ('steps', 'bands', 'tokens'))
    # Ours count the tokens step by step, theirs band by band.
    step, band = np.divmod(tokens, len(bands))
    draws = [steps, bands, np.sort(band * len(steps) + step)]

    def permutation(length):
        kept = draws.pop(0)
        return torch.tensor(np.concatenate([kept, np.setdiff1d(np.arange(length), kept)]))

    monkeypatch.setattr(torch, 'randperm', permutation)
    with torch.no_grad():
        logits, features = reference.train()(torch.tensor(mel).transpose(1, 2)[:, None])
    assert not draws
    parity.check({'pooled': (ours['pooled'], features), 'logits': (ours['logits'], logits)})


def test_it_is_written_as_it_was_read(pair, tmp_path):
    model, reference = pair
    parity.check_round_trip(model, tmp_path / 'again')
    again = tensor_files.TensorFiles(tmp_path / 'again')
    missing = set(reference.state_dict()) - set(again)
    assert missing == {'head_dist.weight', 'head_dist.bias'}


def noise(*lengths):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=n)).astype(np.float32) for n in lengths]


def test_waveforms(pair):
    """Clips of unequal length, each as the original embeds it alone."""
    model, reference = pair
    mel = their_front_end(n_mels=32)
    clips = noise(18_000, 9_000, 4_000)
    ours = model.encode(clips, sampling_rate=32_000)
    for row, clip in enumerate(clips):
        with torch.no_grad():
            x = mel(torch.tensor(clip)[None])
            logits, features = reference(x[:, None])
        steps = x.shape[-1]
        parity.check(
            {
                'features': (model.inputs([clip])[0][0, :steps].T, x[0]),
                'pooled': (ours['pooled'][row], features[0]),
                'logits': (ours['logits'][row], logits[0]),
            }
        )
    with pytest.raises(ConfigError, match='Give windows'):
        model.encode(noise(32_000), sampling_rate=32_000)


@pytest.mark.slow_local
def test_the_published_size(tmp_path):
    """passt_s_swa_p16_128_ap476 with random weights; ours takes every size by default."""
    config = {'img_size': (128, 998), 'stride': (10, 10), 'distilled': True}
    model, reference = loaded(tmp_path, config)
    assert model.module.grid == (99, 12)
    check_intermediates(model, reference, lengths=[998, 500], bins=128)
