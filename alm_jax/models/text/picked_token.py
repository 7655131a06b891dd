"""Text encoders one of whose tokens stands for the text (MS-CLAP)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from alm_jax import config as config_lib

PLACES = {'first': 'first', 'last': 'last'}


class PickedToken(nn.Module):
    """An encoder of tokens; 'pooled' is its output at one of them.

    Parameters: ``encoder``.

    Attributes:
      encoder: (token_ids_bt, token_mask_bt, train=) -> {'tokens': [b, t, d], ...}.
      place: 'first' (BERT's [CLS]) or 'last'. The last one is at the number of ids that are not 0,
        less one, as MS-CLAP counts: its padding is id 0, which is also GPT-2's '!', so a text with
        a '!' that is a token by itself is cut short by it.
    """

    encoder: nn.Module
    place: str

    @nn.compact
    def __call__(self, token_ids_bt, token_mask_bt, train: bool = False) -> dict[str, Any]:
        """Embeds texts; what stands behind a False of the mask never changes the result.

        Args:
          token_ids_bt: int32 [b, t]; tokens come first, padding after them.
          token_mask_bt: bool [b, t].
          train: turns dropout on (rng stream 'dropout').

        Returns:
          The encoder's, with 'pooled' float32 [b, d].

        Raises:
          ConfigError: another place.
        """
        place = config_lib.choose(PLACES, self.place, where='model.text.place')
        outputs = self.encoder(token_ids_bt, token_mask_bt, train=train)
        at_b = jnp.zeros(token_ids_bt.shape[:1], jnp.int32)
        if place == 'last':
            counted = (token_ids_bt != 0) & token_mask_bt
            at_b = jnp.maximum(jnp.sum(counted, axis=1) - 1, 0)
        pooled = jnp.take_along_axis(outputs['tokens'], at_b[:, None, None], axis=1)[:, 0]
        return {**outputs, 'pooled': pooled.astype(jnp.float32)}
