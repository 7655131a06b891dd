"""Multi-head attention: to the sequence itself or to another, with the options of the field."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers import kv_cache, rotary
from alm_jax.models.layers.attention_kernels import attend
from alm_jax.models.layers.dense import Dense, LowRank
from alm_jax.models.layers.norm import RmsNorm
from alm_jax.models.layers.placement import placed
from alm_jax.models.layers.relative_bias import BiasGate

PROJECTIONS = ('query', 'key', 'value', 'out')


class MultiHeadAttention(nn.Module):
    """Attention (Vaswani et al. 2017, section 3.2), softmax in float32.

    Parameters: Dense layers ``query``, ``key``, ``value``, ``out``; with ``qk_norm`` also
    ``query_norm`` and ``key_norm`` over the head size, and with ``bias_gate`` or ``relative`` those
    modules.

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
      norm_offset: of that norm; 1 in Gemma 3.
      softcap: scores become softcap * tanh(scores / softcap) (Gemma 2); None leaves them.
      bias_gate: what gates the bias of the scores: 'input' (WavLM), its features cut into heads, or
        'query' (BEATs), before the scale; None leaves it.
      relative: makes a module of ``layers.relative_positions``, whose scores are added.
      rope_input: what is rotated is the input of query and key, cut into heads, and not they
        (Wav2Vec2-Conformer).
      lora: a low-rank term of the projections that it names.
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
    norm_offset: float = 0.0
    softcap: float | None = None
    bias_gate: str | None = None
    relative: Callable[..., nn.Module] | None = None
    rope_input: bool = False
    lora: LowRank | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x_btd,
        mask_bs=None,
        *,
        memory_bsd=None,
        bias_bhts=None,
        rope_btd=None,
        cache=None,
    ):
        """Attends from every position to the positions where the mask is True.

        Args:
          x_btd: [b, t, d].
          mask_bs: bool [b, s], or [b, t, s], or None for all positions. A row without any True
            attends evenly, so a wholly padded row stays finite. Or int [b, t], segments: a
            position attends to those of its own number.
          memory_bsd: what keys and values are made of, [b, s, e]; None is ``x_btd``.
          bias_bhts: added to the scores, broadcast to [b, heads, t, s].
          rope_btd: (cos, sin), float32 [b or 1, t, rotated size] each; see ``layers.rotary``.
          cache: of earlier calls, see ``layers.kv_cache``. {'key', 'value', 'index'}: the new keys
            and values go into a copy of the s slots [b, kv_heads, s, head_dim] at 'index', and the
            mask alone says which slots are attended to, whatever ``causal`` and ``window`` are.
            Where the cache's layers are apart, all slots are given back for those made.
            {'key', 'value'}: complete, so nothing is made of ``memory_bsd``. {}: nothing yet.

        Returns:
          [b, t, d] in ``dtype``; with a cache ([b, t, d], {'key', 'value'} made in this call,
          [b, kv_heads, t, head_dim], or {} when it was complete).
        """
        d = x_btd.shape[-1]
        size = self.head_dim or d // self.heads
        kv_heads = self.kv_heads or self.heads

        def heads(name, x, count):
            bias = name in self.biases
            y = Dense(count * size, bias, self.dtype, lora=self._lora(name), name=name)(x)
            y = y.reshape(*x.shape[:2], count, size)
            # Every query needs all keys and values, so only queries stay split along the positions.
            return placed(y, 'batch', 'length' if name == 'query' else None, 'heads', None)

        def positioned(name, x, count):
            if self.rope_input:
                x = rotary.rotate(x.reshape(*x.shape[:2], count, size), *rope_btd).reshape(x.shape)
                return heads(name, x, count)
            y = heads(name, x, count)
            if self.qk_norm:
                y = RmsNorm(self.norm_epsilon, self.norm_offset, name=f'{name}_norm')(y)
            return y if rope_btd is None else rotary.rotate(y, *rope_btd)

        query = positioned('query', x_btd, self.heads)
        if self.bias_gate:
            gating = query if self.bias_gate == 'query' else x_btd.reshape(query.shape)
            bias_bhts = BiasGate(self.dtype, name='bias_gate')(gating, bias_bhts)
        if self.relative:
            scale = self.scale or size**-0.5
            query, scores = self.relative(dtype=self.dtype, name='relative')(query, scale)
            bias_bhts = scores if bias_bhts is None else bias_bhts + scores
        made = {}
        if cache and 'index' not in cache:
            key, value = (cache[name].swapaxes(1, 2) for name in ('key', 'value'))
        else:
            memory = x_btd if memory_bsd is None else memory_bsd
            key, value = positioned('key', memory, kv_heads), heads('value', memory, kv_heads)
            made = {'key': key.swapaxes(1, 2), 'value': value.swapaxes(1, 2)}
        if cache and 'index' in cache:
            slots = {n: kv_cache.put(cache[n], made[n], cache['index'], axis=2) for n in made}
            key, value = slots['key'].swapaxes(1, 2), slots['value'].swapaxes(1, 2)
            made = slots | kv_cache.APART if kv_cache.is_apart(cache) else made
        y = attend(
            query,
            key,
            value,
            mask_bs,
            bias=bias_bhts,
            softcap=self.softcap,
            scale=self.scale,
            causal=self.causal and not cache,
            window=None if cache else self.window,
        )
        y = y.reshape(*x_btd.shape[:2], self.heads * size)
        y = Dense(d, 'out' in self.biases, self.dtype, lora=self._lora('out'), name='out')(y)
        return y if cache is None else (y, made)

    def _lora(self, name: str) -> LowRank | None:
        return self.lora if self.lora is not None and name in self.lora.targets else None
