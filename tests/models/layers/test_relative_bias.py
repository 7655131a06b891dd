"""Buckets of distances against the originals, and the gate of a bias in an attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from alm_jax.models.layers.attention import MultiHeadAttention
from alm_jax.models.layers.relative_bias import RelativeBias


@pytest.mark.parametrize(('buckets', 'farthest'), [(320, 800), (32, 128)])
def test_buckets_are_those_of_the_originals(buckets, farthest):
    """Also beyond the farthest distance, where all are the same."""
    places = np.arange(1000)
    table = {'embedding': np.arange(2.0 * buckets).reshape(buckets, 2)}
    bias = RelativeBias(2, buckets, farthest).apply({'params': table}, places[None], places[None])
    wavlm = WavLMAttention(8, 2, num_buckets=buckets, max_distance=farthest)
    distances = torch.tensor(places[None, :] - places[:, None])
    theirs = wavlm._relative_positions_bucket(distances)
    np.testing.assert_array_equal(bias[0], np.stack([2 * theirs, 2 * theirs + 1]))
    theirs = T5Attention._relative_position_bucket(
        distances, num_buckets=buckets, max_distance=farthest
    )
    np.testing.assert_array_equal(bias[0, 0], 2 * theirs)


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
