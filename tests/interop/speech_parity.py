"""wav2vec 2.0 and its kin against transformers: what their tests have in common."""

import functools
import json

import jax
import numpy as np
import parity
import torch
import transformers

SIZE = {
    'hidden_size': 48,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'intermediate_size': 100,
    'conv_dim': [24] * 2,
    'conv_kernel': [10, 4],
    'conv_stride': [5, 4],
    'num_conv_pos_embeddings': 16,
    'num_conv_pos_embedding_groups': 2,
    'vocab_size': 12,
}
_PUBLISHED = {
    'conv_dim': [512] * 7,
    'conv_kernel': [10, 3, 3, 3, 3, 2, 2],
    'conv_stride': [5, 2, 2, 2, 2, 2, 2],
    'num_conv_pos_embeddings': 128,
    'num_conv_pos_embedding_groups': 16,
    'vocab_size': 32,
}
PUBLISHED = {
    name: dict(zip(list(SIZE)[:4], numbers)) | _PUBLISHED
    for name, numbers in (('base', (768, 12, 12, 3072)), ('large', (1024, 24, 16, 4096)))
}
LARGE = {'feat_extract_norm': 'layer', 'do_stable_layer_norm': True, 'conv_bias': True}
LENGTHS = (250, 82, 139)  # samples; a vector is of 25, every 20
FRAMES = (12, 3, 6)
LETTERS = ['<pad>', '<s>', '</s>', '<unk>', '|', *"ABCDE'"]  # one id, 11, is left out


def make(kind, name, folder, **options):
    """(ours, theirs): a transformers model by its config's and its own name, with its extractor.

    Its padding is hidden with layer norms, as published models have it.
    """
    torch.manual_seed(0)
    config = getattr(transformers, f'{kind}Config')(
        **{**SIZE, **options}, attn_implementation='eager'
    )
    theirs = getattr(transformers, f'{kind}{name}')(config)
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean += torch.randn_like(part.running_mean)
            part.running_var += torch.rand_like(part.running_var)
    ours = parity.saved(theirs, folder)
    masked = config.feat_extract_norm == 'layer'
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=masked).save_pretrained(folder)
    if name == 'ForCTC':
        vocabulary = {letter: index for index, letter in enumerate(LETTERS)}
        (folder / 'words.json').write_text(json.dumps(vocabulary))
        transformers.Wav2Vec2CTCTokenizer(folder / 'words.json').save_pretrained(folder)
    return ours, theirs


def batch(length=LENGTHS[0]):
    """Noise, and which samples are of the clips."""
    x = np.random.default_rng(0).normal(0.1, 1, (3, LENGTHS[0])).astype(np.float32)
    mask = np.arange(length) < np.array(LENGTHS)[:, None]
    return np.where(mask, np.pad(x, ((0, 0), (0, length - LENGTHS[0]))), 0), mask


@functools.cache
def _program(module):
    return jax.jit(module.apply)


HIDDEN = np.asarray(True)  # padding; as ``encode`` gives it, whose program is compiled once


def outputs_of(model, x, mask, *masked, module=None):
    inputs = (x, mask.sum(1).astype(np.int32), HIDDEN, *masked)
    if module is None:
        return model._program(*inputs)
    return _program(module)({'params': model.params, **model.extra}, *inputs)


def encoder(theirs):
    return getattr(theirs, theirs.base_model_prefix, theirs)


def check_intermediates(pair, x, mask, *masked) -> None:
    """All that both expose of a padded batch; ``masked`` says which vectors are."""
    ours, theirs = pair
    outputs = outputs_of(ours, x, mask, *masked)
    with torch.no_grad():
        want = encoder(theirs)(
            torch.tensor(x),
            torch.tensor(mask).long(),
            mask_time_indices=torch.tensor(masked[0]) if masked else None,
            output_hidden_states=True,
        )
        pairs = {
            'embeddings': (outputs['embeddings'], want.hidden_states[0]),
            'tokens': (outputs['tokens'], want.last_hidden_state),
        }
        if 'extract_features' in want:
            pairs['features'] = (outputs['features'], want.extract_features)
        for i, hidden in enumerate(want.hidden_states[1:]):
            pairs[f'layer {i}'] = (outputs['hidden'][i], hidden)
        assert ('logits' in outputs) == hasattr(theirs, 'lm_head')
        if 'logits' in outputs:
            pairs['logits'] = (outputs['logits'], theirs.lm_head(want.last_hidden_state))
    parity.check(pairs, dict.fromkeys(pairs, np.asarray(outputs['frame_mask'])))


def check_small(pair) -> None:
    x, mask = batch()
    check_intermediates(pair, x, mask)
    assert outputs_of(pair[0], x, mask)['frame_mask'].sum(1).tolist() == list(FRAMES)


def check_masked(pair) -> None:
    """The same with masked vectors."""
    masked = np.random.default_rng(1).random((3, FRAMES[0])) < 0.3
    check_intermediates(pair, *batch(), masked)


def check_published(pair) -> None:
    """Two clips of 2 s, the second one padded."""
    x = np.random.default_rng(0).normal(0, 1, (2, 32_000)).astype(np.float32)
    mask = np.arange(32_000) < np.array([32_000, 19_000])[:, None]
    check_intermediates(pair, x * mask, mask)


def check_input_gradient(pair) -> None:
    ours, theirs = pair
    x, mask = batch()
    target = np.random.default_rng(1).normal(size=(3, FRAMES[0], 48)).astype(np.float32)
    target *= (np.arange(FRAMES[0]) < np.array(FRAMES)[:, None])[..., None]
    parity.check_input_gradient(
        lambda x: outputs_of(ours, x, mask)['tokens'],
        lambda x: encoder(theirs)(x, torch.tensor(mask).long()).last_hidden_state,
        x,
        target,
    )


def check_written(pair, folder) -> None:
    """Ours has the bits of the original, and theirs loads them."""
    parity.check_round_trip(pair[0], folder)
    again = type(pair[1]).from_pretrained(folder)
    for name, tensor in pair[1].state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def check_padding(model, module=None) -> None:
    short, long = (outputs_of(model, *batch(n), module=module)['pooled'] for n in (250, 500))
    assert np.abs(short - long).max() <= 1e-5


def clips():
    return [np.random.default_rng(5).normal(0.2, 0.3, n).astype(np.float32) for n in LENGTHS]


def check_encode(pair) -> None:
    """Through their own extractor, with the mask that it gives, or none."""
    ours, theirs = pair
    extractor = transformers.AutoFeatureExtractor.from_pretrained(ours.folder)
    ready = extractor(clips(), sampling_rate=16_000, padding=True, return_tensors='pt')
    hidden = 'attention_mask' in ready
    assert hidden == (theirs.config.feat_extract_norm == 'layer')
    outputs = ours.encode(clips(), sampling_rate=16_000)
    mask = np.asarray(outputs['frame_mask']) if hidden else np.ones((3, FRAMES[0]), bool)
    want = encoder(theirs)(**ready).last_hidden_state
    parity.check({'tokens': (outputs['tokens'], want)}, {'tokens': mask})


def check_transcribe(pair) -> None:
    """Their own decoding of each clip by itself, which is what its own vectors say."""
    ours, theirs = pair
    processor = transformers.Wav2Vec2Processor.from_pretrained(ours.folder)
    want = []
    for clip in clips():
        ready = processor(clip, sampling_rate=16_000, return_tensors='pt')
        want += processor.batch_decode(theirs(**ready).logits.argmax(-1))
    assert ours.transcribe(clips(), sampling_rate=16_000) == want
    assert all(want)
    rows = np.random.default_rng(0).integers(0, 13, (20, 9))
    assert [ours.vocabulary.text(row) for row in rows] == processor.batch_decode(rows)
