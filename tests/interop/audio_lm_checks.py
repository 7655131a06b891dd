"""What every audio language model is held to against transformers."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import parity
import tokenizers
import torch
import transformers

from alm_jax.interop import pretrained

AUDIO_ID, MELS, SECONDS = 80, 16, 2
FRAMES = 100 * SECONDS
ENCODER = {'num_mel_bins': MELS, 'max_source_positions': FRAMES // 2}
TEXT = {
    'hidden_size': 48,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'intermediate_size': 64,
    'vocab_size': 90,
    'bos_token_id': None,
    'eos_token_id': None,
    'pad_token_id': 0,
}
# Frames of each window of each row: a row with two clips, one with a shorter one.
NUM_FRAMES = np.array([[FRAMES, 57], [121, 0]])
WORDS = {f'w{i}': i for i in range(90) if i != AUDIO_ID}


def saved(reference, folder, audio_token):
    """The reference, its front end and a tokenizer of words, loaded; what is heard counts."""
    torch.manual_seed(0)
    parity.randomise(reference)
    with torch.no_grad():
        reference.model.multi_modal_projector.apply(_louder)
        reference.model.language_model.layers.apply(_louder)
    model_folder = folder / 'saved'
    reference.eval().save_pretrained(model_folder)
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=reference.config.audio_config.num_mel_bins, chunk_length=SECONDS
    )
    extractor.save_pretrained(model_folder)
    words = {**WORDS, audio_token: AUDIO_ID}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='w1'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    # Not special, so that none of the words of an answer is left out.
    tokenizer.add_tokens([tokenizers.AddedToken(audio_token, normalized=False)])
    tokenizer.save(str(model_folder / 'tokenizer.json'))
    return pretrained.from_pretrained(model_folder), extractor, tokenizer


def _louder(module):
    if isinstance(module, torch.nn.Linear):
        module.weight *= 4


def batch(model, num_frames_bk=NUM_FRAMES, frames=FRAMES, mels=MELS, words=90, text=5):
    """(mel, frames, ids, mask): rows of unequal length, padded in front."""
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((*num_frames_bk.shape, frames, mels)).astype(np.float32)
    rows = []
    for row in num_frames_bk:
        ids = rng.integers(1, min(words, AUDIO_ID), text).tolist()
        for count in model.module.num_vectors(row[row > 0]):
            ids += [model.module.audio_id] * count + rng.integers(1, 70, 2).tolist()
        rows.append(ids)
    longest = max(map(len, rows)) + 1
    ids = np.array([[0] * (longest - len(row)) + row for row in rows], np.int32)
    mask = np.arange(longest) >= np.array([longest - len(row) for row in rows])[:, None]
    return mel, num_frames_bk, ids, mask


def their_inputs(mel, num_frames, ids, mask, mask_name):
    """As the processor would give them: windows that exist, [w, n_mels, t]."""
    there = num_frames > 0
    features = torch.tensor(mel[there]).transpose(1, 2)
    inputs = {
        'input_ids': torch.tensor(ids).long(),
        'attention_mask': torch.tensor(mask).long(),
        'input_features': features,
    }
    if mask_name:
        frames = np.arange(mel.shape[2]) < num_frames[there][:, None]
        inputs[mask_name] = torch.tensor(frames).long()
    return inputs


@functools.cache
def program(module):
    """Outputs, and the gradient of the target logits with respect to the log-mel."""

    @jax.jit
    def run(params, mel, frames, ids, mask, target):
        def loss(mel):
            outputs = module.apply({'params': params}, mel, frames, ids, mask)
            return jnp.sum(outputs['logits'] * target), outputs

        return jax.value_and_grad(loss, has_aux=True)(mel)

    return run


def check_intermediates(model, reference, inputs, mask_name):
    """Encoder, projected audio, decoder and logits of a padded batch; the log-mel's gradient."""
    reference.requires_grad_(False)
    _, num_frames, _, mask = inputs
    there = num_frames > 0
    given = their_inputs(*inputs, mask_name)
    given['input_features'].requires_grad_()
    seen = {}

    def keep(name):
        def hook(module, args, output):
            output = output if isinstance(output, torch.Tensor) else output[0]
            seen[name] = output.detach()

        return hook

    tower, projector = reference.model.audio_tower, reference.model.multi_modal_projector
    hooks = [tower.layer_norm.register_forward_hook(keep('encoder tokens'))]
    hooks.append(projector.register_forward_hook(keep('audio')))
    for i, layer in enumerate(tower.layers):
        hooks.append(layer.register_forward_hook(keep(f'encoder layer {i}')))
    theirs = reference(**given, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    target = np.random.default_rng(1).standard_normal(theirs.logits.shape).astype(np.float32)
    target *= mask[..., None]
    (theirs.logits * torch.tensor(target)).sum().backward()
    (_, ours), gradient = program(model.module)(model.params, *inputs, target)

    width = seen['audio'].shape[-1]
    flat = there.ravel()
    pairs = {
        'encoder tokens': (ours['encoder']['tokens'][flat], seen['encoder tokens']),
        'audio': (ours['audio'][there].reshape(-1, width), seen['audio'].reshape(-1, width)),
        'input gradient': (gradient[there].swapaxes(1, 2), given['input_features'].grad),
    }
    for i, hidden in enumerate(ours['encoder']['hidden']):
        pairs[f'encoder layer {i}'] = hidden[flat], seen[f'encoder layer {i}']
    text = {f'text layer {i}': h for i, h in enumerate(theirs.hidden_states[1:-1])}
    pairs |= {name: (ours['text']['hidden'][i], h) for i, (name, h) in enumerate(text.items())}
    pairs['text embeddings'] = ours['text']['embeddings'], theirs.hidden_states[0]
    pairs['text tokens'] = ours['text']['tokens'], theirs.hidden_states[-1]
    pairs['logits'] = ours['logits'], theirs.logits
    masks = dict.fromkeys([n for n in pairs if n.startswith('text')] + ['logits'], mask)
    return parity.check(pairs, masks)


def check_generation(model, reference, inputs, mask_name, count=20):
    """Greedy tokens of ready inputs."""
    given = their_inputs(*inputs, mask_name)
    theirs = reference.generate(**given, max_new_tokens=count, do_sample=False)
    theirs = theirs[:, given['input_ids'].shape[1] :].tolist()
    ready = {name: np.asarray(value) for name, value in given.items()}
    if mask_name:
        ready['features_mask'] = ready.pop(mask_name)
    assert model.generate_ids(**ready, max_tokens=count) == theirs
    assert len({tuple(row) for row in theirs}) == len(theirs)


def check_round_trip(model, reference, folder):
    """Bit for bit, also through transformers; the processor's files come along."""
    parity.check_round_trip(model, folder)
    again = type(reference).from_pretrained(folder)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert json.loads((folder / 'preprocessor_config.json').read_text())['feature_size'] == MELS


def check_published(reference, folder, mask_name, frames=3000):
    """Windows of 30 s, a clip of two among them, at published widths."""
    parity.randomise(reference)
    reference.eval().save_pretrained(folder)
    model = pretrained.from_pretrained(folder)
    num_frames = np.array([[frames, 1234], [701, 0]])
    if mask_name is None:
        num_frames[num_frames > 0] = frames
    inputs = batch(model, num_frames, frames, reference.config.audio_config.num_mel_bins)
    check_intermediates(model, reference, inputs, mask_name)
    check_generation(model, reference, inputs, mask_name)


def clips():
    """Noise of unequal length, float32: three windows and a bit, less than one."""
    rng = np.random.default_rng(2)
    envelope = np.sin(np.arange(110_000) / 3_000) ** 2
    return [
        (0.3 * envelope[:n] * rng.standard_normal(n)).astype(np.float32) for n in (100_001, 9_999)
    ]
