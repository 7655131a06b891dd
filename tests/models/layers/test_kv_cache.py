"""Blocks that keep keys and values against the same blocks over the whole sequence at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from alm_jax.models.layers import kv_cache, rotary, transformer

WIDTH, HEADS, DEPTH, SLOTS = 32, 4, 2, 9


class _Decoder(nn.Module):
    """What Whisper's decoder does: a causal stack that attends to a memory."""

    @nn.compact
    def __call__(self, x_btd, mask_bt, memory_bsd=None, memory_mask_bs=None, cache=None):
        options = {'heads': HEADS, 'mlp_width': 64, 'cross': True, 'attention': {'kv_heads': 2}}
        shape = x_btd.shape[1]
        extended = kv_cache.extend(cache, mask_bt)
        mask = kv_cache.causal_mask(extended['mask'], extended['index'], shape)
        positions = kv_cache.current(kv_cache.ordinals(extended['mask']), extended['index'], shape)
        rope = rotary.Rope().cos_sin(positions, WIDTH // HEADS)
        inputs = (x_btd, mask, None, rope, memory_bsd, memory_mask_bs)
        if cache is None:
            return transformer.transformer_stack(DEPTH, **options)(*inputs)[0]
        stack = transformer.transformer_stack(DEPTH, in_axes=transformer.CACHED, **options)
        x, (_, made) = stack(*inputs, (extended['index'], cache['layers']))
        return x, kv_cache.advance(cache, extended, made)


@pytest.fixture(scope='module')
def decoder():
    rng = np.random.default_rng(0)
    memory = rng.standard_normal((2, 6, 20)).astype(np.float32)
    memory_mask = np.arange(6) < np.array([6, 4])[:, None]
    x = rng.standard_normal((2, SLOTS, WIDTH)).astype(np.float32)
    mask = np.ones((2, SLOTS), bool)
    mask[1, 2:4] = False  # a prompt that is padded at its end, then goes on
    module = _Decoder()
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, mask, memory, memory_mask)
    variables = jax.tree.map(lambda s: np.float32(0.2 * rng.standard_normal(s.shape)), shapes)
    whole = jax.jit(module.apply)(variables, x, mask, memory, memory_mask)
    return jax.jit(module.apply), variables, (x, mask, memory, memory_mask), whole


def test_step_by_step_equals_all_at_once(decoder):
    """Self-attention through the cache, the memory's keys made once; true positions only."""
    apply, variables, (x, mask, memory, memory_mask), whole = decoder
    cache = kv_cache.empty(DEPTH, 2, SLOTS, 2, WIDTH // HEADS)
    got, cache = apply(variables, x[:, :4], mask[:, :4], memory, memory_mask, cache)
    steps = [got]
    assert cache['layers']['cross_attn']['key'].shape == (DEPTH, 2, 2, 6, WIDTH // HEADS)
    for t in range(4, SLOTS):
        now = slice(t, t + 1)
        got, cache = apply(variables, x[:, now], mask[:, now], None, memory_mask, cache)
        steps.append(got)
    assert int(cache['index']) == SLOTS
    difference = np.abs(np.concatenate(steps, axis=1) - whole)[mask].max()
    assert difference <= 1e-5 * np.abs(whole).max()


def test_padding_between_moves_nothing(decoder):
    """The row whose prompt was padded, its padding at the end: positions count tokens."""
    apply, variables, (x, mask, memory, memory_mask), whole = decoder
    order = np.argsort(~mask[1], kind='stable')
    got = apply(variables, x[:, order], mask[:, order], memory, memory_mask)
    want = whole[1][mask[1]]
    assert np.abs(got[1][: len(want)] - want).max() <= 1e-5 * np.abs(want).max()


def test_a_window_counts_tokens():
    mask = jnp.array([[True, True, False, False, True, True]])
    seen = kv_cache.causal_mask(mask, 4, 2, window=3)
    assert seen.tolist() == [
        [[True, True, False, False, True, False], [False, True, False, False, True, True]]
    ]


def test_more_positions_than_slots():
    cache = kv_cache.empty(1, 1, 3, 1, 4)
    with pytest.raises(ValueError, match='4 positions for a cache of 3 slots'):
        kv_cache.extend(cache, jnp.ones((1, 4), bool))
