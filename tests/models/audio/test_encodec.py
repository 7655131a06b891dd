"""EnCodec's module beyond its reference: gradients, silence, and what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.audio import encodec, seanet

HALVES = seanet.Size(8, channels=2, filters=4, ratios=(4,), causal=False, norm='group')
STEREO = encodec.Size(HALVES, 3, 16, chunk=40, chunk_stride=40, normalise=True)


def test_gradients_reach_every_parameter_and_silence_is_finite():
    model = encodec.Encodec(STEREO)
    x = np.random.default_rng(0).normal(size=(2, 80, 2)).astype(np.float32)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 2,
        jax.eval_shape(model.init, jax.random.key(0), x),
    )
    num_samples = np.array([80, 24])  # the second clip's second chunk is silence

    def loss(params, x):
        variables_ = {**variables, 'params': params}
        outputs = model.apply(variables_, x, num_samples)
        total = jnp.sum(jnp.sin(outputs['latents'])) + jnp.sum(jnp.sin(outputs['waveform']))
        return total, {name: outputs[name][0] for name in ('codes', 'waveform', 'scales')}

    differentiate = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    gradients, first = differentiate(variables['params'], jnp.asarray(x))
    shapes = {name: value.shape for name, value in first.items()}
    assert shapes == {'codes': (3, 20), 'waveform': (80, 2), 'scales': (2,)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # A bias before a norm over all that it moves has almost none.
        assert np.abs(leaf).max() > 0 or name.endswith("['bias']"), name
    assert np.abs(gradients[1][1, 24:]).max() == 0


def test_what_does_not_fit_is_named():
    overlapping = dataclasses.replace(STEREO, chunk_stride=32)
    with pytest.raises(ValueError, match='66 samples leave 2 short chunks; fill them up to 72'):
        jax.eval_shape(encodec.Encodec(overlapping).init, jax.random.key(0), jnp.zeros((1, 66, 2)))
