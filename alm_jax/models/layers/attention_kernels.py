"""Attention in the form that suits the backend, chosen when a program is lowered for it.

Which backend that is cannot be asked while a model is traced: a program for TPUs or GPUs may be
compiled on a machine that has none.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from alm_jax.models.layers import (
    attention_cpu,
    attention_cuda,
    attention_plain,
    attention_tpu,
    placement,
)

# Compiled for v5e, forwards and backwards, ViT-B's heads in bfloat16: bytes moved are 2.1 times
# those of the plain form at 77 tokens, 0.68 at 256 masked, 0.37 at 512 and 0.22 at 1214 masked.
SHORTEST = 256
# Both passes on two cores, heads of 64 in float32: blocks take 0.56 of the plain form's time at 256
# tokens, 0.73 at 128 and 0.79 at 77, but 1.07 at 50.
SHORTEST_ON_CPU = 64


def attend(
    query, key, value, mask=None, *, bias=None, softcap=None, scale=None, causal=False, window=None
):
    """Scaled dot product attention, softmax in float32.

    Args:
      query: [b, t, heads, d].
      key, value: [b, s, kv_heads, d]; heads is a multiple of kv_heads.
      mask: bool [b, s], or [b, t, s], where True may be attended to; None is everywhere. Or int
        [b, t], as many keys as queries: a query attends to the keys of its own number.
      bias: added to the scores, broadcast to [b, heads, t, s]; None is nothing.
      softcap: scores become softcap * tanh(scores / softcap); None leaves them.
      scale: of the scores; None is d ** -0.5.
      causal: query i attends to keys 0 to i.
      window: with ``causal``, to the last so many of these; None is all.

    Returns:
      [b, t, heads, d]. A query that may attend to nothing attends evenly, on every backend.
    """
    options = {'scale': scale, 'causal': causal, 'window': window}
    plain = _of_pairs(
        functools.partial(attention_plain.attend, bias=bias, softcap=softcap, **options)
    )
    kernels = {}  # platform -> what replaces ``plain`` there
    kernel_can = bias is None and softcap is None and _can(query, key, mask, causal, window)
    length = min(query.shape[1], key.shape[1])
    if kernel_can and length >= SHORTEST_ON_CPU:
        blocks = functools.partial(attention_cpu.attend, **options)
        kernels['cpu'] = _of_pairs(functools.partial(_on_each_device, blocks))
    if kernel_can and length >= SHORTEST:
        fused = functools.partial(_fused, **options)
        if mask is None or mask.ndim == 2:
            kernels['tpu'] = functools.partial(fused, attention_tpu.attend)
        if attention_cuda.installed() and attention_cuda.can(query, mask, causal, window):
            kernels['cuda'] = _of_pairs(functools.partial(fused, attention_cuda.attend))
    if not kernels:
        return plain(query, key, value, mask)
    return jax.lax.platform_dependent(query, key, value, mask, default=plain, **kernels)


def _can(query, key, mask, causal, window) -> bool:
    """Whether a kernel that keeps no scores can do what is asked."""
    # A kernel numbers its queries from the first, and so must have all of them; their segments
    # are as whole as the keys'.
    t, s = query.shape[1], key.shape[1]
    whole = causal or _are_segments(mask)
    if whole and (t != s or placement.axes_of('length', t)):
        return False
    # Inside a shard_map that checks which axes values vary over, a kernel does not say.
    return not jax.typeof(query).mat.varying and (window is None or causal)


def _are_segments(mask) -> bool:
    return mask is not None and mask.dtype != jnp.bool_


def _of_pairs(kernel):
    """``kernel``, which takes masks of bool alone, for segments as well."""

    def attend(query, key, value, mask):
        if _are_segments(mask):
            mask = mask[:, :, None] == mask[:, None]
        return kernel(query, key, value, mask)

    return attend


def _on_each_device(kernel, query, key, value, mask):
    """``kernel`` on each device's rows, heads and queries: the partitioner cannot look inside."""
    mesh = placement.current_mesh()
    if mesh is not None and not jax.sharding.get_abstract_mesh().manual_axes:
        rows = placement.axes_of('batch', query.shape[0]) or None
        heads = placement.axes_of('heads', key.shape[2]) or None
        queries = placement.axes_of('length', query.shape[1]) or None
        whole = PartitionSpec(rows, None, heads)
        part = PartitionSpec(rows, queries, heads)
        pairs = mask is not None and mask.ndim == 3
        kernel = jax.shard_map(
            kernel,
            mesh=mesh,
            in_specs=(part, whole, whole, PartitionSpec(rows, queries if pairs else None)),
            out_specs=part,
            check_vma=False,
        )
    return kernel(query, key, value, mask)


def _fused(kernel, query, key, value, mask, **options):
    """A kernel of ``_on_each_device``, and what a query that may attend to nothing gets."""
    out = _on_each_device(functools.partial(kernel, **options), query, key, value, mask)
    if mask is None or _are_segments(mask):  # every query attends to itself
        return out
    # Here the kernels differ, and their gradients are not those of what they give.
    seen = _seen(mask, options['causal'], options['window'])
    even = value.mean(axis=1, keepdims=True, dtype=jnp.float32).astype(out.dtype)
    even = jnp.repeat(even, query.shape[2] // key.shape[2], axis=2)
    return jnp.where(seen[..., None, None], out, even)


def _seen(mask, causal, window):
    """bool [b, t or 1]: whether a query may attend to any key; [b, s] is what it sees."""
    if mask.ndim == 3:
        return (jnp.tril(mask) if causal else mask).any(axis=2)
    if not causal:
        return mask.any(axis=1, keepdims=True)
    count = jnp.cumsum(mask, axis=1)
    before = jnp.pad(count, ((0, 0), (window, 0)))[:, : mask.shape[1]] if window else 0
    return count > before
