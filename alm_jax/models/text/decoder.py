"""One decoder-only language model: by its Size it is Llama, Qwen, Mistral, Gemma or GPT-2."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.gated_cross_attention import Gated, gated_stack
from alm_jax.models.layers import kv_cache
from alm_jax.models.layers.dense import Dense, Embedding, LowRank
from alm_jax.models.layers.rotary import Rope
from alm_jax.models.layers.transformer import NORMS, TransformerBlock, transformer_stack, unroll


@dataclasses.dataclass(frozen=True)
class Size:
    """What the members of the family differ in.

    Attributes:
      width, depth, heads, mlp_width, vocabulary: as everywhere.
      kv_heads: None is ``heads``.
      head_dim: None is width / heads.
      norm: 'rms', 'rms_from_one' (Gemma) or 'layer' (GPT-2).
      norm_epsilon: of all norms.
      sandwich: norms before and after attention and MLP (Gemma 2 and 3).
      activation: of the MLP.
      gated: SwiGLU or GeGLU.
      mlp_bias: whether the MLP has biases.
      attention_biases: which projections have a bias.
      qk_norm: RMS norm of queries and keys.
      attention_scale: of the scores; None is head_dim ** -0.5.
      attention_softcap, logit_softcap: c tanh(x / c) of scores and logits (Gemma 2).
      rope: rotary positions, or None.
      positions: rows of a table of learned positions (GPT-2), or 0.
      window: tokens that windowed layers attend to, their own included; None is all.
      windowed: which layers are windowed; () is all when there is a window.
      window_rope: rotary positions of windowed layers (Gemma 3); None is ``rope``.
      embedding_scale: of looked-up embeddings (Gemma: sqrt(width)).
      lora: a low-rank term of the attention's projections that it names.
      head: 'tied' (the embedding table), 'own' (Dense ``lm_head``), or 'none' for no logits.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    vocabulary: int
    kv_heads: int | None = None
    head_dim: int | None = None
    norm: str = 'rms'
    norm_epsilon: float = 1e-6
    sandwich: bool = False
    activation: str = 'silu'
    gated: bool = True
    mlp_bias: bool = False
    attention_biases: tuple[str, ...] = ()
    qk_norm: bool = False
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    rope: Rope | None = dataclasses.field(default_factory=Rope)
    positions: int = 0
    window: int | None = None
    windowed: tuple[bool, ...] = ()
    window_rope: Rope | None = None
    embedding_scale: float = 1.0
    lora: LowRank | None = None
    head: str = 'tied'


class Decoder(nn.Module):
    """Token ids or ready embeddings in; hidden states and logits out, with a cache if given.

    Parameters: ``token_embedding``, ``position_embedding`` with learned positions, ``layers`` (see
    transformer_stack), ``norm`` and, with its own head, ``lm_head``.

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
        token_ids_bt=None,
        token_mask_bt=None,
        *,
        embeddings_btd=None,
        segments_bt=None,
        prefix_bt=None,
        positions_bt=None,
        cache: kv_cache.Cache | None = None,
        gated: Gated | None = None,
        logits_at_bn=None,
        train: bool = False,
    ) -> dict[str, Any]:
        """The hidden states of every position, each of which sees itself and earlier ones.

        What stands behind a False of the mask changes nothing, be it before, between or after the
        tokens: positions count tokens, not slots.

        Args:
          token_ids_bt: int32 [b, t]. A negative one stands for the embedding given for it.
          token_mask_bt: bool [b, t]; None is all.
          embeddings_btd: [b, t, d], taken as they are where ``token_ids_bt`` is negative, or
            everywhere when there are no token ids.
          segments_bt: int32 [b, t], instead of a mask: which of several sequences in a row a
            position belongs to, 0 being padding. Each is as it would be by itself; its positions
            are neighbours. With a cache a row is one sequence, and only what is 0 counts.
          prefix_bt: bool [b, t], positions that see each other both ways (prefix-LM, Raffel et al.
            2020, section 3.2.1), within their segment; None is none.
          positions_bt: int32 [b, t]; by default the number of tokens before, in the segment.
          cache: of ``empty_cache`` or of the call before; this call's positions come after it.
          gated: blocks that attend to a memory, between the layers.
          logits_at_bn: int32 [b, n], the positions of this call whose logits are wanted; None is
            all. n may be 0.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'embeddings' [b, t, d], input of the first block; 'hidden' [l, b, t, d], every block's
          output; 'tokens' [b, t, d], the last one's after the final norm; 'logits' float32
          [b, t or n, vocabulary], unless the head is 'none'; 'cache' if there was one.

        Raises:
          ValueError: neither token ids nor embeddings, a mask and segments, more positions than
            slots, or without a cache or segments more than there are learned ones.
        """
        size = self.size
        table = Embedding(size.vocabulary, size.width, name='token_embedding')()
        x = self._embed(table, token_ids_bt, embeddings_btd)
        if segments_bt is not None:
            if token_mask_bt is not None:
                raise ValueError('Give token_mask_bt or segments_bt, not both.')
            token_mask_bt = segments_bt > 0
        elif token_mask_bt is None:
            token_mask_bt = jnp.ones(x.shape[:2], bool)
        if cache is not None:
            segments_bt = None
        extended = kv_cache.extend(cache, token_mask_bt)
        place = (extended['index'], x.shape[1])
        if positions_bt is None:
            numbers = kv_cache.ordinals(extended['mask'], segments_bt)
            positions_bt = kv_cache.current(numbers, *place)
        if size.positions:
            if cache is None and segments_bt is None and x.shape[1] > size.positions:
                raise ValueError(f'{x.shape[1]} tokens; the model has {size.positions} positions.')
            x = x + Embedding(size.positions, size.width, name='position_embedding')()[positions_bt]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        embeddings = x.astype(self.dtype)

        # What the order of positions and one mask for all say, attention can do without pairs.
        causal = cache is None and prefix_bt is None
        causal &= size.window is None and size.attention_softcap is None

        def mask(window):
            if causal:
                return token_mask_bt if segments_bt is None else segments_bt
            return kv_cache.causal_mask(extended['mask'], *place, window, segments_bt, prefix_bt)

        kinds, kind_of_layer = self._kinds(mask, positions_bt)
        own = (kind_of_layer, None if cache is None else {'attn': cache['layers']['attn']})
        inputs = (embeddings, kinds, extended['index'], own)
        block = self._block(causal, train)
        if gated is None:
            stack = transformer_stack(size.depth, unrolled=self.unrolled, **block)
            tokens, hidden = stack(*inputs)
        else:
            known = None if cache is None else cache['layers'].get('gated', {})
            stack = gated_stack(gated, size.depth, **block)
            tokens, hidden, made_between = stack(*inputs, known)
        outputs = {'embeddings': embeddings, 'hidden': hidden}
        if cache is not None:
            outputs['hidden'], made = hidden
            if gated is not None:
                made = {**made, 'gated': made_between}
            outputs['cache'] = kv_cache.advance(cache, extended, made)
        outputs['tokens'] = NORMS[size.norm](size.norm_epsilon, name='norm')(tokens)
        if size.head != 'none':
            outputs['logits'] = self._logits(table, outputs['tokens'], logits_at_bn)
        return outputs

    def empty_cache(self, batch: int, length: int) -> kv_cache.Cache:
        """A cache for ``length`` positions of ``batch`` rows: prompt and continuation."""
        size = self.size
        kv_heads = size.kv_heads or size.heads
        head_dim = size.head_dim or size.width // size.heads
        shape = (size.depth, batch, length, kv_heads, head_dim)
        return kv_cache.empty(*shape, self.dtype, stacked=not self.unrolled)

    def one_by_one(self, params):
        """(module, parameters) of the same model without a stack, which decodes faster on a CPU."""
        return self.clone(unrolled=True), unroll(params)

    def _embed(self, table, token_ids_bt, embeddings_btd):
        if token_ids_bt is None and embeddings_btd is None:
            raise ValueError('Give token_ids_bt, embeddings_btd, or both.')
        if token_ids_bt is None:
            return embeddings_btd
        x = table[jnp.maximum(token_ids_bt, 0)] * self.size.embedding_scale
        if embeddings_btd is None:
            return x
        return jnp.where((token_ids_bt < 0)[..., None], embeddings_btd.astype(x.dtype), x)

    def head_weights(self, params) -> jax.Array:
        """[vocabulary, d] of this module's parameters: logits are 'tokens' times these.

        Then comes ``size.logit_softcap``. Raises ValueError without a head.
        """
        if self.size.head == 'none':
            raise ValueError('A decoder whose head is none has no logits.')
        if self.size.head == 'own':
            return params['lm_head']['kernel'].T
        return params['token_embedding']['embedding']

    def _kinds(self, mask, positions_bt):
        """((mask, rotation) of each kind of layer, int32 [l] kinds or None for one kind)."""
        size = self.size
        head_dim = size.head_dim or size.width // size.heads

        def kind(window, rope):
            return mask(window), None if rope is None else rope.cos_sin(positions_bt, head_dim)

        windowed = size.windowed or (size.window is not None,) * size.depth
        of_kind = {
            False: lambda: kind(None, size.rope),
            True: lambda: kind(size.window, size.window_rope or size.rope),
        }
        kinds = tuple(of_kind[name]() for name in sorted(set(windowed)))
        return kinds, jnp.asarray(windowed, jnp.int32) if len(kinds) == 2 else None

    def _block(self, causal, train):
        """What a stack is made of, but for the number of layers."""
        size = self.size
        attention = {
            'causal': causal,
            'kv_heads': size.kv_heads,
            'head_dim': size.head_dim,
            'biases': size.attention_biases,
            'scale': size.attention_scale,
            'qk_norm': size.qk_norm,
            'norm_epsilon': size.norm_epsilon,
            'norm_offset': 1.0 if size.norm == 'rms_from_one' else 0.0,
            'softcap': size.attention_softcap,
            'lora': size.lora,
        }
        return {
            'remat': self.remat,
            'kind': DecoderBlock,
            'in_axes': (nn.broadcast, nn.broadcast, 0),
            'heads': size.heads,
            'mlp_width': size.mlp_width,
            'sandwich': size.sandwich,
            'norm': size.norm,
            'norm_epsilon': size.norm_epsilon,
            'activation': size.activation,
            'gated': size.gated,
            'mlp_bias': size.mlp_bias,
            'attention': FrozenDict(attention),
            'dropout': self.dropout,
            'train': train,
            'dtype': self.dtype,
        }

    def _logits(self, table, tokens_btd, logits_at_bn):
        size = self.size
        if logits_at_bn is not None:
            tokens_btd = jnp.take_along_axis(tokens_btd, logits_at_bn[..., None], axis=1)
        if size.head == 'own':
            head = Dense(size.vocabulary, use_bias=False, dtype=self.dtype, name='lm_head')
            logits = head(tokens_btd).astype(jnp.float32)
        else:
            logits = jnp.einsum(
                'btd,vd->btv',
                tokens_btd,
                table.astype(self.dtype),
                preferred_element_type=jnp.float32,
            )
        if size.logit_softcap is None:
            return logits
        return size.logit_softcap * jnp.tanh(logits / size.logit_softcap)


class DecoderBlock(TransformerBlock):
    """A block whose mask and rotation are those of its kind of layer, windowed or not."""

    def __call__(self, x_btd, kinds, index, own):
        """One block in the form that nn.scan carries.

        Args:
          x_btd: [b, t, d].
          kinds: (mask as MultiHeadAttention has it, rotation or None) of one or two kinds.
          index: of the cache.
          own: (which kind this layer is, or None when there is one; its part of the cache or None).

        Returns:
          As TransformerBlock.
        """
        which, cache = own
        mask, rope = (
            kinds[0]
            if which is None
            else jax.tree.map(lambda first, second: jnp.where(which == 0, first, second), *kinds)
        )
        cache = None if cache is None else (index, cache)
        return super().__call__(x_btd, mask, rope_btd=rope, cache=cache)
