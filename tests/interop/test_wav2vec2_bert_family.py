"""w2v-BERT 2.0 folders against transformers: encoder, front end, and texts of a CTC head."""

import json

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
FRAMES = np.array([23, 9, 16], np.int32)


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


def check_intermediates(ours, theirs, mel, frames, *masked):
    outputs = ours._program(mel, frames, *masked)
    mask = np.asarray(outputs['frame_mask'])
    with torch.no_grad():
        want = speech_parity.encoder(theirs)(
            torch.tensor(mel).reshape(*mask.shape, -1),
            attention_mask=torch.tensor(mask).long(),
            mask_time_indices=torch.tensor(masked[0]) if masked else None,
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
    """With rotations some vectors are masked too."""
    masked = np.random.default_rng(1).random((3, 12)) < 0.3
    rotary = pair[1].config.position_embeddings_type == 'rotary'
    check_intermediates(*pair, batch(), FRAMES, *([masked] if rotary else []))


@pytest.mark.parametrize('pair', ['relative_key'], indirect=True)
def test_input_gradient(pair):
    ours, theirs = pair
    mask = np.arange(12) < (FRAMES // 2)[:, None]
    target = np.random.default_rng(1).normal(size=(3, 12, 48)).astype(np.float32)
    parity.check_input_gradient(
        lambda x: ours._program(x, FRAMES)['tokens'],
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
    short, long = (pair[0]._program(batch(n), FRAMES) for n in (24, 48))
    assert np.abs(short['pooled'] - long['pooled']).max() <= 1e-5


def test_it_is_written_as_it_was_read(pair, tmp_path):
    ours, theirs = pair
    parity.check_round_trip(ours, tmp_path / 'again')
    again = type(theirs).from_pretrained(tmp_path / 'again')
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize('pair', ['relative_key'], indirect=True)
def test_waveforms_are_encoded_and_written_as_by_the_reference(pair):
    """Odd numbers of frames, of which the last one is hidden, and an even one."""
    ours, theirs = pair
    rng = np.random.default_rng(5)
    clips = [rng.normal(0.1, 0.3, n).astype(np.float32) for n in (3999, 1700, 2800)]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(ours.folder)
    ready = extractor(clips, sampling_rate=16_000, return_tensors='pt')
    mel, frames = ours.features(clips)
    assert frames.tolist() == FRAMES.tolist()
    with torch.no_grad():
        want = theirs(**ready).logits
    outputs = ours.encode(clips, sampling_rate=16_000)
    mask = np.asarray(outputs['frame_mask'])
    np.testing.assert_array_equal(mask, ready['attention_mask'])
    pairs = {'log-mel': (mel.reshape(3, 12, -1), ready['input_features'])}
    pairs['logits'] = (outputs['logits'], want)
    parity.check(pairs, {'logits': mask})
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(ours.folder)
    texts = [tokenizer.decode(row[own]) for row, own in zip(want.argmax(-1).numpy(), mask)]
    assert ours.transcribe(clips, sampling_rate=16_000) == texts


def test_short_clips_and_what_is_not_supported(pair):
    assert Features()([np.ones(100, np.float32)])[0].shape == (1, 2, 80)
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
    check_intermediates(ours, theirs, mel, np.array([400, 250], np.int32))
