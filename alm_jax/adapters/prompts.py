"""Learned prompts and prefixes of a decoder (models.text.decoder.Decoder).

Prompt tuning (Lester et al. 2021, arXiv:2104.08691) learns embeddings before the text; prefix
tuning (Li and Liang 2021, arXiv:2101.00190, without its reparametrisation) learns the keys and
values of such positions in every layer.
"""

from typing import Any

import jax
import jax.numpy as jnp

from alm_jax.models.layers import kv_cache
from alm_jax.models.text.decoder import Decoder


def init_prompt(rng: jax.Array, params: Any, length: int) -> jax.Array:
    """float32 [length, d]: rows of the embedding table drawn at random."""
    table = params['token_embedding']['embedding']
    rows = jax.random.randint(rng, (length,), 0, table.shape[0])
    return table[rows].astype(jnp.float32)


def with_prompt(prompt_nd: jax.Array, token_ids_bt: jax.Array, token_mask_bt: jax.Array) -> dict:
    """Arguments of the decoder for texts behind a learned prompt.

    Args:
      prompt_nd: [n, d]; taken as the input of the first block, whatever the model multiplies its
        own embeddings with.
      token_ids_bt: int32 [b, t]; token_mask_bt: bool [b, t].

    Returns:
      'token_ids_bt', 'token_mask_bt' and 'embeddings_btd' for n + t positions.
    """
    b, t = token_ids_bt.shape
    n, d = prompt_nd.shape
    prompt = jnp.broadcast_to(prompt_nd, (b, n, d))
    return {
        'token_ids_bt': jnp.concatenate([jnp.full((b, n), -1, jnp.int32), token_ids_bt], axis=1),
        'token_mask_bt': jnp.concatenate([jnp.ones((b, n), bool), token_mask_bt], axis=1),
        'embeddings_btd': jnp.concatenate([prompt, jnp.zeros((b, t, d), prompt.dtype)], axis=1),
    }


def init_prefix(rng: jax.Array, module: Decoder, length: int) -> dict[str, jax.Array]:
    """{'key', 'value'}: float32 [l, length, kv_heads, head_dim], standard normal times 0.02."""
    depth, _, kv_heads, _, size = module.empty_cache(1, length)['layers']['attn']['key'].shape
    keys = jax.random.split(rng)
    return {
        name: 0.02 * jax.random.normal(key, (depth, length, kv_heads, size))
        for name, key in zip(('key', 'value'), keys)
    }


def with_prefix(
    module: Decoder, prefix: dict[str, jax.Array], batch: int, length: int
) -> kv_cache.Cache:
    """A cache whose first slots hold the prefix, and ``length`` more.

    Keys are taken as they are, not rotated; the first token of a text has the position after the
    prefix.
    """
    slots = prefix['key'].shape[1]
    cache = module.empty_cache(batch, slots + length)
    attn = cache['layers']['attn']
    rows = {name: own[:, None].swapaxes(2, 3) for name, own in prefix.items()}
    filled = {
        name: kv_cache.put(attn[name], jnp.repeat(own, batch, axis=1), 0, axis=3)
        for name, own in rows.items()
    }
    return {
        'mask': cache['mask'].at[:, :slots].set(True),
        'index': jnp.int32(slots),
        'layers': {'attn': filled},
    }
