"""CLAP folders, fused and unfused, against transformers' ClapModel and its feature extractor."""

import jax
import numpy as np
import parity
import pytest
import torch
import transformers

from alm_jax.audio import decode
from alm_jax.interop.clap import Features

AUDIO = {
    'patch_embeds_hidden_size': 16,
    'depths': [2, 4],
    'num_attention_heads': [2, 4],
    'spec_size': 128,
    'num_mel_bins': 32,
    'hidden_size': 32,
    'window_size': 8,
}
TEXT = {
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 50,
    'vocab_size': 80,
}
IDS = [[0, 5, 6, 7, 2], [0, 12, 2], [0, 30, 31, 32, 33, 34, 2]]


@pytest.fixture(scope='module', params=[False, True], ids=['unfused', 'fused'])
def pair(request, tmp_path_factory):
    audio = {**AUDIO, 'enable_fusion': request.param}
    config = transformers.ClapConfig(
        text_config=TEXT, audio_config=audio, projection_dim=24, attn_implementation='eager'
    )
    reference = transformers.ClapModel(config)
    with torch.no_grad():  # statistics as after training
        for module in reference.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2)
    folder = tmp_path_factory.mktemp('clap')
    return parity.saved(reference, folder), reference


@pytest.fixture(scope='module')
def batch(pair):
    """Three clips of 500 frames, to be stretched to 512; the second one is longer."""
    mel = np.random.default_rng(0).normal(-20, 10, (3, 4, 500, 32)).astype(np.float32)
    return mel if pair[0].module.audio.fusion else mel[:, :1], np.array([False, True, False])


def test_every_intermediate(pair, batch):
    model, reference = pair
    mel, longer = batch
    ids, mask = parity.padded(IDS, 9, 1)
    theirs = reference(
        torch.tensor(ids).long(),
        torch.tensor(mel),
        torch.tensor(longer),
        torch.tensor(mask).long(),
        output_hidden_states=True,
    )
    options = {'longer_b': longer} if model.module.audio.fusion else {}
    features = mel if model.module.audio.fusion else mel[:, 0]
    variables = {'params': model.params['audio']}
    variables |= {name: tree['audio'] for name, tree in model.extra.items()}
    audio = jax.jit(model.module.audio.apply)(variables, features, **options)
    hidden = [h.permute(0, 2, 3, 1) for h in theirs.audio_model_output.hidden_states]
    last = theirs.audio_model_output.last_hidden_state
    parity.check(
        {
            'embeddings': (audio['embeddings'], hidden[0]),
            'stage_0': (audio['stage_0'], hidden[1]),
            'stage_1': (audio['stage_1'], hidden[2]),
            'tokens': (audio['tokens'].transpose(0, 3, 1, 2), last),
            'pooled': (audio['pooled'], theirs.audio_model_output.pooler_output),
            'audio': (model.embed_audio(input_features=mel, is_longer=longer), theirs.audio_embeds),
            'text': (model.embed_text(input_ids=ids, attention_mask=mask), theirs.text_embeds),
            'scale': (np.exp(model.params['logit_scale']), reference.logit_scale_a.exp()),
            'text scale': (np.exp(model.params['text_logit_scale']), reference.logit_scale_t.exp()),
        }
    )


def test_input_gradient(pair, batch):
    model, reference = pair
    mel, longer = batch
    target = np.random.default_rng(1).normal(size=(3, 24)).astype(np.float32)
    variables = {'params': model.params, **model.extra}

    def ours(x):
        options = {'longer_b': longer} if model.module.audio.fusion else {}
        x = x if model.module.audio.fusion else x[:, 0]
        return model.module.apply(variables, x, None, method='embed_audio', **options)

    def theirs(x):
        return reference.get_audio_features(x, torch.tensor(longer)).pooler_output

    parity.check_input_gradient(jax.jit(ours), theirs, mel, target)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    parity.check_round_trip(pair[0], tmp_path / 'again')
    again = transformers.ClapModel.from_pretrained(tmp_path / 'again')
    for name, tensor in pair[1].state_dict().items():
        if 'num_batches_tracked' not in name:
            assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize('truncation', ['rand_trunc', 'fusion'])
def test_features_are_those_of_the_reference(truncation, recordings):
    """On real recordings: short ones are repeated; of long ones, what is not random is equal."""
    extractor = transformers.ClapFeatureExtractor(
        truncation=truncation, max_length_s=1, frequency_min=50
    )
    features = Features.of(extractor.to_dict())
    for name in ('default_break_glass.1.ogg', 'fire_fire.1.ogg'):
        x, rate = decode.decode(recordings / name)
        x = x[: 10 * rate]
        theirs = extractor(x.astype(np.float64), sampling_rate=48_000, return_tensors='np')
        mel, longer = features(x)
        if truncation == 'fusion':
            # The reference calls a clip of a batch without long ones long.
            assert longer.tolist() == [len(x) > 48_000]
            parity.check({name: (mel[:, 0], theirs['input_features'][:, 0])})
        elif len(x) <= 48_000:
            parity.check({name: (mel[:, None], theirs['input_features'])})
