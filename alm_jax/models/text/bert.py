"""BERT-style text encoder (Devlin et al. 2019, https://arxiv.org/abs/1810.04805)."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers import windows
from alm_jax.models.layers.dense import Embedding
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import transformer_stack

MAX_LENGTH = 512  # learned positions
NORM_EPSILON = 1e-12


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the encoder and its vocabulary; the MLP is four times as wide."""

    width: int
    depth: int
    heads: int
    vocabulary: int = 30522


VARIANTS = {
    'mu': Size(64, 2, 2),
    'minilm': Size(384, 6, 12),  # sentence-transformers/all-MiniLM-L6-v2
}


class Bert(nn.Module):
    """Token ids in, token embeddings and their masked mean out (sentence-transformers' pooling).

    Parameters: ``word_embedding``, ``position_embedding``, ``type_embedding`` (leaf ``embedding``),
    ``embedding_norm`` and ``layers`` (see transformer_stack). All tokens have type 0. BERT's own
    pooler is left out: sentence-transformers does not use it.

    Attributes:
      variant: 'mu' or 'minilm'.
      dropout: rate after the embeddings and inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; layer norms, softmax and pooling are float32.
    """

    variant: str = 'minilm'
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, token_ids_bt, token_mask_bt, train: bool = False):
        """Embeds texts; what stands behind a False of the mask never changes the result.

        Args:
          token_ids_bt: int32 [b, t], t <= 512.
          token_mask_bt: bool [b, t].
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'pooled' float32 [b, d], masked mean of the tokens; 'tokens' [b, t, d]; 'embeddings'
          [b, t, d], input of the first block; 'hidden' [l, b, t, d], every block's output.

        Raises:
          ConfigError: for an unknown variant.
          ValueError: when t exceeds 512.
        """
        size = config_lib.choose(VARIANTS, self.variant, where='model.text.variant')
        length = token_ids_bt.shape[1]
        if length > MAX_LENGTH:
            raise ValueError(f'{length} tokens; the encoder has {MAX_LENGTH} positions.')

        def table(name, rows):
            return Embedding(rows, size.width, name=name)()

        x = table('word_embedding', size.vocabulary)[token_ids_bt]
        x = x + table('position_embedding', MAX_LENGTH)[:length]
        x = LayerNorm(NORM_EPSILON, name='embedding_norm')(x + table('type_embedding', 2)[0])
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        embeddings = x.astype(self.dtype)
        stack = transformer_stack(
            size.depth,
            remat=self.remat,
            heads=size.heads,
            mlp_width=4 * size.width,
            post_norm=True,
            norm_epsilon=NORM_EPSILON,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )
        tokens, hidden = stack(embeddings, token_mask_bt)
        return {
            'embeddings': embeddings,
            'hidden': hidden,
            'tokens': tokens,
            'pooled': windows.masked_mean(tokens, token_mask_bt),
        }
