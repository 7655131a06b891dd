"""The decoder's inputs; its numbers are in tests/interop/test_decoder_families.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.layers.rotary import Rope
from alm_jax.models.text.decoder import Decoder, Size

SIZE = Size(
    32,
    4,
    4,
    48,
    50,
    kv_heads=2,
    window=4,
    windowed=(True, False, True, True),
    window_rope=Rope(100.0),
    embedding_scale=3.0,
)
LENGTHS = (9, 4)


MODEL = Decoder(SIZE)


@pytest.fixture(scope='module')
def batch():
    ids = jax.random.randint(jax.random.key(1), (2, 9), 0, 50)
    return ids, jnp.arange(9) < jnp.array(LENGTHS)[:, None]


@pytest.fixture(scope='module')
def params(batch):
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), *batch)['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.float32(0.2 * rng.standard_normal(s.shape)), shapes)


@pytest.fixture(scope='module')
def decoder(params, batch):
    apply = jax.jit(lambda *args, **options: MODEL.apply({'params': params}, *args, **options))
    return apply, *batch


def true_rows(values, mask):
    return [np.asarray(row)[np.asarray(keep)] for row, keep in zip(values, mask)]


@pytest.mark.parametrize('front', [0, 5, 16])
def test_padding_anywhere_changes_nothing(decoder, front):
    """More of it, and in front: the same up to 1e-5."""
    apply, ids, mask = decoder
    want = true_rows(apply(ids, mask)['tokens'], mask)
    length = 25
    moved_ids, moved_mask = np.full((2, length), 7), np.zeros((2, length), bool)
    for row, count in enumerate(LENGTHS):
        start = front and length - front - count
        moved_ids[row, start : start + count] = ids[row, :count]
        moved_mask[row, start : start + count] = True
    got = true_rows(apply(moved_ids, moved_mask)['tokens'], moved_mask)
    for ours, theirs in zip(got, want):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_step_by_step_equals_all_at_once(decoder):
    """With windowed layers; then a longer call into the same cache."""
    apply, ids, mask = decoder
    whole = apply(ids, mask)
    outputs = apply(ids[:, :3], mask[:, :3], cache=MODEL.empty_cache(2, 9))
    steps = [outputs]
    for t in range(3, 6):
        outputs = apply(ids[:, t : t + 1], mask[:, t : t + 1], cache=outputs['cache'])
        steps.append(outputs)
    steps.append(apply(ids[:, 6:], mask[:, 6:], cache=outputs['cache']))
    for name, axis in (('hidden', 2), ('tokens', 1), ('logits', 1)):
        got = np.concatenate([np.asarray(step[name]) for step in steps], axis=axis)
        difference = np.abs(got - whole[name])
        assert difference[..., np.asarray(mask), :].max() <= 1e-5 * np.abs(whole[name]).max()


def test_layer_by_layer_equals_the_scan(decoder, params):
    apply, ids, mask = decoder
    alone, unrolled = MODEL.one_by_one(params)
    cache = MODEL.empty_cache(2, 9)
    got = jax.jit(alone.apply)({'params': unrolled}, ids, mask, cache=cache)
    want = apply(ids, mask, cache=cache)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_given_embeddings_stand_where_ids_are_negative(decoder):
    apply, ids, mask = decoder
    want = apply(ids, mask)
    holes = jnp.where(jnp.arange(9) % 2, -1, ids)
    given = jnp.where((jnp.arange(9) % 2)[:, None], want['embeddings'], jnp.nan)
    np.testing.assert_array_equal(
        apply(holes, mask, embeddings_btd=given)['logits'], want['logits']
    )
    with pytest.raises(ValueError, match='Give token_ids_bt, embeddings_btd, or both'):
        apply()


def test_logits_of_some_positions(decoder):
    apply, ids, mask = decoder
    at = jnp.array([[8, 0, 3], [3, 3, 1]])
    whole = np.asarray(apply(ids, mask)['logits'])
    some = apply(ids, mask, logits_at_bn=at)['logits']
    np.testing.assert_allclose(some, whole[np.arange(2)[:, None], at], atol=1e-5)
    assert apply(ids, mask, logits_at_bn=at[:, :0])['logits'].shape == (2, 0, 50)


def test_bfloat16_keeps_logits_in_float32(decoder, params):
    apply, ids, mask = decoder
    model = MODEL.clone(dtype=jnp.bfloat16)
    outputs = jax.jit(model.apply)({'params': params}, ids, mask)
    assert outputs['logits'].dtype == jnp.float32
    assert outputs['hidden'].dtype == jnp.bfloat16
    high = apply(ids, mask)['logits']
    assert np.abs(outputs['logits'] - high).max() < 0.05 * np.abs(high).max()
