"""Attention for CPUs: block by block, so that scores stay in the cache and are never kept.

A plain attention writes all scores to memory and keeps their softmax for the gradient, which on a
CPU costs more time than the products. Here both passes take as many rows and heads at once as have
their scores in a few megabytes, and the backward pass computes them again from the largest score
and the sum of a query (Dao et al. 2022, section 3.1, https://arxiv.org/abs/2205.14135). It does so
with keys before queries, because XLA multiplies two or three times slower when the left matrix is
to be turned.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BLOCK_SCORES = 2**19
FEWEST_QUERIES = 64
MASKED = float(0.7 * np.finfo(np.float32).min)


def attend(query, key, value, mask=None, *, scale=None, causal=False, window=None):
    """Scaled dot product attention, softmax in float32.

    Args:
      query: [b, t, heads, d].
      key, value: [b, s, kv_heads, d].
      mask, scale, causal, window: see ``attention_kernels.attend``.

    Returns:
      [b, t, heads, d]; memory beyond it and the inputs grows with t + s, not t * s.
    """
    _, t, heads, size = query.shape
    key, value = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (key, value))
    if mask is not None:
        mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
    blocks = _block_sizes(*query.shape[:3], key.shape[1])
    lacking = -t % blocks[2]
    query = jnp.pad(query, ((0, 0), (0, lacking), (0, 0), (0, 0)))
    if mask is not None and mask.shape[2] > 1:
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, lacking), (0, 0)))
    options = _Options((size**-0.5 if scale is None else scale, causal, window, blocks))
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    return _attend(options, query, key, value, mask)[:, :, :t].swapaxes(1, 2)


class _Options(tuple):
    """(scale, causal, window, (rows, heads, queries) of a block)."""


def _block_sizes(b, t, heads, s):
    """Rows, heads and queries of a block; rows and heads divide theirs."""
    queries = max(BLOCK_SCORES // s, 1)
    if queries < t:
        count = -(-t // max(queries, FEWEST_QUERIES))
        return 1, 1, -(-t // count)
    if queries < t * heads:
        return 1, _divisor(heads, queries // t), t
    return _divisor(b, queries // (t * heads)), heads, t


def _divisor(n, at_most):
    return next(k for k in range(min(n, at_most), 0, -1) if n % k == 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options, query, key, value, mask):
    return _forward(options, query, key, value, mask)[0]


def _forward(options, query, key, value, mask):
    """([b, h, t, d], what the backward pass needs)."""
    scale, _, _, (rows, heads, queries) = options

    def block(carry, at):
        out, top, total = carry
        q = _cut(query, at, rows, heads, queries)
        k, v = (_cut(x, (*at[:2], 0), rows, heads, x.shape[2]) for x in (key, value))
        scores = _product('bhtd,bhsd->bhts', q, k) * scale
        seen = _seen(options, mask, at, scores.shape)
        if seen is not None:
            scores = jnp.where(seen, scores, MASKED)
        largest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        sums = jnp.sum(weights, axis=-1, keepdims=True)
        y = _product('bhts,bhsd->bhtd', weights.astype(v.dtype), v) / sums
        return _put(out, y, at), _put(top, largest, at), _put(total, sums, at)

    b, h, t, _ = query.shape
    one = jnp.zeros((b, h, t, 1), jnp.float32)
    start = (jnp.zeros((b, h, t, value.shape[-1]), value.dtype), one, one)
    out, top, total = _over_blocks(block, start, (b // rows, h // heads, t // queries))
    return out, (query, key, value, mask, out, top, total)


def _backward(options, kept, gradient):
    query, key, value, mask, out, top, total = kept
    scale, _, _, (rows, heads, queries) = options
    # Divided by the sums here, where it is [b, h, t, d], the weights need not be.
    gradient = gradient.astype(jnp.float32) / total
    mean = jnp.sum(gradient * out, axis=-1, keepdims=True)
    gradient = gradient.astype(value.dtype)

    def block(carry, at):
        dq, dk, dv = carry
        q, g, m, c = (_cut(x, at, rows, heads, queries) for x in (query, gradient, top, mean))
        of_keys = (*at[:2], 0)
        k, v = (_cut(x, of_keys, rows, heads, x.shape[2]) for x in (key, value))
        scores = _product('bhsd,bhtd->bhst', k, q) * scale
        seen = _seen(options, mask, at, (*scores.shape[:2], queries, k.shape[2]))
        if seen is not None:
            seen = seen.swapaxes(2, 3)
            scores = jnp.where(seen, scores, MASKED)
        weights = jnp.exp(scores - m.swapaxes(2, 3))
        ds = weights * (_product('bhsd,bhtd->bhst', v, g) - c.swapaxes(2, 3)) * scale
        if seen is not None:
            ds = jnp.where(seen, ds, 0)  # of a query that sees nothing, too
        ds = ds.astype(q.dtype)
        new_k = _product('bhst,bhtd->bhsd', ds, q)
        new_v = _product('bhst,bhtd->bhsd', weights.astype(g.dtype), g)
        if query.shape[2] > queries:
            new_k += _cut(dk, of_keys, rows, heads, k.shape[2])
            new_v += _cut(dv, of_keys, rows, heads, k.shape[2])
        dq = _put(dq, _product('bhst,bhsd->bhtd', ds, k), at)
        return dq, _put(dk, new_k, of_keys), _put(dv, new_v, of_keys)

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (query, key, value))
    b, h, t, _ = query.shape
    found = _over_blocks(block, start, (b // rows, h // heads, t // queries))
    return *(x.astype(y.dtype) for x, y in zip(found, (query, key, value))), None


_attend.defvjp(_forward, _backward)


def _over_blocks(block, start, counts):
    """``block`` at every place of a grid of blocks, queries innermost."""
    if np.prod(counts) == 1:
        return block(start, (0, 0, 0))
    places = jnp.stack(jnp.meshgrid(*map(jnp.arange, counts), indexing='ij'), -1).reshape(-1, 3)
    return lax.scan(lambda carry, at: (block(carry, tuple(at)), None), start, places)[0]


def _product(what, a, b):
    return jnp.einsum(what, a, b, preferred_element_type=jnp.float32)


def _cut(x, at, rows, heads, queries):
    """The block of x, [b, h, t, d]."""
    starts = (at[0] * rows, at[1] * heads, at[2] * queries, 0)
    return lax.dynamic_slice(x, starts, (rows, heads, queries, x.shape[3]))


def _put(x, block, at):
    starts = (*(i * size for i, size in zip(at, block.shape)), 0)
    return lax.dynamic_update_slice(x, block.astype(x.dtype), starts)


def _seen(options, mask, at, shape):
    """bool [rows, 1, queries or 1, s], which keys a block's queries may attend to; None is all."""
    _, causal, window, (rows, _, queries) = options
    seen = None
    if causal:
        query = at[2] * queries + lax.broadcasted_iota(jnp.int32, (1, 1, *shape[2:]), 2)
        key = lax.broadcasted_iota(jnp.int32, (1, 1, *shape[2:]), 3)
        seen = key <= query
        if window is not None:
            seen &= key > query - window
    if mask is not None:
        all_rows = mask.shape[2] == 1
        where = (at[0], 0, 0 if all_rows else at[2])
        own = _cut(mask, where, rows, 1, 1 if all_rows else queries)
        seen = own if seen is None else seen & own
    return seen
