"""MusicGen folders against transformers: logits, greedy codes with guidance, waveforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import tokenizers
import torch
import transformers
from codecs_parity import check_again, check_codes

from alm_jax.config import ConfigError
from alm_jax.interop import pretrained
from alm_jax.load import load

TEXT = {'d_model': 12, 'd_kv': 4, 'num_heads': 2, 'd_ff': 20, 'num_layers': 2, 'vocab_size': 50}
AUDIO = {
    'sampling_rate': 800,
    'target_bandwidths': [2.0],
    'use_causal_conv': False,
    'use_conv_shortcut': False,
    'num_filters': 4,
    'hidden_size': 8,
    'codebook_size': 32,
    'upsampling_ratios': [4, 2],
    'num_lstm_layers': 1,
    'num_residual_layers': 2,
}
DECODER = {
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'ffn_dim': 24,
    'vocab_size': 32,
    'pad_token_id': 32,
    'bos_token_id': 32,
}
WORDS = ['slow', 'fast', 'drums', 'and', 'strings', 'a', 'sad', 'song']
TEXTS = ['slow drums and strings', 'a sad song']


def make(folder, stereo=False):
    torch.manual_seed(0)
    channels = {'num_codebooks': 8, 'audio_channels': 2} if stereo else {}
    config = transformers.MusicgenConfig(
        text_encoder={'model_type': 't5', **TEXT},
        audio_encoder={'model_type': 'encodec', **AUDIO},
        decoder={**DECODER, **channels},
        attn_implementation='eager',
    )
    reference = transformers.MusicgenForConditionalGeneration(config).eval()
    parity.randomise(reference)
    with torch.no_grad():
        for layer in reference.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_()
        for name, parameter in reference.named_parameters():
            if 'encoder_attn' in name or 'fc' in name:  # what is read decides what is played
                parameter *= 4
    reference.generation_config = transformers.GenerationConfig(
        bos_token_id=32,
        pad_token_id=32,
        decoder_start_token_id=32,
        guidance_scale=3.0,
    )
    reference.save_pretrained(folder)
    vocabulary = {'<pad>': 0, '</s>': 1, '<unk>': 2} | {w: i + 3 for i, w in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, '<unk>'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='$A </s>', special_tokens=[('</s>', 1)]
    )
    tokenizer.save(str(folder / 'tokenizer.json'))
    return pretrained.from_pretrained(folder), reference


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp('musicgen'))


def texts(model, length=7):
    ids = [encoding.ids for encoding in model.tokenizer.encode_batch(TEXTS)]
    return parity.padded(ids, length)


def codes(model, length, seed=0):
    """(int32 [2, codebooks, t], bool [2, t]), the second row shorter."""
    size = model.module.decoder.size
    rng = np.random.default_rng(seed)
    made = rng.integers(0, size.rows + 1, (2, size.codebooks, length)).astype(np.int32)
    return made, np.arange(length) < np.array([[length], [length - 3]])


def outputs(model, reference, length=9):
    ids, mask = texts(model)
    audio, audio_mask = codes(model, length)
    ours = jax.jit(model.module.apply)({'params': model.params}, ids, mask, audio, audio_mask)
    with torch.no_grad():
        wanted = reference(
            input_ids=torch.tensor(ids).long(),
            attention_mask=torch.tensor(mask).long(),
            decoder_input_ids=torch.tensor(audio).long().flatten(0, 1),
            decoder_attention_mask=torch.tensor(audio_mask).long(),
            output_hidden_states=True,
        )
    return ours, wanted, mask, audio_mask


def test_every_intermediate_of_a_padded_batch(made):
    ours, wanted, mask, audio_mask = outputs(*made)
    logits = wanted.logits.unflatten(0, ours['logits'].shape[:2]).permute(0, 2, 1, 3)
    pairs = {'logits': (ours['logits'].swapaxes(1, 2), logits)}
    for part, hidden in (
        ('text_encoder', wanted.encoder_hidden_states),
        ('decoder', wanted.decoder_hidden_states),
    ):
        pairs[f'{part} embeddings'] = ours[part]['embeddings'], hidden[0]
        for i, layer in enumerate(hidden[1:-1]):
            pairs[f'{part} layer {i}'] = ours[part]['hidden'][i], layer
        pairs[f'{part} tokens'] = ours[part]['tokens'], hidden[-1]
    masks = {name: mask if name.startswith('text') else audio_mask for name in pairs}
    parity.check(pairs, masks)


def test_gradient_of_what_is_read(made):
    """Of the decoder's logits with respect to the text encoder's states."""
    model, reference = made
    audio, audio_mask = codes(model, 5)
    rng = np.random.default_rng(1)
    memory = rng.normal(size=(2, 3, 16)).astype(np.float32)
    target = rng.normal(size=(2, 4, 5, 32)).astype(np.float32) * audio_mask[:, None, :, None]

    def ours(memory):
        variables = {'params': model.params['decoder']}
        return model.module.decoder.apply(variables, audio, audio_mask, memory)['logits']

    def wanted(memory):
        logits = reference.decoder(
            torch.tensor(audio).long().flatten(0, 1),
            attention_mask=torch.tensor(audio_mask).long(),
            encoder_hidden_states=memory,
        ).logits
        return logits.unflatten(0, (2, 4))

    parity.check_input_gradient(jax.jit(ours), wanted, memory, target)


def test_it_is_written_as_it_was_read(made, tmp_path):
    check_again(*made, tmp_path / 'again')


def test_decoder_alone(made, tmp_path):
    """MusicgenForCausalLM's own folder; padding of codes and of the memory changes nothing."""
    theirs = made[1].decoder
    theirs.save_pretrained(tmp_path)
    model = pretrained.from_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.params, made[0].params['decoder'])
    audio, audio_mask = codes(made[0], 9)
    memory = np.random.default_rng(2).normal(size=(2, 3, 16)).astype(np.float32)
    memory_mask = np.array([[True, True, True], [True, False, False]])
    read = jax.jit(model.module.apply)
    short = read({'params': model.params}, audio, audio_mask, memory, memory_mask)['logits']
    long = read(
        {'params': model.params},
        np.pad(audio, ((0, 0), (0, 0), (0, 6))),
        np.pad(audio_mask, ((0, 0), (0, 6))),
        np.pad(memory, ((0, 0), (0, 4), (0, 0)), constant_values=5.0),
        np.pad(memory_mask, ((0, 0), (0, 4))),
    )['logits'][:, :, :9]
    difference = np.abs(short - long).swapaxes(1, 2)[audio_mask]
    assert difference.max() <= 1e-5 * np.abs(short).max()


def their_codes(reference, ids, mask, **options):
    """(waveforms [b, c, n], codes [b, codebooks, t] before EnCodec)."""
    kept, decode = [], reference.audio_encoder.decode

    def keep(audio_codes, **options):
        kept.append(audio_codes[0])
        return decode(audio_codes, **options)

    reference.audio_encoder.decode = keep
    waveform = reference.generate(
        torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long(), **options
    )
    reference.audio_encoder.decode = decode
    sides = torch.stack(kept, dim=2).flatten(1, 2)
    return waveform, sides


@pytest.mark.parametrize('stereo', [False, True])
def test_generated_codes_are_those_of_transformers(made, stereo, tmp_path):
    """20 greedy steps with guidance from texts, and the waveform; as alm_jax.load gives them."""
    model, reference = make(tmp_path, stereo=True) if stereo else made
    model = load(model.folder)
    ids, mask = texts(model, 16)
    options = {'do_sample': False, 'max_new_tokens': 20}
    waveform, wanted = their_codes(reference, ids, mask, **options)
    got = model.generate_codes(ids, mask, max_tokens=20, greedy=True)
    assert got.shape == (2, 8 if stereo else 4, 17)
    check_codes(got, wanted)
    assert (got[0] != got[1]).mean() > 0.2
    music = model.generate(TEXTS, max_tokens=20, greedy=True)
    waveform = waveform.transpose(1, 2) if stereo else waveform[:, 0]
    parity.check({'waveform': (music, waveform)})
    assert music.shape[1] == 17 * 8
    if stereo:
        return
    _, unguided = their_codes(reference, ids, mask, guidance_scale=1.0, **options)
    check_codes(model.generate_codes(ids, mask, max_tokens=20, greedy=True, guidance=1), unguided)


def test_draws_are_repeatable(made):
    model = made[0]
    ids, mask = texts(model)
    draw = functools.partial(model.generate_codes, ids, mask, max_tokens=8, top_k=5)
    first = draw(seed=1)
    np.testing.assert_array_equal(first, draw(seed=1))
    assert (first != draw(seed=2)).any()
    with pytest.raises(ConfigError, match='need at least 7'):
        draw(max_tokens=6)
    with pytest.raises(ConfigError, match='not empty'):
        model.generate([])


@pytest.mark.slow_local
def test_published_decoder_size(tmp_path):
    """The language model of musicgen-small, random weights, 60 positions beside 12 of a text."""
    torch.manual_seed(0)
    config = transformers.MusicgenDecoderConfig(attn_implementation='eager')
    reference = transformers.MusicgenForCausalLM(config).eval()
    parity.randomise(reference)
    reference.save_pretrained(tmp_path)
    model = pretrained.from_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    audio = rng.integers(0, 2049, (2, 4, 60)).astype(np.int32)
    memory = rng.normal(size=(2, 12, 1024)).astype(np.float32)
    memory_mask = np.arange(12) < np.array([[12], [5]])
    read = jax.jit(model.module.apply)
    ours = read({'params': model.params}, audio, None, jnp.asarray(memory), memory_mask)
    with torch.no_grad():
        wanted = reference(
            torch.tensor(audio).long().flatten(0, 1),
            encoder_hidden_states=torch.tensor(memory),
            encoder_attention_mask=torch.tensor(memory_mask).long(),
            output_hidden_states=True,
        )
    pairs = {'logits': (ours['logits'].reshape(8, 60, -1), wanted.logits)}
    for i, layer in enumerate(wanted.hidden_states[1:-1]):
        pairs[f'layer {i}'] = ours['hidden'][i], layer
    parity.check(pairs)
