"""AST folders, with and without the classification head, against transformers."""

import jax
import numpy as np
import parity
import pytest
import torch
import transformers

SIZE = {
    'hidden_size': 48,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'intermediate_size': 100,
    'patch_size': 8,
    'time_stride': 5,
    'frequency_stride': 6,
    'max_length': 60,
    'num_mel_bins': 32,
}
LABELS = {i: f'label {i}' for i in range(7)}


def loaded(folder, kind='ASTForAudioClassification', **size):
    torch.manual_seed(0)
    config = transformers.ASTConfig(**size, id2label=LABELS, attn_implementation='eager')
    extractor = transformers.ASTFeatureExtractor(
        max_length=config.max_length, num_mel_bins=config.num_mel_bins
    )
    extractor.save_pretrained(folder)
    reference = getattr(transformers, kind)(config)
    return parity.saved(reference, folder), reference, extractor


@pytest.fixture(scope='module')
def trio(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp('ast'), **SIZE)


def noise(*lengths):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=n)).astype(np.float32) for n in lengths]


def in_our_order(tokens, bands):
    """Theirs [b, 2 + f' * t', d], step by step within a band -> band by band within a step."""
    first, patches = tokens[:, :2], tokens[:, 2:]
    patches = patches.unflatten(1, (bands, -1)).transpose(1, 2).flatten(1, 2)
    return torch.cat([first, patches], dim=1)


def check_intermediates(trio):
    """On two clips, one of which fills its window only in part."""
    model, reference, extractor = trio
    clips = noise(16_000, 4_000)
    values = extractor(clips, sampling_rate=16_000, return_tensors='pt')['input_values']
    ours = model.encode(clips, sampling_rate=16_000)
    base = reference.audio_spectrogram_transformer
    with torch.no_grad():
        theirs = reference(values, output_hidden_states=True)
        outputs = base(values)
    bands = model.module.grid[1]
    hidden = [in_our_order(h, bands) for h in theirs.hidden_states]
    parity.check(
        {
            'features': (model.features(clips), values),
            'embeddings': (ours['embeddings'], hidden[0]),
            **{f'layer {i}': (ours['hidden'][i], h) for i, h in enumerate(hidden[1:])},
            'tokens': (ours['tokens'], in_our_order(outputs.last_hidden_state, bands)),
            'pooled': (ours['pooled'], outputs.pooler_output),
            'logits': (ours['logits'], theirs.logits),
        }
    )


def test_every_intermediate_from_waveforms_on(trio):
    check_intermediates(trio)


def test_input_gradient(trio):
    model, reference, _ = trio
    mel = np.random.default_rng(1).normal(size=(2, 60, 32)).astype(np.float32)
    target = np.random.default_rng(2).normal(size=(2, 7)).astype(np.float32)
    parity.check_input_gradient(
        jax.jit(lambda x: model(x)['logits']), lambda x: reference(x).logits, mel, target
    )


@pytest.mark.parametrize('kind', ['ASTForAudioClassification', 'ASTModel'])
def test_it_is_written_as_it_was_read(kind, tmp_path):
    model, reference, _ = loaded(tmp_path / 'it', kind, **SIZE | {'num_hidden_layers': 1})
    parity.check_round_trip(model, tmp_path / 'again')
    again = type(reference).from_pretrained(tmp_path / 'again')
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.slow_local
@pytest.mark.filterwarnings('ignore:At least one mel filter')  # the published 128 bands have
def test_the_published_size(tmp_path):
    """MIT/ast-finetuned-audioset-10-10-0.4593 with random weights."""
    check_intermediates(loaded(tmp_path, **{}))
