"""The Conformer's block (Gulati et al. 2020, https://arxiv.org/abs/2005.08100)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike

from alm_jax.models.layers.attention import MultiHeadAttention
from alm_jax.models.layers.dense import Dense
from alm_jax.models.layers.norm import FrozenBatchNorm, LayerNorm
from alm_jax.models.layers.transformer import ACTIVATIONS, Mlp


class ConvModule(nn.Module):
    """Gated linear unit, depthwise convolution, norm, activation and projection (section 2.2).

    Parameters: ``norm``, Dense ``expand`` and ``project`` without biases, ``depthwise`` (leaf
    ``kernel`` [size, d]), ``inner_norm``.

    Attributes:
      size: of the convolution, in positions.
      causal: whether it sees only earlier positions and its own, instead of as many on both sides.
      norm: 'batch', whose stored statistics stay as they are, or 'layer'.
      norm_epsilon: of all norms.
      activation: a key of ACTIVATIONS.
      dtype: compute and result dtype.
    """

    size: int
    causal: bool = False
    norm: str = 'batch'
    norm_epsilon: float = 1e-5
    activation: str = 'silu'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd, mask_bt=None):
        """[b, t, d] -> [b, t, d]; the convolution sees zeros where the mask is False."""
        d = x_btd.shape[-1]

        def dense(features, name):
            return Dense(features, use_bias=False, dtype=self.dtype, name=name)

        x = LayerNorm(self.norm_epsilon, name='norm')(x_btd)
        if mask_bt is not None:
            x = jnp.where(mask_bt[..., None], x, 0)
        x, gate = jnp.split(dense(2 * d, 'expand')(x), 2, axis=-1)
        x = x * jax.nn.sigmoid(gate)
        x = _Depthwise(self.size, self.causal, self.dtype, name='depthwise')(x)
        if self.norm == 'batch':
            x = FrozenBatchNorm(self.norm_epsilon, use_scale=True, name='inner_norm')(x)
        else:
            x = LayerNorm(self.norm_epsilon, name='inner_norm')(x)
        return dense(d, 'project')(ACTIVATIONS[self.activation](x))


class _Depthwise(nn.Module):
    """A kernel for every channel, as shifted multiply-adds: XLA's convolution is 10 times slower
    on a CPU."""

    size: int
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_btd):
        start = nn.initializers.normal(self.size**-0.5)
        kernel = self.param('kernel', start, (self.size, x_btd.shape[-1])).astype(self.dtype)
        before = self.size - 1 if self.causal else self.size // 2
        x = jnp.pad(x_btd, ((0, 0), (before, self.size - 1 - before), (0, 0)))
        t = x_btd.shape[1]
        return sum(kernel[i] * x[:, i : i + t] for i in range(self.size))


class ConformerBlock(nn.Module):
    """Half an MLP, attention, convolution, half an MLP, each with a norm before, and a norm.

    Parameters: ``mlp_in``, ``attn``, ``conv``, ``mlp_out``, their norms (``mlp_in_norm``,
    ``attn_norm``, ``mlp_out_norm``; the convolution has its own) and ``final_norm``.

    Attributes:
      heads: attention heads.
      mlp_width: hidden size of both MLPs.
      conv: attributes of ConvModule, ``size`` at least.
      attention: further attributes of MultiHeadAttention.
      activation: of the MLPs and the convolution.
      norm_epsilon: of all norms.
      dropout: rate on the output of each part.
      train: whether dropout is on (it then needs the rng stream 'dropout').
      dtype: compute and result dtype.
    """

    heads: int
    mlp_width: int
    conv: Mapping[str, Any]
    attention: Mapping[str, Any] = FrozenDict()
    activation: str = 'silu'
    norm_epsilon: float = 1e-5
    dropout: float = 0.0
    train: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_btd, mask_bt=None, conv_mask_bt=None, rope_btd=None):
        """One block, in the form that nn.scan carries.

        Args:
          x_btd: [b, t, d].
          mask_bt: bool [b, t], positions that may be attended to; None is all.
          conv_mask_bt: those that the convolution sees.
          rope_btd: see MultiHeadAttention.

        Returns:
          ([b, t, d], the same).
        """
        drop = nn.Dropout(self.dropout, deterministic=not self.train)

        def normed(name, x):
            return LayerNorm(self.norm_epsilon, name=f'{name}_norm')(x)

        def half(name, x):
            mlp = Mlp(self.mlp_width, self.activation, dtype=self.dtype, name=name)
            return x + 0.5 * drop(mlp(normed(name, x)))

        x = half('mlp_in', x_btd)
        attn = MultiHeadAttention(self.heads, dtype=self.dtype, name='attn', **self.attention)
        x = x + drop(attn(normed('attn', x), mask_bt, rope_btd=rope_btd))
        conv = ConvModule(
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            dtype=self.dtype,
            name='conv',
            **self.conv,
        )
        x = x + drop(conv(x, conv_mask_bt))
        x = normed('final', half('mlp_out', x))
        return x, x
