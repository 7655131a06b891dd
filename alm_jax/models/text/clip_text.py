"""CLIP's text encoder (Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 2.4)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from alm_jax.models.layers.dense import Dense
from alm_jax.models.text.decoder import Decoder


class ClipText(nn.Module):
    """A causal decoder without head, whose token at the end of the text stands for the text.

    Parameters: ``decoder`` (see models.text.decoder) and, with ``embed_dim``, ``projection``.

    Attributes:
      decoder: its size has learned positions and no head.
      embed_dim: of the projection, which has no bias; None is none.
      end_id: of the token that ends a text. None takes the largest id of a text instead, as the
        original does: it is that of <|endoftext|> unless tokens were added to the vocabulary.
    """

    decoder: Decoder
    embed_dim: int | None = None
    end_id: int | None = None

    @nn.compact
    def __call__(self, token_ids_bt, token_mask_bt=None, train: bool = False) -> dict[str, Any]:
        """Embeds texts; what stands behind a False of the mask never changes the result.

        Args:
          token_ids_bt: int32 [b, t], t at most the positions there are (77).
          token_mask_bt: bool [b, t]; None is all.
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'pooled' float32 [b, d], the token at the first end (at the first position when there is
          no end); 'projected' float32 [b, embed_dim] if there is a projection; 'embeddings' [b, t,
          d], input of the first block; 'hidden' [l, b, t, d], every block's output; 'tokens'
          [b, t, d], the last one's after the final norm.

        Raises:
          ValueError: when t exceeds the positions.
        """
        outputs = self.decoder(token_ids_bt, token_mask_bt, train=train)
        ids = token_ids_bt if token_mask_bt is None else jnp.where(token_mask_bt, token_ids_bt, -1)
        end_b = jnp.argmax(ids if self.end_id is None else ids == self.end_id, axis=1)
        pooled = jnp.take_along_axis(outputs['tokens'], end_b[:, None, None], axis=1)[:, 0]
        outputs['pooled'] = pooled.astype(jnp.float32)
        if self.embed_dim is not None:
            project = Dense(
                self.embed_dim, use_bias=False, dtype=self.decoder.dtype, name='projection'
            )
            outputs['projected'] = project(pooled).astype(jnp.float32)
        return outputs
