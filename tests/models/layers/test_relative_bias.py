"""Buckets of distances, the bias by pairs of positions, and its gate in an attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from alm_jax.models.layers import relative_bias
from alm_jax.models.layers.attention import MultiHeadAttention


@pytest.mark.parametrize(('count', 'farthest'), [(320, 800), (32, 128)])
def test_buckets_are_those_of_the_originals(count, farthest):
    distances = np.arange(-1500, 1501)
    ours = relative_bias.buckets(distances, count, farthest)
    theirs = T5Attention._relative_position_bucket(
        torch.tensor(distances), num_buckets=count, max_distance=farthest
    )
    np.testing.assert_array_equal(ours, theirs)
    attention = WavLMAttention(8, 2, num_buckets=count, max_distance=farthest)
    theirs = attention._relative_positions_bucket(torch.tensor(distances))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('t', [1, 2, 5])
def test_by_pair(t):
    values = jnp.arange(2 * (2 * t - 1.0)).reshape(2, -1)
    place = np.arange(t)
    want = values[:, place[None, :] - place[:, None] + t - 1]
    np.testing.assert_array_equal(relative_bias.by_pair(values), want)


@pytest.mark.parametrize('gate', ['input', 'query'])
def test_a_gated_bias_changes_the_attention(gate):
    """The gate starts near 2 + 0.5 * (0.5 - 1): all else equal, so does a bias scaled so."""
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    bias = jax.random.normal(jax.random.key(1), (1, 2, 5, 5))
    gated = MultiHeadAttention(2, bias_gate=gate)
    variables = gated.init(jax.random.key(2), x, bias_bhts=bias)
    params = jax.tree.map(jnp.copy, variables['params'])
    params['bias_gate']['proj']['kernel'] *= 0
    y = gated.apply({'params': params}, x, bias_bhts=bias)
    rest = {name: value for name, value in params.items() if name != 'bias_gate'}
    want = MultiHeadAttention(2).apply({'params': rest}, x, bias_bhts=1.75 * bias)
    np.testing.assert_allclose(y, want, atol=1e-6)
    assert np.abs(y - gated.apply(variables, x, bias_bhts=bias)).max() > 1e-4
