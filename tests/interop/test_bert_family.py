"""BERT and RoBERTa folders against transformers."""

import numpy as np
import parity
import pytest
import torch
import transformers

SIZE = {
    'hidden_size': 48,
    'num_hidden_layers': 3,
    'num_attention_heads': 4,
    'intermediate_size': 100,
    'vocab_size': 90,
    'max_position_embeddings': 40,
}
IDS = [[5, 6, 7, 8, 9, 10, 11], [12, 3], [20, 21, 22, 23]]


@pytest.fixture(scope='module', params=['bert', 'roberta'])
def pair(request, tmp_path_factory):
    kind = {'bert': 'Bert', 'roberta': 'Roberta'}[request.param]
    config = getattr(transformers, f'{kind}Config')(**SIZE, attn_implementation='eager')
    reference = getattr(transformers, f'{kind}Model')(config)
    return parity.saved(reference, tmp_path_factory.mktemp(request.param)), reference


def outputs(model, reference, length):
    pad = reference.config.pad_token_id
    ids, mask = parity.padded(IDS, length, pad)
    theirs = reference(
        torch.tensor(ids).long(), torch.tensor(mask).long(), output_hidden_states=True
    )
    return model(ids, mask), theirs, mask


def test_every_intermediate_of_a_padded_batch(pair):
    ours, theirs, mask = outputs(*pair, 9)
    pairs = {'embeddings': (ours['embeddings'], theirs.hidden_states[0])}
    for i, hidden in enumerate(theirs.hidden_states[1:]):
        pairs[f'layer {i}'] = (ours['hidden'][i], hidden)
    masks = dict.fromkeys(pairs, mask)
    pairs['pooled'] = (ours['pooled'], theirs.pooler_output)
    parity.check(pairs, masks)


def test_padding_changes_nothing(pair):
    short, long = outputs(*pair, 7)[0], outputs(*pair, 30)[0]
    assert np.abs(short['pooled'] - long['pooled']).max() <= 1e-5


def test_it_is_written_as_it_was_read(pair, tmp_path):
    parity.check_round_trip(pair[0], tmp_path / 'again')
    again = type(pair[1]).from_pretrained(tmp_path / 'again')
    for name, tensor in pair[1].state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
