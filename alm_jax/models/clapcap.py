"""ClapCap: a language model that continues a prefix made of a clip's embedding.

MS-CLAP's captioner (Deshmukh et al. 2023, arXiv:2309.07372) on the prefix of ClipCap (Mokady et al.
2021, arXiv:2111.09734).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.transformer import transformer_stack
from alm_jax.models.projection import Projection
from alm_jax.models.text.decoder import Decoder
from alm_jax.models.two_tower import unit_norm

HEADS = 8


class PrefixMapper(nn.Module):
    """One embedding to a sequence of token embeddings, by a transformer over learned queries.

    Parameters: ``linear``, ``queries`` [length, width], ``layers`` (see transformer_stack; no bias
    at queries, keys and values).

    Attributes:
      length: of the result.
      clip_length: positions that the embedding is spread over, in front of the queries.
      width: of the result.
      depth: of the transformer.
      dtype: compute and result dtype.
    """

    length: int = 40
    clip_length: int = 40
    width: int = 768
    depth: int = 8
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bd) -> jax.Array:
        """[b, d] -> [b, length, width]."""
        clip = Dense(self.clip_length * self.width, dtype=self.dtype, name='linear')(x_bd)
        clip = clip.reshape(-1, self.clip_length, self.width)
        shape = (self.length, self.width)
        queries = self.param('queries', nn.initializers.normal(1.0), shape).astype(self.dtype)
        queries = jnp.broadcast_to(queries, (len(clip), *shape))
        stack = transformer_stack(
            self.depth,
            heads=HEADS,
            mlp_width=2 * self.width,
            norm_epsilon=1e-5,
            activation='relu',
            attention=FrozenDict({'biases': ('out',)}),
            dtype=self.dtype,
        )
        tokens, _ = stack(jnp.concatenate([clip, queries], axis=1))
        return tokens[:, self.clip_length :]


class ClapCap(nn.Module):
    """An audio tower of MS-CLAP, the mapper, and a decoder with learned positions.

    Parameters: ``audio``, ``audio_projection``, ``mapper``, ``decoder``.

    Attributes:
      audio: encoder (mel_btf) -> {'pooled': [b, d], ...}.
      audio_projection: of its embedding.
      mapper: of the projected embedding.
      decoder: of texts.
      normalise: whether the embedding has unit norm before it is mapped.
    """

    audio: nn.Module
    audio_projection: Projection
    mapper: PrefixMapper
    decoder: Decoder
    normalise: bool = True

    def prefix(self, mel_btf) -> dict[str, Any]:
        """'projected' float32 [b, e], the clip's embedding; 'prefix' [b, p, d]; and the encoder's.

        ``mel_btf`` is [b, t, f], as the encoder takes it.
        """
        outputs = self.audio(mel_btf)
        projected = self.audio_projection(outputs['pooled'])
        embedding = unit_norm(projected) if self.normalise else projected
        return {**outputs, 'projected': projected, 'prefix': self.mapper(embedding)}

    def __call__(self, mel_btf, token_ids_bt, token_mask_bt=None) -> dict[str, Any]:
        """The logits of texts after the prefix of their clips.

        Args:
          mel_btf: [b, t, f], as the encoder takes it.
          token_ids_bt: int32 [b, n].
          token_mask_bt: bool [b, n]; None is all.

        Returns:
          What ``prefix`` returns, and of the prefix with the text after it: 'embeddings'
          [b, p + n, d], 'hidden' [l, b, p + n, d], 'text_tokens' [b, p + n, d] after the final norm
          and 'logits' float32 [b, p + n, vocabulary], the first p positions being the prefix.
        """
        outputs = self.prefix(mel_btf)
        text = after_prefix(self.decoder, outputs['prefix'], token_ids_bt, token_mask_bt)
        return {**outputs, **text}


def after_prefix(decoder: Decoder, prefix_bpd, token_ids_bt, token_mask_bt) -> dict[str, Any]:
    """The decoder's outputs for a prefix and a text after it, 'tokens' being 'text_tokens'."""
    length = prefix_bpd.shape[1]
    before = ((0, 0), (length, 0))
    ids = jnp.pad(token_ids_bt, before, constant_values=-1)
    mask = None
    if token_mask_bt is not None:
        mask = jnp.pad(token_mask_bt, before, constant_values=True)
    after = ((0, 0), (0, token_ids_bt.shape[1]), (0, 0))
    text = decoder(ids, mask, embeddings_btd=jnp.pad(prefix_bpd, after))
    text['text_tokens'] = text.pop('tokens')
    return text
