"""Keys and values of earlier positions, so that generation computes each position once.

A cache is a pytree, an argument and a result of the model's call:

  'mask'    bool [b, s]: which of the s slots hold a token that may be attended to
  'index'   int32 []: the slot that the next position goes to, the same for all rows
  'layers'  {'attn': {'key', 'value'}}, each [l, b, s, kv_heads, head_dim], and, after a call with a
            memory, 'cross_attn' with the memory's, or 'gated' with that of gated blocks between
            layers, whose l is the number of these; a model without a stack has lists of l arrays,
            which, unlike parts of one, change in place

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
    *,
    stacked: bool = True,
) -> Cache:
    """A cache of ``length`` slots: the padded prompt and all that is to be generated."""
    shape = (batch, length, kv_heads, head_dim)

    def slots():
        if stacked:
            return jnp.zeros((depth, *shape), dtype)
        return [jnp.zeros(shape, dtype) for _ in range(depth)]

    return {
        'mask': jnp.zeros((batch, length), bool),
        'index': jnp.zeros((), jnp.int32),
        'layers': {'attn': {'key': slots(), 'value': slots()}},
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


def ordinals(mask_bs, segments_bs=None):
    """int32 [b, s]: how many tokens stand before each; at padding, any number in range.

    With ``segments_bs``, int [b, s], how many of its own segment, whose positions are neighbours.
    """
    numbers = jnp.maximum(jnp.cumsum(mask_bs, axis=1, dtype=jnp.int32) - 1, 0)
    if segments_bs is None:
        return numbers
    first = jnp.diff(segments_bs, axis=1, prepend=segments_bs[:, :1]) != 0
    return numbers - jax.lax.cummax(jnp.where(first, numbers, 0), axis=1)


def current(values_bs, index, length: int):
    """The [b, length] of a call out of [b, s]."""
    return jax.lax.dynamic_slice_in_dim(values_bs, index, length, axis=1)


def causal_mask(
    mask_bs, index, length: int, window: int | None = None, segments_bt=None, prefix_bt=None
):
    """bool [b, length, s]: the slots that each position of a call attends to.

    Args:
      mask_bs, index: of ``extend``.
      length: positions of the call.
      window: how many tokens back, its own included; None is all.
      segments_bt: int [b, length]; a position attends to those of its own number. Only for a call
        that has no slots but its own.
      prefix_bt: bool [b, length], positions that see each other both ways.
    """
    slots = jnp.arange(mask_bs.shape[1])
    mask = slots <= (index + jnp.arange(length))[:, None]
    if prefix_bt is not None:
        prefix_bs = put(jnp.zeros_like(mask_bs), prefix_bt, index)
        mask = mask | (prefix_bt[:, :, None] & prefix_bs[:, None])
    mask = mask_bs[:, None] & mask
    if segments_bt is not None:
        mask &= segments_bt[:, :, None] == segments_bt[:, None]
    if window is not None:
        numbers = ordinals(mask_bs)
        mask &= current(numbers, index, length)[:, :, None] - numbers[:, None] < window
    return mask


def advance(cache: Cache, extended: Cache, made: Cache) -> Cache:
    """The cache after a call.

    Args:
      cache: before it.
      extended: of ``extend``.
      made: the scanned blocks' new keys and values, {'attn': ..., 'cross_attn': ...,
        'gated': ...}, each [l, b, t, ...]; {} where nothing was made.
    """
    index = cache['index']
    apart = isinstance(cache['layers']['attn']['key'], list)

    def longer(slots, new):
        if apart:
            return [put(own, new[layer], index) for layer, own in enumerate(slots)]
        return jax.vmap(put, (0, 0, None))(slots, new, index)

    layers = {name: kept for name, kept in made.items() if name != 'attn' and kept}
    if apart and 'cross_attn' in layers:
        layers['cross_attn'] = jax.tree.map(list, layers['cross_attn'])
    layers['attn'] = {
        name: longer(slots, made['attn'][name]) for name, slots in cache['layers']['attn'].items()
    }
    length = made['attn']['key'].shape[2]
    return {
        **cache,
        'mask': extended['mask'],
        'index': index + length,
        'layers': {**cache['layers'], **layers},
    }
