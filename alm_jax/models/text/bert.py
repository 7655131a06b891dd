"""BERT-style text encoder (Devlin et al. 2019, https://arxiv.org/abs/1810.04805)."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers import windows
from alm_jax.models.layers.dense import Dense, Embedding
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import transformer_stack


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the encoder, its vocabulary, and what its kin differ in.

    Attributes:
      mlp_width: None is four times the width.
      positions: learned positions there are.
      first_position: of the first token; RoBERTa counts from its pad id + 1.
      types: rows of the type embedding; all tokens have type 0.
      pooler: 'pooled' is BERT's tanh(dense(first token)) instead of the tokens' masked mean.
    """

    width: int
    depth: int
    heads: int
    vocabulary: int = 30522
    mlp_width: int | None = None
    positions: int = 512
    first_position: int = 0
    types: int = 2
    norm_epsilon: float = 1e-12
    activation: str = 'gelu'
    pooler: bool = False


ROBERTA = Size(  # FacebookAI/roberta-base, the text tower of LAION-CLAP
    768,
    12,
    12,
    vocabulary=50265,
    positions=514,
    first_position=2,
    types=1,
    norm_epsilon=1e-5,
    pooler=True,
)
VARIANTS = {
    'mu': Size(64, 2, 2),
    'minilm': Size(384, 6, 12),  # sentence-transformers/all-MiniLM-L6-v2
    'mu_roberta': Size(64, 2, 2, positions=514, first_position=2, types=1, pooler=True),
    'roberta': ROBERTA,
    'roberta_large': dataclasses.replace(ROBERTA, width=1024, depth=24, heads=16),
}


class Bert(nn.Module):
    """Token ids in, token embeddings and one embedding of the text out.

    Parameters: ``word_embedding``, ``position_embedding``, ``type_embedding`` (leaf ``embedding``),
    ``embedding_norm``, ``layers`` (see transformer_stack) and, with it, ``pooler``.

    Attributes:
      variant: a key of VARIANTS, or a Size.
      dropout: rate after the embeddings and inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; layer norms, softmax and pooling are float32.
    """

    variant: str | Size = 'minilm'
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, token_ids_bt, token_mask_bt, train: bool = False):
        """Embeds texts; what stands behind a False of the mask never changes the result.

        Args:
          token_ids_bt: int32 [b, t], t at most the positions there are (512).
          token_mask_bt: bool [b, t].
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'pooled' float32 [b, d], masked mean of the tokens or, with a pooler, its output; 'tokens'
          [b, t, d]; 'embeddings' [b, t, d], input of the first block; 'hidden' [l, b, t, d],
          every block's output.

        Raises:
          ConfigError: for an unknown variant.
          ValueError: when t exceeds the positions.
        """
        size = self.variant
        if not isinstance(size, Size):
            size = config_lib.choose(VARIANTS, size, where='model.text.variant')
        length = token_ids_bt.shape[1]
        if length > size.positions - size.first_position:
            raise ValueError(f'{length} tokens; the encoder has {size.positions} positions.')

        def table(name, rows):
            return Embedding(rows, size.width, name=name)()

        x = table('word_embedding', size.vocabulary)[token_ids_bt]
        positions = table('position_embedding', size.positions)
        x = x + positions[size.first_position : size.first_position + length]
        x = x + table('type_embedding', size.types)[0]
        x = LayerNorm(size.norm_epsilon, name='embedding_norm')(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        embeddings = x.astype(self.dtype)
        stack = transformer_stack(
            size.depth,
            remat=self.remat,
            heads=size.heads,
            mlp_width=size.mlp_width or 4 * size.width,
            post_norm=True,
            norm_epsilon=size.norm_epsilon,
            activation=size.activation,
            dropout=self.dropout,
            train=train,
            dtype=self.dtype,
        )
        tokens, hidden = stack(embeddings, token_mask_bt)
        if size.pooler:
            first = Dense(size.width, dtype=self.dtype, name='pooler')(tokens[:, 0])
            pooled = jnp.tanh(first.astype(jnp.float32))
        else:
            pooled = windows.masked_mean(tokens, token_mask_bt)
        return {'embeddings': embeddings, 'hidden': hidden, 'tokens': tokens, 'pooled': pooled}
