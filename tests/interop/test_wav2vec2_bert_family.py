"""w2v-BERT 2.0 folders against transformers: encoder, front end, and texts of a CTC head."""

import functools
import json

import jax
import numpy as np
import parity
import pytest
import speech_parity
import torch
import transformers

from alm_jax.config import ConfigError
from alm_jax.interop.families.wav2vec2_bert import Features

SIZE = {
    'hidden_size': 48,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'intermediate_size': 100,
    'vocab_size': 12,
    'left_max_position_embeddings': 6,
    'right_max_position_embeddings': 2,
    'conv_depthwise_kernel_size': 7,
}
KINDS = {
    'relative_key': ('ForCTC', {}),
    'rotary': ('Model', {'position_embeddings_type': 'rotary'}),
}
FRAMES = np.array([24, 9, 16])


def make(name, folder, **options):
    torch.manual_seed(0)
    config = transformers.Wav2Vec2BertConfig(**{**SIZE, **options}, attn_implementation='eager')
    theirs = getattr(transformers, f'Wav2Vec2Bert{name}')(config)
    ours = parity.saved(theirs, folder)
    transformers.SeamlessM4TFeatureExtractor().save_pretrained(folder)
    if name == 'ForCTC':
        vocabulary = {letter: index for index, letter in enumerate(speech_parity.LETTERS)}
        (folder / 'words.json').write_text(json.dumps(vocabulary))
        transformers.Wav2Vec2CTCTokenizer(folder / 'words.json').save_pretrained(folder)
    return ours, theirs


@pytest.fixture(scope='module', params=KINDS)
def pair(request, tmp_path_factory):
    name, options = KINDS[request.param]
    return make(name, tmp_path_factory.mktemp('w2v_bert'), **options)


def batch(length=24):
    mel = np.random.default_rng(0).normal(size=(3, 24, 80)).astype(np.float32)
    mel[np.arange(24) >= FRAMES[:, None]] = 0
    return np.pad(mel, ((0, 0), (0, length - 24), (0, 0)))


@functools.cache
def program(module):
    return jax.jit(module.apply)


def outputs_of(model, mel, frames, masked):
    return program(model.module)({'params': model.params}, mel, frames, masked)


def check_intermediates(ours, theirs, mel, frames, masked):
    outputs = outputs_of(ours, mel, frames, masked)
    mask = np.asarray(outputs['frame_mask'])
    with torch.no_grad():
        want = speech_parity.encoder(theirs)(
            torch.tensor(mel).reshape(*masked.shape, -1),
            attention_mask=torch.tensor(mask).long(),
            mask_time_indices=torch.tensor(masked),
            output_hidden_states=True,
        )
        pairs = {
            'features': (outputs['features'], want.extract_features),
            'embeddings': (outputs['embeddings'], want.hidden_states[0]),
            'tokens': (outputs['tokens'], want.last_hidden_state),
        }
        for i, hidden in enumerate(want.hidden_states[1:]):
            pairs[f'layer {i}'] = (outputs['hidden'][i], hidden)
        if 'logits' in outputs:
            pairs['logits'] = (outputs['logits'], theirs.lm_head(want.last_hidden_state))
    parity.check(pairs, dict.fromkeys(pairs, mask))


def test_every_intermediate_of_a_padded_batch(pair):
    masked = np.random.default_rng(1).random((3, 12)) < 0.3
    check_intermediates(*pair, batch(), FRAMES, masked)


@pytest.mark.parametrize('pair', ['relative_key'], indirect=True)
def test_input_gradient(pair):
    ours, theirs = pair
    masked, mask = np.zeros((3, 12), bool), np.arange(12) < (FRAMES // 2)[:, None]
    target = np.random.default_rng(1).normal(size=(3, 12, 48)).astype(np.float32)
    parity.check_input_gradient(
        lambda x: outputs_of(ours, x, FRAMES, masked)['tokens'],
        lambda x: (
            speech_parity.encoder(theirs)(
                x.reshape(3, 12, -1), attention_mask=torch.tensor(mask).long()
            ).last_hidden_state
        ),
        batch(),
        target * mask[..., None],
    )


@pytest.mark.parametrize('pair', ['relative_key'], indirect=True)
def test_padding_changes_nothing(pair):
    short, long = (
        outputs_of(pair[0], batch(2 * n), FRAMES, np.zeros((3, n), bool)) for n in (12, 24)
    )
    assert np.abs(short['pooled'] - long['pooled']).max() <= 1e-5


def test_it_is_written_as_it_was_read(pair, tmp_path):
    ours, theirs = pair
    parity.check_round_trip(ours, tmp_path / 'again')
    again = type(theirs).from_pretrained(tmp_path / 'again')
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize('pair', ['relative_key'], indirect=True)
def test_waveforms_are_encoded_and_written_as_by_the_reference(pair):
    """An odd number of frames, an even one, and one filled up."""
    ours, theirs = pair
    rng = np.random.default_rng(5)
    clips = [rng.normal(0.1, 0.3, n).astype(np.float32) for n in (4321, 3100, 700)]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(ours.folder)
    ready = extractor(clips, sampling_rate=16_000, return_tensors='pt')
    mel, frames = ours.features(clips)
    assert frames.tolist() == [25, 17, 2]
    with torch.no_grad():
        want = theirs(**ready).logits
    outputs = ours.encode(clips, sampling_rate=16_000)
    mask = np.asarray(outputs['frame_mask'])
    np.testing.assert_array_equal(mask, ready['attention_mask'])
    pairs = {'log-mel': (mel.reshape(3, 13, -1), ready['input_features'])}
    pairs['logits'] = (outputs['logits'], want)
    parity.check(pairs, {'logits': mask})
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(ours.folder)
    texts = [tokenizer.decode(row[own]) for row, own in zip(want.argmax(-1).numpy(), mask)]
    assert ours.transcribe(clips, sampling_rate=16_000) == texts


def test_what_is_not_supported_is_named(pair):
    with pytest.raises(ConfigError, match='stride is 4'):
        Features.of({'stride': 4})
    with pytest.raises(ValueError, match='3 frames of 80'):
        pair[0](np.zeros((1, 3, 80), np.float32))


@pytest.mark.slow_local
def test_published_size(tmp_path):
    """facebook/w2v-bert-2.0 with 12 of its 24 blocks, random weights; two clips of 4 s."""
    config = transformers.Wav2Vec2BertConfig()
    size = {key: getattr(config, key) for key in SIZE} | {'num_hidden_layers': 12}
    ours, theirs = make('Model', tmp_path, **size)
    mel = np.random.default_rng(0).normal(size=(2, 400, 80)).astype(np.float32)
    mel[1, 250:] = 0
    check_intermediates(ours, theirs, mel, np.array([400, 250]), np.zeros((2, 200), bool))
