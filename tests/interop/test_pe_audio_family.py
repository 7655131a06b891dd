"""PE-Audio folders, clips and frames, against transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
import transformers

AUDIO = {
    'dac_config': {
        'downsampling_ratios': [2, 4],
        'encoder_hidden_size': 6,
        'codebook_dim': 10,
        'model_type': 'dac',
    },
    'hidden_size': 48,
    'intermediate_size': 80,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 16,
}
TEXT = {
    'model_type': 'modernbert',
    'hidden_size': 32,
    'intermediate_size': 40,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'vocab_size': 90,
    'local_attention': 8,
    'pad_token_id': 0,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'cls_token_id': 1,
    'sep_token_id': 2,
}
SIZE = {'audio_config': AUDIO, 'text_config': TEXT}
IDS = [[1, *range(10, 30), 2], [1, 12, 3, 2], [1, 20, 21, 22, 23, 24, 25, 26, 2]]


def loaded(folder, kind='PeAudioModel', hop=8, **size):
    torch.manual_seed(0)
    if kind == 'PeAudioEncoder':
        config = transformers.PeAudioEncoderConfig(**size, attn_implementation='eager')
    else:
        config = transformers.PeAudioConfig(**size, attn_implementation='eager')
    reference = getattr(transformers, kind)(config)
    extractor = transformers.PeAudioFeatureExtractor(hop_length=hop)
    extractor.save_pretrained(folder)
    return parity.saved(reference, folder), reference, extractor


@pytest.fixture(scope='module')
def trio(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp('pe_audio'), **SIZE)


def noise(*lengths):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=n)).astype(np.float32) for n in lengths]


def their_inputs(extractor, clips, ids, mask):
    features = extractor(clips, sampling_rate=48_000, return_tensors='pt')
    return {
        **features,
        'input_ids': torch.tensor(ids).long(),
        'attention_mask': torch.tensor(mask).long(),
    }


def check_intermediates(trio, clips, ids, mask, target=None):
    """A padded batch of clips and one of texts; with a target of the logits also gradients."""
    model, reference, extractor = trio
    inputs = their_inputs(extractor, clips, ids, mask)
    waveform, lengths = model.features(clips)

    def loss(params):
        outputs = model.module.apply({'params': params}, waveform, lengths, ids, mask)
        return jnp.sum(outputs['logits'] * (0 if target is None else target)), outputs

    run = loss if target is None else jax.grad(loss, has_aux=True)
    gradient, ours = jax.jit(run)(model.params)
    codec = []
    hook = reference.audio_encoder.embedder.bottleneck.register_forward_hook(
        lambda module, args, output: codec.append(output.transpose(1, 2))
    )
    with torch.set_grad_enabled(target is not None):
        theirs = reference(**inputs, output_hidden_states=True)
    hook.remove()
    audio, text = theirs.audio_outputs, theirs.text_outputs
    frames = np.asarray(ours['frame_mask'])
    np.testing.assert_array_equal(frames, audio.output_mask.bool())
    with_class = np.concatenate([frames[:, :1], frames], axis=1)
    *hidden, _ = audio.hidden_states  # the last one is normalised
    pairs = {'embeddings': (ours['audio']['embeddings'], hidden[0])}
    pairs |= {f'layer {i}': (ours['audio']['hidden'][i], h) for i, h in enumerate(hidden[1:])}
    masks = dict.fromkeys(pairs, with_class)
    pairs['codec'], masks['codec'] = (ours['audio']['codec'], codec[0]), frames
    pairs['tokens'], masks['tokens'] = (ours['audio']['tokens'], audio.last_hidden_state), frames
    pairs['pooled'] = ours['audio']['pooled'], audio.pooler_output
    pairs['text'], masks['text'] = (ours['text']['tokens'], text.last_hidden_state), mask
    pairs['audio_embedding'] = ours['audio_embedding'], theirs.audio_embeds
    pairs['text_embedding'] = ours['text_embedding'], theirs.text_audio_embeds
    pairs['logits'] = ours['logits'], theirs.logits_audio_text
    parity.check(pairs, masks)
    if target is not None:
        (theirs.logits_audio_text * torch.tensor(target)).sum().backward()
        check_gradients(gradient, reference)


def check_gradients(ours, reference):
    """Of parameters: the original lets no gradient through its codec to the waveform."""
    audio = reference.audio_encoder
    parity.check(
        {
            'codec': (
                ours['audio']['codec_projection']['kernel'],
                audio.embedder.data_proj.weight.grad.T,
            ),
            'class': (
                ours['audio']['class_embedding']['embedding'],
                audio.patch_embedder.class_embedding.grad[0],
            ),
            'tokens': (
                ours['text']['token_embedding']['embedding'][1:],
                reference.text_model.embeddings.tok_embeddings.weight.grad[1:],
            ),
            'scale': (ours['logit_scale'], reference.text_audio_logit_scale.grad),
        }
    )


def test_every_intermediate_of_a_padded_batch_and_gradients(trio):
    target = np.random.default_rng(2).normal(size=(2, 3)).astype(np.float32)
    check_intermediates(trio, noise(300, 101), *parity.padded(IDS, 24), target)


def test_waveforms_texts_and_frames(trio):
    model, clip_reference, extractor = trio
    reference = transformers.PeAudioFrameLevelModel(clip_reference.config).eval()
    reference.load_state_dict(clip_reference.state_dict())
    clips, (ids, mask) = noise(300, 101), parity.padded(IDS, 24)
    inputs = their_inputs(extractor, clips, ids, mask)
    with torch.no_grad():
        theirs = reference(**inputs)
        clip_level = clip_reference(**inputs)
    ours = model.embed_frames(clips, sampling_rate=48_000)
    texts = model.embed_text(input_ids=ids, attention_mask=mask)
    pairs = {
        'clips': (model.embed_audio(clips, sampling_rate=48_000), clip_level.audio_embeds),
        'ready clips': (
            model.embed_audio(
                input_values=inputs['input_values'], padding_mask=inputs['padding_mask']
            ),
            clip_level.audio_embeds,
        ),
    }
    for row, frames in enumerate(ours):
        own = theirs.audio_embeds[row, : len(frames)]
        logits = theirs.logits_audio_text[row, :, : len(frames)]
        pairs[f'frames {row}'] = frames, own
        pairs[f'frame logits {row}'] = model.compare(frames, texts).T, logits
    assert [len(frames) for frames in ours] == [38, 13]
    parity.check(pairs)


def test_the_encoder_alone(tmp_path):
    model, reference, extractor = loaded(tmp_path / 'it', 'PeAudioEncoder', **AUDIO)
    clips = noise(120, 77)
    ours = model.encode(clips, sampling_rate=48_000)
    with torch.no_grad():
        theirs = reference(**extractor(clips, sampling_rate=48_000, return_tensors='pt'))
    frames = np.asarray(ours['frame_mask'])
    parity.check(
        {
            'tokens': (ours['tokens'], theirs.last_hidden_state),
            'pooled': (ours['pooled'], theirs.pooler_output),
        },
        {'tokens': frames},
    )
    parity.check_round_trip(model, tmp_path / 'again')


def test_it_is_written_as_it_was_read(trio, tmp_path):
    model, reference, _ = trio
    parity.check_round_trip(model, tmp_path / 'again')
    again = type(reference).from_pretrained(tmp_path / 'again')
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.slow_local
def test_the_published_size(tmp_path):
    """PeAudioConfig's own sizes with random weights, on a fifth of a second.

    But for the text tower's depth, 8 instead of 22: all of it takes 8 GiB.
    """
    text = {'model_type': 'modernbert', 'num_hidden_layers': 8}
    trio = loaded(tmp_path, hop=1920, text_config=text)
    ids = np.random.default_rng(0).integers(5, 50_000, (2, 12)).astype(np.int32)
    mask = np.arange(12) < np.array([[12], [7]])
    check_intermediates(trio, noise(9_600, 5_000), ids, mask)
