"""The perceiver resampler of Flamingo (Alayrac et al. 2022, arXiv:2204.14198, section 3.1.1).

Whatever the length of a clip, it becomes so many vectors: learned latents that attend to the clip
and to each other, layer by layer.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.attention import MultiHeadAttention
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import Mlp, transformer_stack

NORM_EPSILON = 1e-5


class PerceiverBlock(nn.Module):
    """Latents attend to the memory and to themselves, then an MLP, each added to what comes in.

    Parameters: ``memory_norm``, ``attn_norm``, ``attn``, ``mlp_norm``, ``mlp``.
    """

    heads: int
    head_dim: int
    mlp_width: int
    activation: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_bld, memory_bnd, mask_bn):
        """([b, l, d], [b, n, d], bool [b, n]) -> ([b, l, d], the same), as nn.scan carries."""

        def norm(name, x):
            return LayerNorm(NORM_EPSILON, name=name)(x)

        latents = norm('attn_norm', x_bld)
        both = jnp.concatenate([norm('memory_norm', memory_bnd), latents], axis=1)
        mask = jnp.pad(mask_bn, ((0, 0), (0, latents.shape[1])), constant_values=True)
        attention = MultiHeadAttention(
            self.heads, head_dim=self.head_dim, biases=(), dtype=self.dtype, name='attn'
        )
        x = x_bld + attention(latents, mask, memory_bsd=both)
        mlp = Mlp(self.mlp_width, self.activation, False, False, self.dtype, name='mlp')
        x = x + mlp(norm('mlp_norm', x))
        return x, x


class Perceiver(nn.Module):
    """A connector: the latents after the last block, normalised, then a linear map.

    Parameters: ``latents`` [latents, d], ``layers`` (see transformer_stack), ``norm``, ``out``.
    They are as wide as the vectors that come in.

    Attributes:
      features: size of the result, the width of the language model; None leaves the map out.
      latents: vectors that come out.
      depth, heads, head_dim: of the blocks.
      mlp_width: None is four times the width.
      activation: of the MLP; Flamingo's is 'gelu', that of IDEFICS 'relu'.
      remat: see transformer_stack.
      dtype: compute and result dtype; norms and softmax are float32.
    """

    features: int | None
    latents: int = 64
    depth: int = 6
    heads: int = 8
    head_dim: int = 64
    mlp_width: int | None = None
    activation: str = 'gelu'
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bnd, mask_bn):
        """([b, n, d], bool [b, n]) -> ([b, latents, features], all True if any vector counts)."""
        b, _, d = x_bnd.shape
        start = nn.initializers.normal(1.0)
        latents = self.param('latents', start, (self.latents, d)).astype(self.dtype)
        stack = transformer_stack(
            self.depth,
            remat=self.remat,
            kind=PerceiverBlock,
            heads=self.heads,
            head_dim=self.head_dim,
            mlp_width=self.mlp_width or 4 * d,
            activation=self.activation,
            dtype=self.dtype,
        )
        x = jnp.broadcast_to(latents, (b, self.latents, d))
        x, _ = stack(x, x_bnd.astype(self.dtype), mask_bn)
        x = LayerNorm(NORM_EPSILON, name='norm')(x)
        if self.features is not None:
            x = Dense(self.features, dtype=self.dtype, name='out')(x)
        return x, jnp.broadcast_to(mask_bn[:, :1], x.shape[:2])

    def num_vectors(self, num_tokens):
        """How many of the result count: an int or an array."""
        return self.latents * (num_tokens > 0)
