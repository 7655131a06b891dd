"""Attention on TPUs by jax's splash kernel, written in Pallas: no scores in the main memory.

Source: Dao et al. 2022, FlashAttention, https://arxiv.org/abs/2205.14135; the kernel is
``jax.experimental.pallas.ops.tpu.splash_attention``.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

LANES = 128  # a block is a multiple of the width of a vector register
LARGEST_BLOCK = 1024


def attend(query, key, value, mask=None, *, scale, causal, window, interpret=False):
    """As ``attention_kernels.attend``, but for queries that may attend to nothing.

    Lengths that are no multiple of a block are padded with keys that nobody may attend to. Only
    with ``causal`` and ``window``, whole blocks that are masked are left out.

    Args:
      query, key, value: see there; as many queries as keys with ``causal``.
      mask: bool [b, s], int [b, t] (segments), or None.
      scale, causal, window: see there.
      interpret: runs anywhere, slowly.

    Returns:
      [b, t, heads, d]. Queries that may attend to nothing give finite numbers without meaning.
    """
    t, heads, size = query.shape[1:]
    s = key.shape[1]
    block_q, rows = _blocks(t)
    block_kv, columns = _blocks(s)
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([_pattern(rows, columns, causal, window)] * heads),
        block_sizes=_sizes(block_q, block_kv),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    segments, axes = None, None
    if mask is not None and mask.dtype != jnp.bool_:
        own = jnp.pad(mask.astype(jnp.int32), ((0, 0), (0, rows - t)), constant_values=-1)
        segments, axes = splash.SegmentIds(own, own), splash.SegmentIds(0, 0)
    elif mask is not None or columns > s:
        # Keys of segment 1 are those that queries, which are all of it, may attend to.
        allowed = jnp.ones((1, s), bool) if mask is None else mask
        allowed = jnp.pad(allowed.astype(jnp.int32), ((0, 0), (0, columns - s)))
        everyone = jnp.ones((rows,), jnp.int32)
        segments = splash.SegmentIds(everyone, allowed[0] if mask is None else allowed)
        axes = splash.SegmentIds(None, None if mask is None else 0)
    query = (query * (scale or size**-0.5)).astype(query.dtype)
    arrays = (_heads_first(query, rows), _heads_first(key, columns), _heads_first(value, columns))
    out = jax.vmap(kernel, (0, 0, 0, axes))(*arrays, segments)
    return out.swapaxes(1, 2)[:, :t]


def _blocks(length: int) -> tuple[int, int]:
    """(size of a block, length in whole blocks): the fewest blocks, none larger than needed."""
    count = -(-length // LARGEST_BLOCK)
    block = -(-length // (count * LANES)) * LANES
    return block, count * block


def _pattern(rows: int, columns: int, causal: bool, window: int | None) -> masks.Mask:
    if causal and window is not None:
        return masks.LocalMask((rows, columns), (window - 1, 0), 0)
    return masks.CausalMask((rows, columns)) if causal else masks.FullMask((rows, columns))


def _sizes(block_q: int, block_kv: int) -> splash.BlockSizes:
    return splash.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        use_fused_bwd_kernel=True,  # five products instead of seven
    )


def _heads_first(x, length):
    """[b, n, heads, d] -> [b, heads, length, d], padded with zeros."""
    return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0)))
