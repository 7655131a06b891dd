"""Keys and values of earlier positions, so that generation computes each position once.

A cache is a pytree, an argument and a result of the model's call:

  'mask'    bool [b, s]: which of the s slots hold a token that may be attended to
  'index'   int32 []: the slot that the next position goes to, the same for all rows
  'layers'  {'attn': {'key', 'value'}}, each [l, b, kv_heads, s, head_dim], and, after a call with a
            memory, 'cross_attn' with the memory's, or 'gated' with that of gated blocks between
            layers, whose l is the number of these; a model without a stack has lists of l arrays,
            which, unlike parts of one, change in place, and the mark APART in 'attn'

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
APART = {'apart': ()}


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
    shape = (batch, kv_heads, length, head_dim)
    if stacked:
        attn = {name: jnp.zeros((depth, *shape), dtype) for name in ('key', 'value')}
    else:
        attn = {name: [jnp.zeros(shape, dtype)] * depth for name in ('key', 'value')} | APART
    return {
        'mask': jnp.zeros((batch, length), bool),
        'index': jnp.zeros((), jnp.int32),
        'layers': {'attn': attn},
    }


def is_apart(slots) -> bool:
    """Whether these are slots of a cache whose layers are apart."""
    return isinstance(slots, dict) and 'apart' in slots


def join(*of_layers):
    """What the layers of a model without a stack made: lists of slots, else one array."""
    if is_apart(of_layers[0]):
        return {name: [own[name] for own in of_layers] for name in ('key', 'value')} | APART
    return jnp.stack(of_layers)


def put(slots, new, index, axis: int = 1):
    """``slots`` with ``new`` from slot ``index`` on, slots being along ``axis``.

    Raises:
      ValueError: t exceeds s. Whether index + t does cannot be seen here: the caller counts.
    """
    t, s = new.shape[axis], slots.shape[axis]
    if t > s:
        raise ValueError(f'{t} positions for a cache of {s} slots.')
    return jax.lax.dynamic_update_slice_in_dim(slots, new.astype(slots.dtype), index, axis)


def extend(cache: Cache | None, mask_bt) -> Cache:
    """{'mask', 'index', 'length'} of a call: those of the cache with ``mask_bt`` put in.

    Without a cache, of ``mask_bt`` alone; the length is that of the call, an int.
    """
    length = mask_bt.shape[1]
    if cache is None:
        return {'mask': mask_bt, 'index': jnp.zeros((), jnp.int32), 'length': length}
    index = cache['index']
    return {'mask': put(cache['mask'], mask_bt, index), 'index': index, 'length': length}


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
        'gated': ...}, each [l, b, kv_heads, t, head_dim]; {} where nothing was made.
    """
    layers = {name: kept for name, kept in made.items() if kept}
    if is_apart(made['attn']):
        if 'cross_attn' in layers:
            layers['cross_attn'] = jax.tree.map(list, layers['cross_attn'])
    else:
        layers['attn'] = {
            name: put(slots, made['attn'][name], cache['index'], axis=3)
            for name, slots in cache['layers']['attn'].items()
        }
    return {
        **cache,
        'mask': extended['mask'],
        'index': cache['index'] + extended['length'],
        'layers': {**cache['layers'], **layers},
    }
