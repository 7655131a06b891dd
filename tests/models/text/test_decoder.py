"""The decoder's inputs; its numbers are in tests/interop/test_decoder_families.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alm_jax.models.layers import kv_cache
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


PLAIN = dataclasses.replace(SIZE, window=None, windowed=(), window_rope=None)
LEARNED = dataclasses.replace(PLAIN, rope=None, positions=60, norm='layer', head='own')
KINDS = {'windowed': SIZE, 'plain': PLAIN, 'learned positions, own head': LEARNED}


def random_params(model, seed=0):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))['params']
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.float32(0.2 * rng.standard_normal(s.shape)), shapes)


def packed(lengths_of_rows, length, prompts=None):
    """(ids, segments, prefix) of rows of sequences with padding between and behind them."""
    rng = np.random.default_rng(2)
    shape = (len(lengths_of_rows), length)
    ids, segments, prefix = rng.integers(0, 50, shape), np.zeros(shape, int), np.zeros(shape, bool)
    for row, lengths in enumerate(lengths_of_rows):
        start = 0
        for number, count in enumerate(lengths, start=1):
            segments[row, start : start + count] = number
            prefix[row, start : start + (prompts or (0,) * number)[number - 1]] = True
            start += count + number % 2  # one place of padding after the odd ones
    return jnp.int32(ids), jnp.int32(segments), jnp.array(prefix)


def value_and_gradient(model, params, ids, segments, prefix, weights):
    """Tokens after the final norm, and the gradient of a number made of the logits that count."""

    def loss(params):
        outputs = model.apply({'params': params}, ids, segments_bt=segments, prefix_bt=prefix)
        return jnp.sum(jnp.sin(outputs['logits']) * weights[..., None]), outputs['tokens']

    return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.mark.parametrize('prompts', [None, (4, 3, 2)], ids=['causal', 'prefix'])
@pytest.mark.parametrize('kind', KINDS)
def test_packed_sequences_are_as_by_themselves(kind, prompts):
    """Value and gradient; rows long enough for the attention that keeps no scores."""
    model = Decoder(KINDS[kind])
    params = random_params(model)
    lengths = ((20, 31, 7), (11, 50))
    ids, segments, prefix = packed(lengths, 72, prompts)
    prefix = None if prompts is None else prefix
    weights = jnp.float32(segments > 0)
    whole, tokens = value_and_gradient(model, params, ids, segments, prefix, weights)

    places = [np.flatnonzero(segments[r] == n + 1) for r in (0, 1) for n in range(len(lengths[r]))]
    rows = [0, 0, 0, 1, 1]
    alone = np.zeros((5, 50), int), np.zeros((5, 50), int), np.zeros((5, 50), bool)
    for i, (row, place) in enumerate(zip(rows, places)):
        alone[0][i, : len(place)] = ids[row, place]
        alone[1][i, : len(place)] = 1
        if prompts:
            alone[2][i, : len(place)] = prefix[row, place]
    ones = jnp.float32(alone[1])
    by_itself = (*map(jnp.asarray, alone[:2]), jnp.asarray(alone[2]) if prompts else None)
    sums, one_by_one = value_and_gradient(model, params, *by_itself, ones)
    for i, (row, place) in enumerate(zip(rows, places)):
        want = one_by_one[i, : len(place)]
        np.testing.assert_allclose(tokens[row, place], want, atol=1e-5 * np.abs(want).max())
    for ours, theirs in zip(jax.tree.leaves(whole), jax.tree.leaves(sums), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_what_each_position_sees():
    """Segments, a prefix and a window against a loop over pairs."""
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 0], [1, 0, 2, 2, 2, 2, 3, 3]])
    prefix = np.array([[1, 1, 0, 0, 1, 1, 1, 0], [1, 0, 1, 1, 1, 0, 0, 0]], bool)
    for window in (None, 2):
        got = kv_cache.causal_mask(segments > 0, 0, 8, window, jnp.array(segments), prefix)
        want = np.zeros((2, 8, 8), bool)
        for row, i, j in np.ndindex(want.shape):
            seen = j <= i or (prefix[row, i] and prefix[row, j])
            near = window is None or i - j < window
            same = segments[row, i] == segments[row, j] > 0
            want[row, i, j] = seen and near and same
        np.testing.assert_array_equal(got, want)
    numbers = kv_cache.ordinals(jnp.array(segments > 0), jnp.array(segments))
    np.testing.assert_array_equal(numbers[0, :7], [0, 1, 2, 3, 0, 1, 2])
    np.testing.assert_array_equal(np.delete(numbers[1], 1), [0, 0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize('kind', KINDS)
def test_a_prefix_in_a_cache_is_as_without_one(kind):
    """The prompt at once, its positions seeing each other, then token by token."""
    model = Decoder(KINDS[kind])
    params = random_params(model)
    ids, segments, prefix = packed(((9,), (7,)), 9, (4,))
    whole = model.apply({'params': params}, ids, segments_bt=segments, prefix_bt=prefix)['logits']
    outputs = model.apply(
        {'params': params},
        ids[:, :5],
        segments_bt=segments[:, :5],
        prefix_bt=prefix[:, :5],
        cache=model.empty_cache(2, 9),
    )
    got = [outputs['logits']]
    step = jax.jit(model.apply)
    for t in range(5, 9):
        now = slice(t, t + 1)
        outputs = step(
            {'params': params}, ids[:, now], segments_bt=segments[:, now], cache=outputs['cache']
        )
        got.append(outputs['logits'])
    there = np.asarray(segments) > 0
    difference = np.abs(np.concatenate(got, axis=1) - whole)[there].max()
    assert difference <= 1e-5 * np.abs(whole).max()
    other = model.apply({'params': params}, ids, segments_bt=segments)['logits']
    assert np.abs(other - whole)[there].max() > 0.01 * np.abs(whole).max()


@pytest.mark.parametrize('kind', KINDS)
def test_logits_are_tokens_times_the_head(kind):
    model = Decoder(KINDS[kind])
    params = random_params(model)
    outputs = model.apply({'params': params}, jnp.arange(12).reshape(2, 6))
    head = model.head_weights(params)
    want = outputs['tokens'] @ head.T
    np.testing.assert_allclose(outputs['logits'], want, atol=1e-5 * np.abs(want).max())
    assert head.shape == (50, 32)


@pytest.mark.parametrize(
    ('options', 'fused'),
    [
        ({}, True),
        ({'token_mask_bt': (bool, 256)}, True),
        ({'segments_bt': (jnp.int32, 256)}, True),
        ({'prefix_bt': (bool, 256)}, False),
    ],
    ids=['no mask', 'mask', 'segments', 'prefix'],
)
def test_what_reaches_the_kernels_of_tpus(options, fused):
    model = Decoder(PLAIN)
    ids = jax.ShapeDtypeStruct((2, 256), jnp.int32)
    params = jax.eval_shape(lambda: random_params(model))
    given = {name: jax.ShapeDtypeStruct((2, t), dtype) for name, (dtype, t) in options.items()}
    run = jax.jit(lambda params, ids, given: model.apply({'params': params}, ids, **given))
    lowered = run.trace(params, ids, given).lower(lowering_platforms=('tpu',)).as_text()
    assert ('splash_mha_fwd' in lowered or 'tpu_custom_call' in lowered) == fused
