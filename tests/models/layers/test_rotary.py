"""Rotations and their scalings against transformers' Llama."""

import numpy as np
import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from alm_jax.config import ConfigError
from alm_jax.interop import rope_config
from alm_jax.models.layers.rotary import Rope

LENGTH = 64
SCALINGS = {
    'default': {},
    'linear': {'factor': 3.0},
    'dynamic': {'factor': 3.0},
    'llama3': {
        'factor': 8.0,
        'low_freq_factor': 1.0,
        'high_freq_factor': 4.0,
        'original_max_position_embeddings': 32,
    },
    'yarn': {'factor': 4.0, 'original_max_position_embeddings': 32},
    'yarn with two scales': {
        'factor': 4.0,
        'original_max_position_embeddings': 32,
        'mscale': 0.7,
        'mscale_all_dim': 0.5,
        'truncate': False,
        'beta_fast': 8.0,
    },
}


@pytest.mark.parametrize('last', [20, 300])
@pytest.mark.parametrize('name', SCALINGS)
def test_scaling_equals_transformers(name, last):
    """cos and sin within 1e-4 at positions below and beyond the original length."""
    config = transformers.LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        rope_parameters={'rope_type': name.split()[0], 'rope_theta': 5000.0, **SCALINGS[name]},
    )
    positions = np.array([[0, 1, 2, 17, last]])
    theirs = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.tensor(positions))
    ours = rope_config.rope(config.to_dict()).cos_sin(positions, 32)
    for got, want in zip(ours, theirs):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_older_files_say_it_in_two_keys():
    old = {
        'max_position_embeddings': LENGTH,
        'rope_theta': 5000.0,
        'rope_scaling': {'type': 'linear', 'factor': 3.0},
    }
    assert rope_config.rope(old) == Rope(5000.0, 'linear', 3.0, LENGTH)


def test_dynamic_scaling_looks_at_each_row_alone():
    rope = Rope(scaling='dynamic', factor=2.0, length=8)
    positions = np.array([[0, 3, 7], [0, 3, 30]])
    both = rope.cos_sin(positions, 8)
    for row in range(2):
        alone = rope.cos_sin(positions[row : row + 1], 8)
        np.testing.assert_array_equal(alone[0][0], both[0][row])


def test_an_unknown_scaling():
    with pytest.raises(ConfigError, match=r"rope_type is 'lama3'. Did you mean 'llama3'"):
        Rope(scaling='lama3').cos_sin(np.zeros((1, 1), int), 8)
