"""What every audio language model is held to against transformers."""

import dataclasses
import functools
import gc
import json

import jax
import jax.numpy as jnp
import numpy as np
import parity
import tokenizers
import torch
import transformers

from alm_jax.interop import families, pretrained

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


def batch(module, num_frames_bk=NUM_FRAMES, frames=FRAMES, mels=MELS, words=90, text=5):
    """(mel, frames, ids, mask): rows of unequal length, padded in front."""
    rng = np.random.default_rng(0)
    mel = rng.standard_normal((*num_frames_bk.shape, frames, mels)).astype(np.float32)
    rows = []
    for row in num_frames_bk:
        ids = rng.integers(1, min(words, AUDIO_ID), text).tolist()
        for count in module.num_vectors(row[row > 0]):
            ids += [module.audio_id] * count + rng.integers(1, 70, 2).tolist()
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


def their_results(reference, inputs, mask_name):
    """What the reference makes of a padded batch, by name, and the log-mel's gradient."""
    reference.requires_grad_(False)
    given = their_inputs(*inputs, mask_name)
    given['input_features'].requires_grad_()
    seen = {}

    def keep(name):
        def hook(module, args, output):
            output = output if isinstance(output, torch.Tensor) else output[0]
            seen[name] = output.detach().numpy()

        return hook

    tower, projector = reference.model.audio_tower, reference.model.multi_modal_projector
    named = {'encoder tokens': tower.layer_norm, 'audio': projector}
    named |= {f'encoder layer {i}': layer for i, layer in enumerate(tower.layers)}
    hooks = [module.register_forward_hook(keep(name)) for name, module in named.items()]
    theirs = reference(**given, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    names = [f'text layer {i}' for i in range(len(theirs.hidden_states) - 2)]
    names = ['text embeddings', *names, 'text tokens']
    seen |= {name: h.detach().numpy() for name, h in zip(names, theirs.hidden_states)}
    seen['logits'] = theirs.logits.detach().numpy()
    (theirs.logits * torch.tensor(target(inputs, seen['logits']))).sum().backward()
    seen['input gradient'] = given['input_features'].grad.numpy()
    return seen


def target(inputs, logits):
    """What logits are multiplied by, so that there is one number to differentiate."""
    random = np.random.default_rng(1).standard_normal(logits.shape).astype(np.float32)
    return random * inputs[3][..., None]


def check_results(model, theirs, inputs):
    """Encoder, projected audio, decoder, logits and gradient within the tolerance."""
    _, num_frames, _, mask = inputs
    there = num_frames > 0
    run = program(model.module)
    (_, ours), gradient = run(model.params, *inputs, target(inputs, theirs['logits']))
    encoder, text = ours['encoder'], ours['text']
    named = {f'encoder layer {i}': h[there.ravel()] for i, h in enumerate(encoder['hidden'])}
    named |= {f'text layer {i}': h for i, h in enumerate(text['hidden'][:-1])}
    named |= {
        'encoder tokens': encoder['tokens'][there.ravel()],
        'audio': ours['audio'][there].reshape(theirs['audio'].shape),
        'text embeddings': text['embeddings'],
        'text tokens': text['tokens'],
        'logits': ours['logits'],
        'input gradient': gradient[there].swapaxes(1, 2),
    }
    assert set(named) == set(theirs)
    masks = {name: mask for name in named if name.startswith('text') or name == 'logits'}
    return parity.check({name: (a, theirs[name]) for name, a in named.items()}, masks)


def check_intermediates(model, reference, inputs, mask_name):
    """``check_results`` of a reference that may stay in memory."""
    check_results(model, their_results(reference, inputs, mask_name), inputs)


def their_tokens(reference, inputs, mask_name, count):
    """Greedy tokens of the reference."""
    given = their_inputs(*inputs, mask_name)
    theirs = reference.generate(**given, max_new_tokens=count, do_sample=False)
    return theirs[:, given['input_ids'].shape[1] :].tolist()


def check_tokens(model, theirs, inputs, mask_name):
    """Greedy tokens of ready inputs."""
    given = their_inputs(*inputs, mask_name)
    ready = {name: np.asarray(value) for name, value in given.items()}
    if mask_name:
        ready['features_mask'] = ready.pop(mask_name)
    assert model.generate_ids(**ready, max_tokens=len(theirs[0])) == theirs
    assert len({tuple(row) for row in theirs}) == len(theirs)


def check_round_trip(model, reference, folder):
    """Bit for bit, also through transformers; the processor's files come along."""
    parity.check_round_trip(model, folder)
    again = type(reference).from_pretrained(folder)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert json.loads((folder / 'preprocessor_config.json').read_text())['feature_size'] == MELS


def check_published(make, folder, mask_name, frames=3000):
    """Windows of 30 s at published widths; one library at a time, for the memory."""
    reference = make()
    parity.randomise(reference)
    reference.eval().save_pretrained(folder)
    config = reference.config.to_dict()
    module = families.find(config['model_type'], 'the reference').module(config)
    num_frames = np.array([[frames], [frames if mask_name is None else 1234]])
    inputs = batch(module, num_frames, frames, config['audio_config']['num_mel_bins'])
    theirs = their_results(reference, inputs, mask_name)
    tokens = their_tokens(reference, inputs, mask_name, 20)
    del reference
    gc.collect()
    model = pretrained.from_pretrained(folder)
    audio = model.module.audio.clone(remat='block')  # for the memory as well
    check_results(
        dataclasses.replace(model, module=model.module.clone(audio=audio)), theirs, inputs
    )
    check_tokens(model, tokens, inputs, mask_name)


def clips():
    """Noise of unequal length, float32: three windows and a bit, less than one."""
    rng = np.random.default_rng(2)
    envelope = np.sin(np.arange(110_000) / 3_000) ** 2
    return [
        (0.3 * envelope[:n] * rng.standard_normal(n)).astype(np.float32) for n in (100_001, 9_999)
    ]
