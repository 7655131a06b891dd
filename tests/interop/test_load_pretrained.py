"""alm_jax.load on other people's models: a folder, its shards, a .gguf file."""

import numpy as np
import parity
import pytest
import small_models
import torch

import alm_jax
from alm_jax.config import ConfigError
from alm_jax.interop.causal_lm import CausalLm


@pytest.mark.parametrize('shards', [False, True])
def test_a_folder_of_transformers(tmp_path, shards):
    reference = small_models.llama(tmp_path / 'llama', shards=shards)
    assert (len(list((tmp_path / 'llama').glob('*.safetensors'))) > 2) == shards
    model = alm_jax.load(tmp_path / 'llama')
    assert isinstance(model, CausalLm)
    ids = np.arange(12).reshape(2, 6)
    parity.check({'logits': (model(ids)['logits'], reference(torch.tensor(ids)).logits)})
    with pytest.raises(ConfigError, match=r"Did you mean 'llama'\?.*: llama\."):
        alm_jax.load(tmp_path / 'lama')


def test_a_gguf_file(tmp_path, monkeypatch):
    monkeypatch.setenv('ALM_JAX_DATA', str(tmp_path / 'data'))
    small_models.gguf_llama(tmp_path / 'tiny.gguf')
    model = alm_jax.load(tmp_path / 'tiny.gguf')
    assert isinstance(model.generate('!"#', max_tokens=3)[0], str)
    with pytest.raises(ConfigError, match=r"does not exist. Did you mean 'tiny\.gguf'"):
        alm_jax.load(tmp_path / 'tny.gguf')
