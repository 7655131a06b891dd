"""HTS-AT's own choices; its values against transformers are in tests/interop."""

import jax
import numpy as np

from alm_jax.models.audio.htsat import HtsAt, Size

SMALL = Size(width=16, depths=(2,), heads=(2,), image=64, mel_bins=32, window=4)


def test_what_is_recomputed_changes_neither_value_nor_gradient():
    mel = jax.random.normal(jax.random.key(1), (2, 100, 32))
    params = HtsAt(SMALL).init(jax.random.key(0), mel)

    def pooled_and_gradient(remat):
        def loss(params):
            pooled = HtsAt(SMALL, remat=remat).apply(params, mel)['pooled']
            return (pooled**2).sum(), pooled

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    expected = pooled_and_gradient('none')(params)
    got = pooled_and_gradient('block')(params)
    assert 'remat' in str(jax.make_jaxpr(pooled_and_gradient('block'))(params))
    np.testing.assert_allclose(got[0][1], expected[0][1], rtol=1e-5, atol=1e-6)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    for one, other in zip(jax.tree.leaves(got[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * largest)


def test_dense_frames_are_all_tokens_step_by_step():
    mel = jax.random.normal(jax.random.key(1), (2, 100, 32))
    params = HtsAt(SMALL).init(jax.random.key(0), mel)
    dense = HtsAt(SMALL, dense=True)
    got, mean = dense.apply(params, mel), HtsAt(SMALL).apply(params, mel)
    b, bands, steps, d = got['tokens'].shape
    assert got['frames'].shape == (b, dense.num_tokens(100), d) == (b, steps * bands, d)
    by_step = got['frames'].reshape(b, steps, bands, d)
    np.testing.assert_array_equal(by_step[:, :, 1], got['tokens'][:, 1])
    np.testing.assert_allclose(by_step.mean(axis=2), mean['frames'], atol=1e-6)
    np.testing.assert_allclose(got['pooled'], mean['pooled'], atol=1e-6)
