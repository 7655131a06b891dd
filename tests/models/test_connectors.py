"""Every connector: what it counts, that padding changes nothing, and gradients.

Their numbers are in tests/interop/test_salmonn_family.py (Q-Former, its windows),
test_msclap_family.py (mapper), test_perceiver_parity.py and, of maps,
test_{qwen2_audio,audio_flamingo3,voxtral}_family.py.
"""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from alm_jax.models.connectors import CONNECTORS, MlpConnector

FEATURES, WIDTH, LENGTH = 24, 16, 12
QFORMER = {'width': 16, 'depth': 1, 'heads': 2, 'mlp_width': 20}
OPTIONS = {
    'linear': {},
    'mlp': {},
    'stack': {},
    'pool': {'hidden': 20, 'stack': 2},
    'q_former': {'queries': 3, **QFORMER},
    'window_q_former': {'window': 4, 'stride': 3, 'queries': 2, **QFORMER},
    'perceiver': {'latents': 3, 'depth': 2, 'heads': 2, 'head_dim': 8},
    'mapper': {'length': 3, 'clip_length': 2, 'depth': 1, 'embed_dim': 20},
    'gated_cross_attention': {'depth': 2, 'memory_heads': 2, 'memory_mlp_width': 20},
}


@functools.cache
def built(name):
    """(the connector, its parameters, its program)."""
    fixed = {'decoder_depth': 2, 'heads': 2} if name == 'gated_cross_attention' else {}
    module = CONNECTORS[name](features=FEATURES, dtype=jnp.float32, **OPTIONS[name], **fixed)
    x, mask = np.zeros((1, LENGTH, WIDTH), np.float32), np.ones((1, LENGTH), bool)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, mask)['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.float32(0.3 * rng.standard_normal(s.shape)), shapes)
    return module, params, jax.jit(module.apply)


def test_every_connector_is_tried():
    assert set(OPTIONS) == set(CONNECTORS)


@pytest.mark.parametrize('name', OPTIONS)
@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(strategies.lists(strategies.integers(0, LENGTH), min_size=3, max_size=3))
def test_as_many_vectors_as_are_counted_beforehand(name, counts):
    """Clips of any length; what stands behind them changes nothing."""
    module, params, apply = built(name)
    counts = np.array(counts)
    mask = np.arange(LENGTH) < counts[:, None]
    x = np.random.default_rng(1).standard_normal((3, LENGTH, WIDTH)).astype(np.float32)
    out, counted = apply({'params': params}, x, mask)
    said = module.num_vectors(counts)
    if name == 'gated_cross_attention':  # its vectors stand for no positions of the text
        np.testing.assert_array_equal(said, counts > 0)
        said = counts
    else:
        assert out.shape[2] == FEATURES
    np.testing.assert_array_equal(counted, np.arange(out.shape[1]) < said[:, None])
    assert module.num_vectors(int(counts[0])) == module.num_vectors(counts)[0]
    other, _ = apply({'params': params}, np.where(mask[..., None], x, 9.0), mask)
    np.testing.assert_allclose(out[counted], other[counted], atol=1e-5)


@pytest.mark.parametrize('name', OPTIONS)
def test_gradients_reach_every_parameter(name):
    module, params, _ = built(name)
    x = np.random.default_rng(1).standard_normal((2, LENGTH, WIDTH)).astype(np.float32)
    mask = np.arange(LENGTH) < np.array([LENGTH, 9])[:, None]

    @jax.jit
    def gradients(params):
        def loss(params):
            out, counted = module.apply({'params': params}, x, mask)
            return jnp.sum(jnp.sin(3 * out) * counted[..., None])

        return jax.grad(loss)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(params)):
        place = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), place
        # Not of this call's result are the gated blocks and what stands for a clip in the text;
        # a key bias shifts all scores of a query alike.
        elsewhere = name == 'gated_cross_attention' and 'memory' not in place
        assert np.abs(leaf).max() > 1e-7 or elsewhere or "['key']['bias']" in place, place


def test_a_pool_is_a_mean_and_a_stack_lies_end_to_end():
    """With the identity for a map: 12 vectors, pairs averaged, two of these side by side."""
    x = np.random.default_rng(0).standard_normal((1, LENGTH, 3)).astype(np.float32)
    module = MlpConnector(6, stack=2, pool=2, use_bias=False)
    params = {'out': {'kernel': jnp.eye(6)}}
    out, _ = module.apply({'params': params}, x, np.ones((1, LENGTH), bool))
    want = x.reshape(1, 6, 2, 3).mean(axis=2).reshape(1, 3, 6)
    np.testing.assert_allclose(out, want, atol=1e-6)
