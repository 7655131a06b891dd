"""T5 and Flan-T5 folders against transformers: the encoder alone, and with the decoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import tokenizers
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

from alm_jax.config import ConfigError
from alm_jax.interop import pretrained
from alm_jax.models.layers.relative_bias import bucket_of_distance

SIZE = {
    'd_model': 48,
    'd_kv': 8,
    'd_ff': 80,
    'num_layers': 3,
    'num_decoder_layers': 2,
    'num_heads': 4,
    'vocab_size': 90,
    'relative_attention_num_buckets': 8,
    'relative_attention_max_distance': 12,
    'decoder_start_token_id': 0,
    'eos_token_id': None,
    'pad_token_id': 0,
}
V1_1 = {'feed_forward_proj': 'gated-gelu', 'tie_word_embeddings': False}
IDS = [[5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19], [12, 3], [20, 21, 22, 23]]
DECODER_IDS = [[0, 31, 32], [0, 3, 4, 5, 6], [0]]


def reference_of(options, kind='T5ForConditionalGeneration'):
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.T5Config(**options))
    if options.get('tie_word_embeddings') is False and hasattr(model, 'lm_head'):
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


@pytest.fixture(scope='module', params=['t5', 'v1_1'])
def pair(request, tmp_path_factory):
    options = {'t5': SIZE, 'v1_1': {**SIZE, **V1_1}}[request.param]
    reference = reference_of(options)
    return parity.saved(reference, tmp_path_factory.mktemp(request.param)), reference


@functools.cache
def program(module):
    """Outputs, and the gradient of the target logits with respect to the embeddings."""

    @jax.jit
    def run(params, x, mask, decoder_ids, decoder_mask, target):
        def loss(x):
            outputs = module.apply(
                {'params': params}, None, mask, decoder_ids, decoder_mask, embeddings_btd=x
            )
            return jnp.sum(outputs['logits'] * target), outputs

        return jax.value_and_grad(loss, has_aux=True)(x)

    return run


def check_intermediates(model, reference, ids, decoder_ids, lengths, gradient=True):
    (ids, mask), (decoder_ids, decoder_mask) = (
        parity.padded(rows, length) for rows, length in zip((ids, decoder_ids), lengths)
    )
    rng = np.random.default_rng(0)
    shape = (*decoder_ids.shape, reference.config.vocab_size)
    target = rng.standard_normal(shape).astype(np.float32) * decoder_mask[..., None]
    x = reference.shared(torch.tensor(ids).long()).detach().requires_grad_()
    theirs = reference(
        inputs_embeds=x,
        attention_mask=torch.tensor(mask).long(),
        decoder_input_ids=torch.tensor(decoder_ids).long(),
        decoder_attention_mask=torch.tensor(decoder_mask).long(),
        output_hidden_states=True,
    )
    (theirs.logits * torch.tensor(target)).sum().backward()
    inputs = (x.detach().numpy(), mask, decoder_ids, decoder_mask, target)
    (_, ours), our_gradient = program(model.module)(model.params, *inputs)
    table = model.params['token_embedding']['embedding']
    pairs = {
        'looked up': (table[ids], x.detach()),
        'logits': (ours['logits'], theirs.logits),
    }
    if gradient:
        pairs['input gradient'] = our_gradient, x.grad
    masks = {'looked up': mask, 'logits': decoder_mask, 'input gradient': mask}
    for part, hidden, valid in (
        ('encoder', theirs.encoder_hidden_states, mask),
        ('decoder', theirs.decoder_hidden_states, decoder_mask),
    ):
        named = {
            f'{part} layer {i}': (ours[part]['hidden'][i], h) for i, h in enumerate(hidden[1:-1])
        }
        named[f'{part} embeddings'] = ours[part]['embeddings'], hidden[0]
        named[f'{part} tokens'] = ours[part]['tokens'], hidden[-1]
        pairs |= named
        masks |= dict.fromkeys(named, valid)
    return parity.check(pairs, masks)


def check_generation(model, reference, texts, count=20):
    ids, mask = (torch.tensor(a).long() for a in parity.padded(texts, max(map(len, texts))))
    theirs = reference.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False)
    assert model.generate_ids(texts, max_tokens=count) == theirs[:, 1:].tolist()


def test_every_intermediate_and_the_gradient_of_a_padded_batch(pair):
    check_intermediates(*pair, IDS, DECODER_IDS, (16, 6))


# What the two forms share is compiled once.
v1_1_alone = pytest.mark.parametrize('pair', ['v1_1'], indirect=True)


@v1_1_alone
def test_twenty_greedy_tokens(pair):
    check_generation(*pair, IDS)


def test_it_is_written_as_it_was_read(pair, tmp_path):
    parity.check_round_trip(pair[0], tmp_path / 'again')
    again = type(pair[1]).from_pretrained(tmp_path / 'again')
    for name, tensor in pair[1].state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_head_that_is_the_embedding(tmp_path):
    """transformers 5 ties what it makes itself, also in version 1.1."""
    reference = transformers.T5ForConditionalGeneration(transformers.T5Config(**SIZE, **V1_1))
    model = parity.saved(reference, tmp_path / 'saved')
    table, head = (model.params[n] for n in ('token_embedding', 'lm_head'))
    np.testing.assert_array_equal(table['embedding'].T, head['kernel'])
    parity.check_round_trip(model, tmp_path / 'again')


@pytest.fixture(scope='module')
def encoders(tmp_path_factory):
    reference = reference_of({**SIZE, **V1_1}, 'T5EncoderModel')
    return parity.saved(reference, tmp_path_factory.mktemp('encoder')), reference


def test_the_encoder_alone(encoders, tmp_path):
    model, reference = encoders
    ids, mask = parity.padded(IDS, 16)
    ours = jax.jit(model.module.apply)({'params': model.params}, ids, mask)['tokens']
    theirs = reference(torch.tensor(ids).long(), torch.tensor(mask).long()).last_hidden_state
    parity.check({'tokens': (ours, theirs)}, {'tokens': mask})
    parity.check_round_trip(model, tmp_path / 'again')
    with pytest.raises(ConfigError, match='encoder only'):
        model.generate_ids(IDS)


@v1_1_alone
def test_texts(pair):
    """As the folder's tokenizer.json has them; it adds what ends a text."""
    model, _ = pair
    words = {f'w{i}': i for i in range(90)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='w2'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='$A w1', special_tokens=[('w1', 1)]
    )
    tokenizer.save(str(model.folder / 'tokenizer.json'))
    texts = ['w5 w6', 'w7', 'w7 w8 w9']
    ids = model.generate_ids([[5, 6, 1], [7, 1], [7, 8, 9, 1]], max_tokens=20)
    wanted = [' '.join(f'w{i}' for i in row) for row in ids]
    assert model.generate(texts, max_tokens=20) == wanted


@pytest.mark.parametrize(('count', 'farthest'), [(32, 128), (8, 12)])
def test_buckets_of_a_decoder(count, farthest):
    """All of them for what came before; those of both directions are in test_relative_bias."""
    distances = torch.arange(-farthest, farthest + 1)
    theirs = T5Attention._relative_position_bucket(distances, False, count, farthest)
    np.testing.assert_array_equal(bucket_of_distance(count, farthest, False), theirs.numpy())


@pytest.mark.slow_local
@pytest.mark.parametrize('name', ['t5-base', 'flan-t5-base'])
def test_published_size(name, tmp_path):
    options = {'d_model': 768, 'd_ff': 3072, 'num_layers': 12, 'num_heads': 12}
    if name == 'flan-t5-base':
        options |= {'d_ff': 2048, **V1_1}
    reference = reference_of({**options, 'decoder_start_token_id': 0, 'eos_token_id': None})
    parity.randomise(reference)
    # T5 does not scale its scores: with weights as large as these, attention would choose one
    # position or another by a rounding error, in both libraries.
    with torch.no_grad():
        for weight_name, weight in reference.named_parameters():
            weight *= 0.1 if weight_name.endswith('.q.weight') else 1.0
    reference.eval().save_pretrained(tmp_path / 'saved')
    model = pretrained.from_pretrained(tmp_path / 'saved')
    rng = np.random.default_rng(0)
    texts = [rng.integers(2, 32_000, n).tolist() for n in (150, 7)]
    answers = [[0, *rng.integers(2, 32_000, n).tolist()] for n in (20, 5)]
    # With ReLU the reference's own gradient, in float32, is 8e-4 off its float64: units that a
    # rounding error switches. So it is compared with GELU alone.
    check_intermediates(
        model, reference, texts, answers, (160, 24), gradient=name == 'flan-t5-base'
    )
    check_generation(model, reference, texts)
