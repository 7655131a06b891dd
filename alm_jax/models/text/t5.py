"""T5 and Flan-T5: an encoder of texts, alone or with a decoder that attends to it.

Raffel et al. 2019, https://arxiv.org/abs/1910.10683; the gated MLP of version 1.1 and Flan is
Shazeer 2020, https://arxiv.org/abs/2002.05202.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.layers import kv_cache
from alm_jax.models.layers.dense import Dense, Embedding
from alm_jax.models.layers.norm import RmsNorm
from alm_jax.models.layers.relative_bias import RelativeBias
from alm_jax.models.layers.transformer import CACHED, transformer_stack, unroll


@dataclasses.dataclass(frozen=True)
class Size:
    """What the members of the family differ in.

    Attributes:
      width, depth, heads, mlp_width, vocabulary: as everywhere; ``depth`` of the encoder.
      head_dim: of a head; heads * head_dim need not be the width.
      decoder_depth: blocks of the decoder.
      buckets, max_distance: of the relative positions, see RelativeBias.
      norm_epsilon: of all norms.
      activation: of the MLP.
      gated: whether the MLP has a gate (version 1.1, Flan).
      head: 'tied' (the token embedding, of outputs scaled by width ** -0.5), 'own' (Dense
        ``lm_head``; version 1.1, Flan), or 'none' for no logits.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    head_dim: int = 64
    vocabulary: int = 32128
    decoder_depth: int = 0
    buckets: int = 32
    max_distance: int = 128
    norm_epsilon: float = 1e-6
    activation: str = 'relu'
    gated: bool = False
    head: str = 'tied'


class T5Stack(nn.Module):
    """The blocks of the encoder, or of the decoder, between embeddings and logits.

    All layers share one bias of relative positions; scores are not scaled.

    Parameters: ``relative_bias``, ``layers`` (see transformer_stack; those of the decoder with
    ``cross_attn``), ``norm``.

    Attributes:
      size: see Size.
      causal: the decoder.
      dropout: rate on the embeddings, inside the blocks and on the result.
      remat: 'none' or 'block'.
      unrolled: see transformer_stack.
      dtype: compute dtype; norms and softmax are float32.
    """

    size: Size
    causal: bool = False
    dropout: float = 0.0
    remat: str = 'none'
    unrolled: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        embeddings_btd,
        mask_bt,
        memory_bsd=None,
        memory_mask_bs=None,
        *,
        cache: kv_cache.Cache | None = None,
        train: bool = False,
    ) -> dict[str, Any]:
        """The hidden states of every position; the decoder's see themselves and earlier ones.

        Args:
          embeddings_btd: [b, t, d].
          mask_bt: bool [b, t].
          memory_bsd, memory_mask_bs: of the decoder: the encoder's tokens and mask. The memory is
            not needed when the cache has its keys and values; its mask is.
          cache: of the decoder, see ``layers.kv_cache``.
          train: turns dropout on.

        Returns:
          'embeddings' [b, t, d], input of the first block; 'hidden' [l, b, t, d], every block's
          output; 'tokens' [b, t, d], the last one's after the final norm; 'cache' if there was one.
        """
        size = self.size
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = drop(embeddings_btd).astype(self.dtype)
        outputs = {'embeddings': x}
        extended = kv_cache.extend(cache, mask_bt)
        place = (extended['index'], x.shape[1])
        queries_bt = keys_bs = jnp.arange(x.shape[1])[None]
        if self.causal:
            mask_bt = kv_cache.causal_mask(extended['mask'], *place)
            keys_bs = kv_cache.ordinals(extended['mask'])
            queries_bt = kv_cache.current(keys_bs, *place)
        bias = RelativeBias(
            size.heads, size.buckets, size.max_distance, not self.causal, name='relative_bias'
        )(queries_bt, keys_bs)
        inputs = (x, mask_bt, bias.astype(self.dtype), None, memory_bsd, memory_mask_bs)
        if cache is None:
            x, outputs['hidden'] = self._layers(train)(*inputs)
        else:
            state = (extended['index'], cache['layers'])
            x, (outputs['hidden'], made) = self._layers(train, in_axes=CACHED)(*inputs, state)
            outputs['cache'] = kv_cache.advance(cache, extended, made)
        outputs['tokens'] = drop(RmsNorm(size.norm_epsilon, name='norm')(x))
        return outputs

    def _layers(self, train, **options):
        size = self.size
        return transformer_stack(
            size.decoder_depth if self.causal else size.depth,
            remat=self.remat,
            unrolled=self.unrolled,
            heads=size.heads,
            mlp_width=size.mlp_width,
            norm='rms',
            norm_epsilon=size.norm_epsilon,
            activation=size.activation,
            gated=size.gated,
            mlp_bias=False,
            attention=FrozenDict(head_dim=size.head_dim, biases=(), scale=1.0),
            cross=self.causal,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
            **options,
        )


class T5Encoder(nn.Module):
    """Token ids in, one vector a token out.

    Parameters: ``token_embedding``, ``encoder`` (see T5Stack).

    Attributes:
      size: see Size.
      dropout, remat, dtype: see T5Stack.
      unrolled: of the decoder, if there is one.
    """

    size: Size
    dropout: float = 0.0
    remat: str = 'none'
    unrolled: bool = False
    dtype: DTypeLike = jnp.float32

    def setup(self):
        size, options = self.size, (self.dropout, self.remat)
        self.token_embedding = Embedding(size.vocabulary, size.width)
        self.encoder = T5Stack(size, False, *options, dtype=self.dtype)

    def __call__(
        self, token_ids_bt=None, token_mask_bt=None, *, embeddings_btd=None, train: bool = False
    ) -> dict[str, Any]:
        """Encodes texts; what stands behind a False of the mask never changes the result.

        Args:
          token_ids_bt: int32 [b, t].
          token_mask_bt: bool [b, t]; None is all.
          embeddings_btd: [b, t, d] in place of token ids.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'embeddings', 'hidden' and 'tokens', see T5Stack.
        """
        return self.encode(token_ids_bt, token_mask_bt, embeddings_btd, train)

    def encode(self, token_ids_bt, token_mask_bt=None, embeddings_btd=None, train: bool = False):
        """``__call__`` of the encoder."""
        x = self.token_embedding()[token_ids_bt] if embeddings_btd is None else embeddings_btd
        mask = jnp.ones(x.shape[:2], bool) if token_mask_bt is None else token_mask_bt
        return self.encoder(x, mask, train=train)


class T5(T5Encoder):
    """The encoder and a decoder, with the same token embedding.

    Parameters: ``token_embedding``, ``encoder``, ``decoder`` and, with its own head, ``lm_head``.
    """

    def setup(self):
        super().setup()
        size, options = self.size, (self.dropout, self.remat, self.unrolled)
        self.decoder = T5Stack(size, True, *options, dtype=self.dtype)
        if size.head == 'own':
            self.lm_head = Dense(size.vocabulary, use_bias=False, dtype=self.dtype)

    def __call__(
        self,
        token_ids_bt=None,
        token_mask_bt=None,
        decoder_ids_bt=None,
        decoder_mask_bt=None,
        *,
        embeddings_btd=None,
        train: bool = False,
    ) -> dict[str, Any]:
        """Encodes texts and reads others beside them.

        Args:
          token_ids_bt, token_mask_bt, embeddings_btd: of the encoder.
          decoder_ids_bt: int32 [b, n], with the start token (the pad id) in front.
          decoder_mask_bt: bool [b, n]; None is all.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'encoder' and 'decoder': see T5Stack; 'logits' float32 [b, n, vocabulary] unless the head
          is 'none'.
        """
        encoder = self.encode(token_ids_bt, token_mask_bt, embeddings_btd, train)
        decoder = self.decode(
            decoder_ids_bt, decoder_mask_bt, encoder['tokens'], token_mask_bt, train=train
        )
        logits = {'logits': decoder.pop('logits')} if 'logits' in decoder else {}
        return {'encoder': encoder, 'decoder': decoder, **logits}

    def decode(
        self,
        decoder_ids_bt,
        decoder_mask_bt=None,
        memory_bsd=None,
        memory_mask_bs=None,
        *,
        cache: kv_cache.Cache | None = None,
        logits_at_bn=None,
        train: bool = False,
    ) -> dict[str, Any]:
        """The decoder alone: see T5Stack, and 'logits' at all positions or at int32 [b, n]."""
        table, size = self.token_embedding(), self.size
        if decoder_mask_bt is None:
            decoder_mask_bt = jnp.ones(decoder_ids_bt.shape, bool)
        outputs = self.decoder(
            table[decoder_ids_bt],
            decoder_mask_bt,
            memory_bsd,
            memory_mask_bs,
            cache=cache,
            train=train,
        )
        x = outputs['tokens']
        if logits_at_bn is not None:
            x = jnp.take_along_axis(x, logits_at_bn[..., None], axis=1)
        if size.head == 'own':
            outputs['logits'] = self.lm_head(x).astype(jnp.float32)
        elif size.head == 'tied':
            x = x * size.width**-0.5
            table = table.astype(self.dtype)
            outputs['logits'] = jnp.einsum(
                'btd,vd->btv', x, table, preferred_element_type=jnp.float32
            )
        return outputs

    def empty_cache(self, batch: int, length: int) -> kv_cache.Cache:
        """A cache of the decoder for ``length`` tokens."""
        size = self.size
        shape = (size.decoder_depth, batch, length, size.heads, size.head_dim)
        return kv_cache.empty(*shape, self.dtype, stacked=not self.unrolled)

    def one_by_one(self, params):
        """(module, parameters) whose decoder has no stack, which decodes faster on a CPU."""
        return self.clone(unrolled=True), {**params, 'decoder': unroll(params['decoder'])}
