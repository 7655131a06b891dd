"""ModernBERT (Warner et al. 2024, https://arxiv.org/abs/2412.13663): a text encoder."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.layers import windows
from alm_jax.models.layers.dense import Embedding
from alm_jax.models.layers.rotary import Rope
from alm_jax.models.layers.transformer import NORMS, transformer_stack
from alm_jax.models.text.decoder import DecoderBlock


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and heads of the encoder, its vocabulary, and which layers see how far.

    Attributes:
      windowed: of each layer, whether a token attends only to those at most ``reach`` away.
      rope: rotary positions of the other layers.
      window_rope: those of windowed layers.
      norm: 'layer' or 'layer_no_bias'.
      attention_bias, mlp_bias: whether the linear layers have biases.
    """

    width: int = 768
    depth: int = 22
    heads: int = 12
    mlp_width: int = 1152
    vocabulary: int = 50368
    windowed: tuple[bool, ...] = (False, *(True, True, False) * 7)
    reach: int = 64
    rope: Rope = dataclasses.field(default_factory=lambda: Rope(base=160_000.0))
    window_rope: Rope = dataclasses.field(default_factory=Rope)
    norm: str = 'layer_no_bias'
    norm_epsilon: float = 1e-5
    activation: str = 'gelu'
    attention_bias: bool = False
    mlp_bias: bool = False


class ModernBert(nn.Module):
    """Token ids in, token embeddings and one embedding of the text out.

    Parameters: ``token_embedding``, ``embedding_norm``, ``first`` (a block without ``attn_norm``),
    ``layers`` (the other blocks, see transformer_stack), ``final_norm``.

    Attributes:
      size: see Size.
      dropout: rate after the embeddings and inside the blocks.
      remat: 'none' or 'block'.
      dtype: compute dtype; norms, softmax and pooling are float32.
    """

    size: Size = Size()
    dropout: float = 0.0
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, token_ids_bt, token_mask_bt, train: bool = False):
        """Embeds texts; what stands behind a False of the mask never changes the result.

        Args:
          token_ids_bt: int32 [b, t].
          token_mask_bt: bool [b, t].
          train: turns dropout on (rng stream 'dropout').

        Returns:
          'pooled' float32 [b, d], masked mean of the tokens; 'tokens' [b, t, d], the last block's
          output after the final norm, of which the first is the text's [CLS]; 'embeddings'
          [b, t, d], input of the first block; 'hidden' [l, b, t, d], every block's output.
        """
        size = self.size

        def norm(name):
            return NORMS[size.norm](size.norm_epsilon, name=name)

        x = Embedding(size.vocabulary, size.width, name='token_embedding')()[token_ids_bt]
        x = nn.Dropout(self.dropout, deterministic=not train)(norm('embedding_norm')(x))
        x = embeddings = x.astype(self.dtype)
        kinds = self._kinds(token_mask_bt)
        block = self._block(train)
        which = jnp.asarray(size.windowed, jnp.int32)
        x, first = DecoderBlock(unnormed=('attn',), name='first', **block)(
            x, (kinds[int(size.windowed[0])],), None, (None, None)
        )
        stack = transformer_stack(
            size.depth - 1,
            remat=self.remat,
            kind=DecoderBlock,
            in_axes=(nn.broadcast, nn.broadcast, 0),
            **block,
        )
        x, others = stack(x, kinds, None, (which[1:], None))
        tokens = norm('final_norm')(x)
        return {
            'embeddings': embeddings,
            'hidden': jnp.concatenate([first[None], others]),
            'tokens': tokens,
            'pooled': windows.masked_mean(tokens, token_mask_bt),
        }

    def _kinds(self, mask_bt):
        """(mask [b, t, t], rotation) of whole and of windowed attention."""
        size = self.size
        positions = jnp.arange(mask_bt.shape[1])
        near = jnp.abs(positions[:, None] - positions) <= size.reach
        seen = jnp.broadcast_to(mask_bt[:, None], (*mask_bt.shape, mask_bt.shape[1]))
        head_dim = size.width // size.heads
        whole = seen, size.rope.cos_sin(positions[None], head_dim)
        return whole, (seen & near, size.window_rope.cos_sin(positions[None], head_dim))

    def _block(self, train):
        size = self.size
        biases = ('query', 'key', 'value', 'out') if size.attention_bias else ()
        return {
            'heads': size.heads,
            'mlp_width': size.mlp_width,
            'norm': size.norm,
            'norm_epsilon': size.norm_epsilon,
            'activation': size.activation,
            'gated': True,
            'mlp_bias': size.mlp_bias,
            'attention': FrozenDict(biases=biases),
            'dropout': self.dropout,
            'train': train,
            'dtype': self.dtype,
        }
