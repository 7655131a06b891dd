"""ModernBERT folders against transformers."""

import jax
import numpy as np
import parity
import pytest
import torch
import transformers

SIZE = {
    'hidden_size': 48,
    'num_hidden_layers': 4,
    'num_attention_heads': 4,
    'intermediate_size': 80,
    'vocab_size': 90,
    'local_attention': 8,
    'pad_token_id': 0,
    'bos_token_id': 1,
    'eos_token_id': 2,
    'cls_token_id': 1,
    'sep_token_id': 2,
}
IDS = [[1, *range(10, 30), 2], [1, 12, 3, 2], [1, 20, 21, 22, 23, 24, 25, 26, 2]]


def loaded(folder, **size):
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(**size, attn_implementation='eager')
    reference = transformers.ModernBertModel(config)
    return parity.saved(reference, folder), reference


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    return loaded(tmp_path_factory.mktemp('modernbert'), **SIZE)


def check_intermediates(model, reference, ids, mask):
    ours = jax.jit(model.module.apply)({'params': model.params}, ids, mask)
    with torch.no_grad():
        theirs = reference(
            torch.tensor(ids).long(), torch.tensor(mask).long(), output_hidden_states=True
        )
    *hidden, last = theirs.hidden_states  # the last one is normalised
    pairs = {'embeddings': (ours['embeddings'], hidden[0]), 'tokens': (ours['tokens'], last)}
    pairs |= {f'layer {i}': (ours['hidden'][i], h) for i, h in enumerate(hidden[1:])}
    parity.check(pairs, dict.fromkeys(pairs, mask))


def test_every_intermediate_of_a_padded_batch(pair):
    check_intermediates(*pair, *parity.padded(IDS, 24))


def test_the_gradient_of_the_token_embeddings(pair):
    model, reference = pair
    ids, mask = parity.padded(IDS, 24)
    target = np.random.default_rng(0).normal(size=(3, 24, 48)).astype(np.float32) * mask[..., None]

    def loss(table):
        params = {**model.params, 'token_embedding': {'embedding': table}}
        return (model.module.apply({'params': params}, ids, mask)['tokens'] * target).sum()

    ours = jax.jit(jax.grad(loss))(model.params['token_embedding']['embedding'])
    reference.zero_grad()
    tokens = reference(torch.tensor(ids).long(), torch.tensor(mask).long()).last_hidden_state
    (tokens * torch.tensor(target)).sum().backward()
    parity.check({'table gradient': (ours, reference.get_input_embeddings().weight.grad)})


def test_it_is_written_as_it_was_read(pair, tmp_path):
    parity.check_round_trip(pair[0], tmp_path / 'again')
    again = type(pair[1]).from_pretrained(tmp_path / 'again')
    for name, tensor in pair[1].state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.slow_local
def test_the_published_size(tmp_path):
    """answerdotai/ModernBERT-base with random weights, longer than its window."""
    model, reference = loaded(tmp_path)
    ids = np.random.default_rng(0).integers(5, 50_000, (2, 180))
    mask = np.arange(180) < np.array([[180], [77]])
    check_intermediates(model, reference, ids.astype(np.int32), mask)
