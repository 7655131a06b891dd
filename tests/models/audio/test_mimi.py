"""Mimi's module beyond its reference: gradients, and how many codebooks there must be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.audio import mimi

SIZE = mimi.Size(
    dataclasses.replace(mimi.HALVES, width=8, filters=4, ratios=(4,)),
    depth=1,
    heads=2,
    kv_heads=2,
    head_dim=4,
    mlp_width=8,
    window=3,
    upsample_groups=8,
    codebooks=3,
    semantic=2,
    rows=8,
    code_width=4,
)


def test_gradients_reach_every_parameter():
    model = mimi.Mimi(SIZE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 40, 1)).astype(np.float32)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 2,
        jax.eval_shape(model.init, jax.random.key(0), x),
    )

    def loss(params, x):
        outputs = model.apply({**variables, 'params': params}, x, np.array([40, 20]))
        total = jnp.sum(jnp.sin(outputs['latents'])) + jnp.sum(jnp.sin(outputs['waveform']))
        return total, outputs['codes']

    differentiate = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    gradients, codes = differentiate(variables['params'], jnp.asarray(x))
    assert codes.shape == (2, 3, 5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # What chooses codes has none: the quantiser's way in.
        assert np.abs(leaf).max() > 0 or 'in_proj' in name, name
    assert np.abs(gradients[1][1, 20:]).max() == 0


def test_semantic_codebooks_are_always_there():
    model = mimi.Mimi(SIZE)
    x = jnp.zeros((1, 16, 1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    with pytest.raises(ValueError, match='1 codebooks; 2 are semantic'):
        jax.eval_shape(lambda v: model.apply(v, x, codebooks=1), shapes)
