"""Small models of both libraries with the same weights."""

import pathlib
import sys

import pytest
import torch
import transformers

from alm_jax.interop import pretrained

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # small.py

VOCABULARY = 60
LLAMA = {
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'intermediate_size': 48,
    'vocab_size': VOCABULARY,
    'max_position_embeddings': 128,
}
GPT2 = {
    'n_embd': 32,
    'n_layer': 2,
    'n_head': 4,
    'n_positions': 128,
    'vocab_size': VOCABULARY,
}
ENDS = {'bos_token_id': None, 'eos_token_id': [2, 3], 'pad_token_id': 0}


@pytest.fixture(scope='session', params=['Llama', 'GPT2'])
def pair(request, tmp_path_factory):
    """(ours, transformers') of a random model that tokens 2 and 3 end."""
    options = {'Llama': LLAMA, 'GPT2': GPT2}[request.param]
    config = getattr(transformers, f'{request.param}Config')(**options, **ENDS)
    head = 'ForCausalLM' if request.param == 'Llama' else 'LMHeadModel'
    reference = getattr(transformers, f'{request.param}{head}')(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # so that likely tokens are likelier than others by far
        for parameter in reference.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25, generator=generator)
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    return pretrained.from_pretrained(folder), reference
