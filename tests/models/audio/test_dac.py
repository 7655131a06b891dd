"""DAC's module beyond its reference: gradients through the codes reach every parameter."""

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.models.audio.dac import Dac, Size


def test_gradients_reach_every_parameter_but_unread_codes():
    model = Dac(Size(4, 16, (4,), codebooks=2, rows=8, code_width=4))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 32, 1)).astype(np.float32)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 6,
        jax.eval_shape(model.init, jax.random.key(0), x)['params'],
    )

    def loss(params, x):
        outputs = model.apply({'params': params}, x, np.array([32, 20]))
        return jnp.sum(jnp.sin(outputs['waveform'])), outputs['codes']

    gradients, codes = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    assert codes.shape == (2, 2, 8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        # Straight through: a code's own vector has no gradient of what is decoded.
        assert np.abs(leaf).max() > 0 or 'codebook' in name, name
    assert np.abs(gradients[1][1, 20:]).max() == 0
