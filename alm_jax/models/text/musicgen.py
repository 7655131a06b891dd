"""MusicGen's language model of audio codes (Copet et al. 2023, https://arxiv.org/abs/2306.05284)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.layers import kv_cache
from alm_jax.models.layers.dense import Dense, Embedding
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.positions import cos_sin
from alm_jax.models.layers.transformer import CACHED, transformer_stack, unroll

NORM_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the decoder, and its codes.

    Attributes:
      width, depth, heads, mlp_width, activation: as everywhere.
      codebooks: codes at a position; of both channels where there are two, left and right in turn.
      rows: codes of each codebook. The code ``rows`` stands where a codebook has none.
      channels: of the waveform.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp_width: int = 4096
    activation: str = 'gelu'
    codebooks: int = 4
    rows: int = 2048
    channels: int = 1

    @property
    def delays(self) -> tuple[int, ...]:
        """By how many positions each codebook comes later than the first."""
        return tuple(book // self.channels for book in range(self.codebooks))


class MusicgenDecoder(nn.Module):
    """Codes and a memory in, logits of the next codes out, with a cache if given.

    Parameters: ``token_embedding`` [codebooks * (rows + 1), d], one codebook after the other;
    ``layers`` (see transformer_stack, with ``cross_attn``); ``norm``; Dense ``lm_heads``
    [d, codebooks * rows]. Positions are sinusoidal and need none.

    Attributes:
      size: see Size.
      dropout: rate after the embeddings and inside the blocks.
      remat: 'none' or 'block'.
      unrolled: see transformer_stack; made by ``one_by_one``.
      dtype: compute dtype; norms, softmax and logits are float32.
    """

    size: Size = dataclasses.field(default_factory=Size)
    dropout: float = 0.0
    remat: str = 'none'
    unrolled: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        codes_bqt,
        mask_bt=None,
        memory_bsd=None,
        memory_mask_bs=None,
        *,
        cache: kv_cache.Cache | None = None,
        train: bool = False,
    ) -> dict[str, Any]:
        """The hidden states of every position, each of which sees itself, earlier ones, the memory.

        What stands behind a False of a mask changes nothing: positions count codes, not slots.

        Args:
          codes_bqt: int32 [b, codebooks, t], delayed already (see ``Size.delays``).
          mask_bt: bool [b, t]; None is all.
          memory_bsd: of the text encoder, [b, s, d]. Not needed when the cache has its keys and
            values. Where a row has no True in its mask, zeros are no condition at all.
          memory_mask_bs: bool [b, s]; None is all.
          cache: of ``empty_cache`` or of the call before; this call's positions come after it.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'embeddings' [b, t, d], input of the first block; 'hidden' [l, b, t, d], every block's
          output; 'tokens' [b, t, d], the last one's after the final norm; 'logits' float32
          [b, codebooks, t, rows]; 'cache' if there was one.

        Raises:
          ValueError: more positions than slots.
        """
        size = self.size
        batch, _, length = codes_bqt.shape
        if mask_bt is None:
            mask_bt = jnp.ones((batch, length), bool)
        extended = kv_cache.extend(cache, mask_bt)
        place = (extended['index'], length)
        positions_bt = kv_cache.current(kv_cache.ordinals(extended['mask']), *place)
        rows = size.rows + 1
        table = Embedding(size.codebooks * rows, size.width, name='token_embedding')()
        first = jnp.arange(size.codebooks) * rows
        x = jnp.sum(table[codes_bqt + first[:, None]], axis=1) + cos_sin(positions_bt, size.width)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        outputs = {'embeddings': x.astype(self.dtype)}
        mask = kv_cache.causal_mask(extended['mask'], *place)
        inputs = (outputs['embeddings'], mask, None, None, memory_bsd, memory_mask_bs)
        if cache is None:
            x, outputs['hidden'] = self._stack(train)(*inputs)
        else:
            state = (extended['index'], cache['layers'])
            x, (outputs['hidden'], made) = self._stack(train, in_axes=CACHED)(*inputs, state)
            outputs['cache'] = kv_cache.advance(cache, extended, made)
        x = outputs['tokens'] = LayerNorm(NORM_EPSILON, name='norm')(x)
        heads = Dense(size.codebooks * size.rows, use_bias=False, dtype=self.dtype, name='lm_heads')
        logits = heads(x).astype(jnp.float32).reshape(batch, length, size.codebooks, size.rows)
        return outputs | {'logits': jnp.swapaxes(logits, 1, 2)}

    def empty_cache(self, batch: int, length: int) -> kv_cache.Cache:
        """A cache for ``length`` positions of ``batch`` rows."""
        size = self.size
        head_dim = size.width // size.heads
        return kv_cache.empty(size.depth, batch, length, size.heads, head_dim, self.dtype)

    def one_by_one(self, params):
        """(module, parameters) of the same model without a stack, which decodes faster on a CPU."""
        return self.clone(unrolled=True), unroll(params)

    def _stack(self, train, **options):
        size = self.size
        return transformer_stack(
            size.depth,
            remat=self.remat,
            unrolled=self.unrolled,
            heads=size.heads,
            mlp_width=size.mlp_width,
            norm_epsilon=NORM_EPSILON,
            activation=size.activation,
            mlp_bias=False,
            attention=FrozenDict(biases=()),
            cross=True,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
            **options,
        )
