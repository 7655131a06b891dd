"""Keys and values of earlier positions, so that generation computes each position once.

A cache is a pytree, an argument and a result of the model's call:

  'mask'    bool [b, s]: which of the s slots hold a token that may be attended to
  'index'   int32 []: the slot that the next position goes to, the same for all rows
  'layers'  {'attn': {'key', 'value'}}, each [l, b, s, kv_heads, head_dim], and, after a call with a
            memory, 'cross_attn' with the memory's

Slots are filled in the order of time, padding included, so prompts may be padded anywhere: at
their ends, as batches are here, or in front. What tells positions is not the slot but how many
tokens stand before it (``ordinals``), so the first generated token follows the last of the prompt
whatever padding lies between.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Cache = dict[str, Any]


def empty(
    depth: int,
    batch: int,
    length: int,
    kv_heads: int,
    head_dim: int,
    dtype: DTypeLike = jnp.float32,
) -> Cache:
    """A cache of ``length`` slots: the padded prompt and all that is to be generated."""
    shape = (depth, batch, length, kv_heads, head_dim)
    return {
        'mask': jnp.zeros((batch, length), bool),
        'index': jnp.zeros((), jnp.int32),
        'layers': {'attn': {'key': jnp.zeros(shape, dtype), 'value': jnp.zeros(shape, dtype)}},
    }


def put(slots, new, index):
    """``slots`` [b, s, ...] with ``new`` [b, t, ...] from slot ``index`` on.

    Raises:
      ValueError: t exceeds s. Whether index + t does cannot be seen here: the caller counts.
    """
    if new.shape[1] > slots.shape[1]:
        raise ValueError(f'{new.shape[1]} positions for a cache of {slots.shape[1]} slots.')
    return jax.lax.dynamic_update_slice_in_dim(slots, new.astype(slots.dtype), index, axis=1)


def extend(cache: Cache | None, mask_bt) -> Cache:
    """{'mask', 'index'} of a call: the cache's, ``mask_bt`` put in; without one, these alone."""
    if cache is None:
        return {'mask': mask_bt, 'index': jnp.zeros((), jnp.int32)}
    return {'mask': put(cache['mask'], mask_bt, cache['index']), 'index': cache['index']}


def ordinals(mask_bs):
    """int32 [b, s]: how many tokens stand before each; at padding, any number in range."""
    return jnp.maximum(jnp.cumsum(mask_bs, axis=1, dtype=jnp.int32) - 1, 0)


def current(values_bs, index, length: int):
    """The [b, length] of a call out of [b, s]."""
    return jax.lax.dynamic_slice_in_dim(values_bs, index, length, axis=1)


def causal_mask(mask_bs, index, length: int, window: int | None = None):
    """bool [b, length, s]: the slots that each position of a call attends to.

    Args:
      mask_bs, index: of ``extend``.
      length: positions of the call.
      window: how many tokens back, its own included; None is all.
    """
    slots = jnp.arange(mask_bs.shape[1])
    mask = mask_bs[:, None] & (slots <= (index + jnp.arange(length))[:, None])
    if window is not None:
        numbers = ordinals(mask_bs)
        mask &= current(numbers, index, length)[:, :, None] - numbers[:, None] < window
    return mask


def advance(cache: Cache, extended: Cache, made: Cache) -> Cache:
    """The cache after a call.

    Args:
      cache: before it.
      extended: of ``extend``.
      made: the scanned blocks' new keys and values, {'attn': ..., 'cross_attn': ...}, each
        [l, b, t, ...]; {} where nothing was made.
    """
    attn = {
        name: jax.vmap(put, (0, 0, None))(slots, made['attn'][name], cache['index'])
        for name, slots in cache['layers']['attn'].items()
    }
    cross = {name: kept for name, kept in made.items() if name != 'attn' and kept}
    length = made['attn']['key'].shape[2]
    return {
        'mask': extended['mask'],
        'index': cache['index'] + length,
        'layers': {**cache['layers'], 'attn': attn, **cross},
    }
