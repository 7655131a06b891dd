"""Whisper's text decoder (Radford et al. 2022, https://arxiv.org/abs/2212.04356, section 2.2)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.layers import kv_cache
from alm_jax.models.layers.dense import Embedding
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import CACHED, transformer_stack, unroll

NORM_EPSILON = 1e-5
BIASES = ('query', 'value', 'out')


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the decoder, its vocabulary and positions.

    Attributes:
      vocabulary: 51864 of the English models, 51865 and 51866 of the others.
      mlp_width: None is four times the width.
      positions: tokens of prompt and text together.
    """

    width: int
    depth: int
    heads: int
    vocabulary: int = 51865
    mlp_width: int | None = None
    positions: int = 448
    activation: str = 'gelu'


class WhisperDecoder(nn.Module):
    """Tokens and the encoder's output in, logits of the next tokens out, with a cache if given.

    Parameters: ``token_embedding``, which is also the head; ``position_embedding``, learned;
    ``layers`` (see transformer_stack, with ``cross_attn``); ``norm``.

    Attributes:
      size: see Size.
      dropout: rate after the embeddings and inside the blocks.
      remat: 'none' or 'block'.
      unrolled: see transformer_stack; made by ``one_by_one``.
      dtype: compute dtype; norms, softmax and logits are float32.
    """

    size: Size
    dropout: float = 0.0
    remat: str = 'none'
    unrolled: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        token_ids_bt,
        token_mask_bt=None,
        memory_bsd=None,
        memory_mask_bs=None,
        *,
        cache: kv_cache.Cache | None = None,
        logits_at_bn=None,
        train: bool = False,
    ) -> dict[str, Any]:
        """The hidden states of every position, each of which sees itself, earlier ones, the memory.

        What stands behind a False of a mask changes nothing, be it before, between or after the
        tokens: positions count tokens, not slots.

        Args:
          token_ids_bt: int32 [b, t].
          token_mask_bt: bool [b, t]; None is all.
          memory_bsd: of the encoder, [b, s, d]. Not needed when the cache has its keys and values.
          memory_mask_bs: bool [b, s]; None is all, as the original has it.
          cache: of ``empty_cache`` or of the call before; this call's positions come after it.
          logits_at_bn: int32 [b, n], the positions of this call whose logits are wanted; None is
            all.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'embeddings' [b, t, d], input of the first block; 'hidden' [l, b, t, d], every block's
          output; 'tokens' [b, t, d], the last one's after the final norm; 'logits' float32
          [b, t or n, vocabulary]; 'cache' if there was one.

        Raises:
          ValueError: more positions than slots.
        """
        size = self.size
        if token_mask_bt is None:
            token_mask_bt = jnp.ones(token_ids_bt.shape, bool)
        extended = kv_cache.extend(cache, token_mask_bt)
        place = (extended['index'], token_ids_bt.shape[1])
        positions_bt = kv_cache.current(kv_cache.ordinals(extended['mask']), *place)
        table = Embedding(size.vocabulary, size.width, name='token_embedding')()
        positions = Embedding(size.positions, size.width, name='position_embedding')()
        x = nn.Dropout(self.dropout, deterministic=not train)(
            table[token_ids_bt] + positions[positions_bt]
        )
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
        if logits_at_bn is not None:
            x = jnp.take_along_axis(x, logits_at_bn[..., None], axis=1)
        outputs['logits'] = jnp.einsum(
            'btd,vd->btv', x, table.astype(self.dtype), preferred_element_type=jnp.float32
        )
        return outputs

    def empty_cache(self, batch: int, length: int) -> kv_cache.Cache:
        """A cache for ``length`` positions of ``batch`` rows: prompt and continuation."""
        size = self.size
        head_dim = size.width // size.heads
        shape = (size.depth, batch, length, size.heads, head_dim)
        return kv_cache.empty(*shape, self.dtype, stacked=not self.unrolled)

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
            mlp_width=size.mlp_width or 4 * size.width,
            norm_epsilon=NORM_EPSILON,
            activation=size.activation,
            attention=FrozenDict(biases=BIASES),
            cross=True,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
            **options,
        )
