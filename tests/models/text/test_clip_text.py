"""ClipText's masks and gradients; its numbers are in tests/interop/test_clip_text_family.py."""

import jax
import jax.numpy as jnp
import numpy as np

from alm_jax.models.text.clip_text import ClipText
from alm_jax.models.text.decoder import Decoder, Size

SIZE = Size(
    32, 2, 4, 48, 60, norm='layer', gated=False, mlp_bias=True, rope=None, positions=20, head='none'
)
END = 59


def test_padding_and_gradients():
    """Padding never changes the result; every parameter has a gradient."""
    ids = jax.random.randint(jax.random.key(1), (3, 9), 1, END)
    lengths = jnp.array([9, 5, 1])[:, None]
    ids = jnp.where(jnp.arange(9) == lengths - 1, END, ids)
    mask = jnp.arange(9) < lengths
    model = ClipText(Decoder(SIZE), embed_dim=16, end_id=END)

    @jax.jit
    def run(key):
        params = model.init(key, ids, mask)['params']

        def loss(params, ids, mask):
            outputs = model.apply({'params': params}, ids, mask)
            return jnp.sum(jnp.sin(3 * outputs['projected'])), outputs

        grad = jax.grad(loss, has_aux=True)
        gradients, outputs = grad(params, ids, mask)
        more = [jnp.pad(a, ((0, 0), (0, 9)), constant_values=v) for a, v in ((ids, END), (mask, 0))]
        return gradients, outputs, loss(params, *more)[1]

    gradients, outputs, longer = run(jax.random.key(0))
    assert outputs['pooled'].shape == (3, 32)
    np.testing.assert_allclose(longer['projected'], outputs['projected'], atol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-7, name
