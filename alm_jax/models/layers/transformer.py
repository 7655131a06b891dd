"""Transformer blocks and their stack, scanned over the layers."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers.attention import MultiHeadAttention
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm

REMAT = {'none': lambda block: block, 'block': lambda block: nn.remat(block, prevent_cse=False)}


class Mlp(nn.Module):
    """Dense ``up`` to ``width``, exact (erf) GELU, Dense ``down`` back to the input size."""

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x):
        """[..., d] -> [..., d] in ``dtype``."""
        y = jax.nn.gelu(Dense(self.width, dtype=self.dtype, name='up')(x), approximate=False)
        return Dense(x.shape[-1], dtype=self.dtype, name='down')(y)


class TransformerBlock(nn.Module):
    """Attention and MLP with residuals; layer norms before them (ViT) or after the sums (BERT).

    Parameters: ``attn``, ``attn_norm``, ``mlp``, ``mlp_norm``.

    Attributes:
      heads: attention heads.
      mlp_width: hidden size of the MLP.
      post_norm: False is ViT's order x + f(norm(x)); True is BERT's norm(x + f(x)).
      norm_epsilon: of the layer norms.
      dropout: rate on the output of attention and of the MLP.
      train: whether dropout is on (it then needs the rng stream 'dropout').
      dtype: compute and result dtype.
    """

    heads: int
    mlp_width: int
    post_norm: bool = False
    norm_epsilon: float = 1e-6
    dropout: float = 0.0
    train: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd, mask_bt=None):
        """[b, t, d], bool [b, t] -> ([b, t, d], the same), the carry and output of nn.scan."""
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        attn = MultiHeadAttention(self.heads, dtype=self.dtype, name='attn')
        mlp = Mlp(self.mlp_width, dtype=self.dtype, name='mlp')
        attn_norm = LayerNorm(self.norm_epsilon, name='attn_norm')
        mlp_norm = LayerNorm(self.norm_epsilon, name='mlp_norm')
        if self.post_norm:
            x_btd = attn_norm(x_btd + drop(attn(x_btd, mask_bt)))
            x_btd = mlp_norm(x_btd + drop(mlp(x_btd)))
        else:
            x_btd = x_btd + drop(attn(attn_norm(x_btd), mask_bt))
            x_btd = x_btd + drop(mlp(mlp_norm(x_btd)))
        return x_btd, x_btd


def transformer_stack(depth: int, *, remat: str = 'none', **block) -> nn.Module:
    """``depth`` TransformerBlocks as one scanned module named 'layers'.

    Inside a compact method: ``x_btd, hidden_lbtd = transformer_stack(...)(x_btd, mask_bt)``.
    Every parameter has a leading axis of size ``depth`` and lives directly under ``layers`` of the
    calling module, so its canonical name is ``layers/3/attn/query/kernel``.

    Args:
      depth: number of blocks.
      remat: 'none' keeps activations, 'block' keeps block inputs and recomputes the rest.
      **block: arguments of TransformerBlock.

    Raises:
      ConfigError: for another ``remat``.
    """
    wrap = config_lib.choose(REMAT, remat, where='model.*.remat')
    scanned = nn.scan(
        wrap(TransformerBlock),
        variable_axes={'params': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=nn.broadcast,
        length=depth,
    )
    return scanned(name='layers', **block)
