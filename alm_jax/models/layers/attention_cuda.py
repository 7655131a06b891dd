"""Attention on NVIDIA GPUs by cuDNN's fused kernels: no scores in the main memory.

Source: https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html
"""

import functools
import importlib

import jax
import jax.numpy as jnp

PLUGINS = ('jax_cuda13_plugin', 'jax_cuda12_plugin')
LARGEST_HEAD = 128  # of GPUs before Hopper


@functools.cache
def installed() -> bool:
    """Whether jax finds cuDNN, without which it does not trace a call of it."""
    for plugin in PLUGINS:
        try:
            return importlib.import_module(f'{plugin}._versions').cudnn_get_version() > 0
        except (ImportError, RuntimeError):
            continue
    return False


def can(query, mask, causal: bool, window: int | None) -> bool:
    """Whether cuDNN has a kernel, forwards and backwards, for such arguments of ``attend``."""
    t, _, size = query.shape[1:]
    if query.dtype not in (jnp.bfloat16, jnp.float16) or size % 8 or size > LARGEST_HEAD:
        return False
    if mask is None or (mask.ndim == 2 and not causal and mask.dtype == jnp.bool_):
        return True
    # The mask is then a bias, which excludes a window and asks for even lengths.
    return window is None and t % 2 == 0 and mask.shape[-1] % 2 == 0


def attend(query, key, value, mask=None, *, scale, causal, window):
    """As ``attention_kernels.attend``, but for queries that may attend to nothing.

    Args:
      query, key, value: see there; as many queries as keys with ``causal``.
      mask: bool [b, s], bool [b, t, s] or None.
      scale, causal, window: see there.

    Returns:
      [b, t, heads, d]. Queries that may attend to nothing give finite numbers without meaning.
    """
    lengths = None
    if mask is not None and mask.ndim == 2 and not causal:
        # cuDNN knows lengths; without an order among keys, those allowed can all come first.
        key, value, lengths = _allowed_first(key, value, mask)
        mask = None
    if mask is not None:
        mask = mask[:, None] if mask.ndim == 3 else mask[:, None, None]
        b, s = mask.shape[0], mask.shape[-1]
        mask = jnp.broadcast_to(mask, (b, 1, query.shape[1], s))
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=mask,
        scale=scale,
        is_causal=causal,
        key_value_seq_lengths=lengths,
        local_window_size=None if window is None else (window - 1, 0),
        implementation='cudnn',
    )


def _allowed_first(key, value, mask):
    """Keys and values of each row in another order, and how many are allowed, at least one."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    rows = jnp.arange(len(mask))[:, None]

    def sorted_rows(x):
        # That no index comes twice lets the gradient be written without atomic additions.
        return x.at[rows, order].get(unique_indices=True, mode='promise_in_bounds')

    lengths = jnp.maximum(mask.sum(axis=1, dtype=jnp.int32), 1)
    return sorted_rows(key), sorted_rows(value), lengths
