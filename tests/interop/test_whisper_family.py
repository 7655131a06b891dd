"""Whisper folders against transformers: encoder, decoder, front end, and what they generate."""

import functools

import jax
import numpy as np
import parity
import pytest
import torch
import transformers

from alm_jax.audio import decode
from alm_jax.config import ConfigError
from alm_jax.interop.whisper import Features

SIZE = {
    'd_model': 48,
    'encoder_layers': 2,
    'decoder_layers': 2,
    'encoder_attention_heads': 4,
    'decoder_attention_heads': 4,
    'encoder_ffn_dim': 100,
    'decoder_ffn_dim': 80,
    'num_mel_bins': 16,
    'max_source_positions': 30,
    'max_target_positions': 40,
    'vocab_size': 140,
    'pad_token_id': 100,
    'bos_token_id': 100,
    'eos_token_id': 100,
    'decoder_start_token_id': 101,
}
GENERATION = {
    'decoder_start_token_id': 101,
    'eos_token_id': 100,
    'pad_token_id': 100,
    'lang_to_id': {'<|en|>': 102, '<|fr|>': 103, '<|yue|>': 104},
    'task_to_id': {'transcribe': 106, 'translate': 105},
    'prev_sot_token_id': 107,
    'no_timestamps_token_id': 109,
    'is_multilingual': True,
    'suppress_tokens': [1, 2, 7, 101, 102, 103, 104, 105, 106, 107],
    'begin_suppress_tokens': [3, 100],
    'max_initial_timestamp_index': 5,
    'max_length': 40,
}
IDS = [[101, 5, 6, 7, 8, 9, 10], [101, 3], [101, 20, 21, 22]]


def reference(size, **generation):
    torch.manual_seed(0)
    config = transformers.WhisperConfig(**size, attn_implementation='eager')
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():  # what is heard decides what is said, also with random weights
        model.model.decoder.embed_positions.weight *= 20
        for layer in model.model.decoder.layers:
            layer.encoder_attn.q_proj.weight *= 200
            layer.encoder_attn.out_proj.weight *= 100
    model.generation_config = transformers.GenerationConfig(**GENERATION, **generation)
    return model


def mels(size, batch=3, seed=0):
    shape = (batch, 2 * size['max_source_positions'], size['num_mel_bins'])
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    theirs = reference(SIZE)
    return parity.saved(theirs, tmp_path_factory.mktemp('whisper')), theirs


@functools.cache
def program(module):
    return jax.jit(module.apply)


def intermediates(ours, theirs, mel, length):
    """Pairs of what both expose, with masks of the true tokens."""
    ids, mask = parity.padded(IDS, length, 100)
    outputs = program(ours.module)({'params': ours.params}, mel, ids, mask)
    wanted = theirs(
        torch.tensor(mel).transpose(1, 2),
        decoder_input_ids=torch.tensor(ids).long(),
        decoder_attention_mask=torch.tensor(mask).long(),
        output_hidden_states=True,
    )
    pairs = {'logits': (outputs['logits'], wanted.logits)}
    for part, hidden in (
        ('encoder', wanted.encoder_hidden_states),
        ('decoder', wanted.decoder_hidden_states),
    ):
        pairs[f'{part} embeddings'] = (outputs[part]['embeddings'], hidden[0])
        for i, layer in enumerate(hidden[1:-1]):
            pairs[f'{part} layer {i}'] = (outputs[part]['hidden'][i], layer)
        pairs[f'{part} tokens'] = (outputs[part]['tokens'], hidden[-1])
    masks = {name: mask for name in pairs if not name.startswith('encoder')}
    return outputs, pairs, masks


def test_every_intermediate_of_a_padded_batch(pair):
    outputs, pairs, masks = intermediates(*pair, mels(SIZE), 9)
    conv1 = pair[1].model.encoder.conv1(torch.tensor(mels(SIZE)).transpose(1, 2))
    pairs['conv1'] = (
        outputs['encoder']['conv1'],
        torch.nn.functional.gelu(conv1).transpose(1, 2),
    )
    parity.check(pairs, masks)
    assert outputs['encoder']['frame_mask'].all()


def test_input_gradient(pair):
    ours, theirs = pair
    mel = mels(SIZE)
    ids, mask = parity.padded(IDS, 9, 100)
    target = np.random.default_rng(1).normal(size=(3, 9, 140)).astype(np.float32)
    target *= mask[..., None]

    def our_logits(x):
        return ours.module.apply({'params': ours.params}, x, ids, mask)['logits']

    def their_logits(x):
        ids_, mask_ = torch.tensor(ids).long(), torch.tensor(mask).long()
        x = x.transpose(1, 2)
        return theirs(x, decoder_input_ids=ids_, decoder_attention_mask=mask_).logits

    parity.check_input_gradient(jax.jit(our_logits), their_logits, mel, target)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    parity.check_round_trip(pair[0], tmp_path / 'again')
    again = type(pair[1]).from_pretrained(tmp_path / 'again')
    for name, tensor in pair[1].state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_padded_tokens_change_nothing(pair):
    short, long = (intermediates(*pair, mels(SIZE), n)[1]['logits'][0] for n in (9, 20))
    _, mask = parity.padded(IDS, 9)
    assert np.abs(short - long[:, :9])[mask].max() <= 1e-5 * np.abs(short).max()


def test_cached_equals_uncached(pair):
    """Token by token after a padded prompt, the memory's keys made once."""
    ours, _ = pair
    ids, mask = parity.padded(IDS, 7, 100)
    ids = np.concatenate([ids, [[11, 12], [13, 14], [15, 16]]], axis=1).astype(np.int32)
    mask = np.concatenate([mask, np.ones((3, 2), bool)], axis=1)
    variables = {'params': ours.params}
    whole = program(ours.module)(variables, mels(SIZE), ids, mask)

    @jax.jit
    def decode_(ids, mask, memory, cache):
        return ours.module.apply(variables, ids, mask, memory, cache=cache, method='decode')

    memory, cache = whole['encoder']['tokens'], ours.module.empty_cache(3, 9)
    got = []
    for start, stop in ((0, 7), (7, 8), (8, 9)):
        outputs = decode_(ids[:, start:stop], mask[:, start:stop], memory, cache)
        memory, cache = None, outputs['cache']
        got.append(outputs['logits'])
    difference = np.abs(np.concatenate(got, axis=1) - whole['logits'])[mask].max()
    assert difference <= 1e-5 * np.abs(whole['logits']).max()


OPTIONS = {
    'given language': {'language': 'fr', 'task': 'translate'},
    'found language': {'task': 'transcribe'},
    'timestamps': {'language': 'en', 'task': 'transcribe', 'timestamps': True},
}


@pytest.mark.parametrize('name', OPTIONS)
def test_generated_tokens_are_those_of_transformers(pair, name):
    """20 greedy tokens, with suppressed ones, after the prompt of the task."""
    ours, theirs = pair
    mel, options = mels(SIZE, seed=2), OPTIONS[name]
    got = ours.generate_ids(mel, **options, max_tokens=20)
    timestamps = options.get('timestamps', False)
    want = theirs.generate(
        torch.tensor(mel).transpose(1, 2),
        max_new_tokens=20,
        return_timestamps=timestamps,
        return_segments=True,
        **{n: v for n, v in options.items() if n != 'timestamps'},
    )['segments']
    # Beside the prompt; its own 'sequences' may lack the last segment, or go on after 20 tokens.
    want = [segments[0]['result'][3 if timestamps else 4 :].tolist() for segments in want]
    assert got == [[token for token in row if token != 100] for row in want]
    assert len(set(map(tuple, got))) > 1
    assert max(map(len, got)) == 20


def test_wrong_tasks_and_languages(pair):
    with pytest.raises(ConfigError, match="'de'"):
        pair[0].generate_ids(mels(SIZE), language='de')
    with pytest.raises(ConfigError, match=r"'translat'.*'translate'"):
        pair[0].generate_ids(mels(SIZE), task='translat')
    with pytest.raises(ConfigError, match='1 to 36'):
        pair[0].generate_ids(mels(SIZE), max_tokens=37)
    with pytest.raises(ConfigError, match='has no tokenizer'):
        pair[0].generate(np.zeros(1600), sampling_rate=16_000)


@pytest.mark.parametrize('feature_size', [80, 128])
def test_features_are_those_of_the_reference(feature_size, recordings):
    """Windows of 2 s, so that a recording has several; the last one is filled up."""
    extractor = transformers.WhisperFeatureExtractor(feature_size=feature_size, chunk_length=2)
    features = Features.of(extractor.to_dict())
    x = decode.decode(recordings / 'fire_fire.1.ogg')[0]
    cuts = [x[start : start + 32_000] for start in range(0, len(x), 32_000)]
    theirs = extractor(cuts, sampling_rate=16_000, return_tensors='np')['input_features']
    assert len(cuts) > 1
    mel = features(x)
    assert features.front_end.name == f'whisper_{feature_size}'
    parity.check({'log-mel': (mel, theirs.transpose(0, 2, 1))})


@pytest.mark.slow_local
@pytest.mark.parametrize(('width', 'depth', 'heads'), [(384, 4, 6), (512, 6, 8)])
def test_published_sizes(tmp_path, width, depth, heads):
    """Tiny and base, two windows of 30 s, random weights."""
    size = {
        'd_model': width,
        'encoder_layers': depth,
        'decoder_layers': depth,
        'encoder_attention_heads': heads,
        'decoder_attention_heads': heads,
        'encoder_ffn_dim': 4 * width,
        'decoder_ffn_dim': 4 * width,
        'num_mel_bins': 80,
        'max_source_positions': 1500,
    }
    torch.manual_seed(0)
    theirs = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(**size, attn_implementation='eager')
    )
    ours = parity.saved(theirs, tmp_path)
    with torch.no_grad():
        _, pairs, masks = intermediates(ours, theirs, mels(size), 9)
    parity.check(pairs, masks)
