"""Multi-head attention: to the sequence itself or to another, with the options of the field."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers import rotary
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import RmsNorm

PROJECTIONS = ('query', 'key', 'value', 'out')


class MultiHeadAttention(nn.Module):
    """Attention (Vaswani et al. 2017, section 3.2), softmax in float32.

    Parameters: Dense layers ``query``, ``key``, ``value``, ``out``; with ``qk_norm`` also
    ``query_norm`` and ``key_norm`` over the head size.

    Attributes:
      heads: number of query heads.
      kv_heads: number of key and value heads; each serves heads / kv_heads query heads (grouped
        query attention, Ainslie et al. 2023). None is ``heads``.
      head_dim: size of a head; None is d / heads.
      biases: which of the projections have a bias.
      causal: a position attends to itself and earlier ones only.
      window: with ``causal``, to this many positions, its own included; None is all.
      scale: of the scores; None is head_dim ** -0.5.
      qk_norm: RMS norm of queries and keys before rotation (Qwen3).
      norm_epsilon: of that norm.
      dtype: compute and result dtype.
    """

    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    biases: tuple[str, ...] = PROJECTIONS
    causal: bool = False
    window: int | None = None
    scale: float | None = None
    qk_norm: bool = False
    norm_epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd, mask_bs=None, *, memory_bsd=None, bias_bhts=None, rope_btd=None):
        """Attends from every position to the positions where the mask is True.

        Args:
          x_btd: [b, t, d].
          mask_bs: bool [b, s], or None for all positions. A row without any True attends evenly,
            so a wholly padded row stays finite.
          memory_bsd: what keys and values are made of, [b, s, e]; None is ``x_btd``.
          bias_bhts: added to the scores, broadcast to [b, heads, t, s].
          rope_btd: (cos, sin), float32 [b or 1, t, rotated size] each; see ``layers.rotary``.

        Returns:
          [b, t, d] in ``dtype``.
        """
        d = x_btd.shape[-1]
        size = self.head_dim or d // self.heads
        kv_heads = self.kv_heads or self.heads

        def heads(name, x, count):
            bias = name in self.biases
            y = Dense(count * size, use_bias=bias, dtype=self.dtype, name=name)(x)
            return y.reshape(*x.shape[:2], count, size)

        memory = x_btd if memory_bsd is None else memory_bsd
        query = heads('query', x_btd, self.heads)
        key, value = heads('key', memory, kv_heads), heads('value', memory, kv_heads)
        if self.qk_norm:
            query = RmsNorm(self.norm_epsilon, name='query_norm')(query)
            key = RmsNorm(self.norm_epsilon, name='key_norm')(key)
        if rope_btd is not None:
            query, key = rotary.rotate(query, *rope_btd), rotary.rotate(key, *rope_btd)
        y = jax.nn.dot_product_attention(
            query,
            key,
            value,
            bias=bias_bhts,
            mask=None if mask_bs is None else mask_bs[:, None, None, :],
            scale=self.scale,
            is_causal=self.causal,
            local_window_size=None if self.window is None else (self.window - 1, 0),
        )
        y = y.reshape(*x_btd.shape[:2], self.heads * size)
        return Dense(d, use_bias='out' in self.biases, dtype=self.dtype, name='out')(y)
