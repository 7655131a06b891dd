"""Buckets of distances against the originals; the gate is in WavLM's and BEATs' tests."""

import numpy as np
import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

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
