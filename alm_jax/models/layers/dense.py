"""The linear layer and the lookup table of every model here; parameters are float32."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax.models.layers.placement import placed


@dataclasses.dataclass(frozen=True)
class LowRank:
    """A term of low rank that a checkpoint has beside a kernel (LoRA, Hu et al. 2021).

    https://arxiv.org/abs/2106.09685. For models that come with it, such as SALMONN; ``adapters``
    gives one to any model.

    Attributes:
      rank: of it.
      scale: it is multiplied by; alpha / rank in the paper.
      targets: names of the layers that have one, where several share this description.
    """

    rank: int
    scale: float
    targets: tuple[str, ...] = ()


class Dense(nn.Module):
    """``x @ kernel + bias`` over the last axis.

    Parameters are float32: ``kernel`` [in, features] and, with ``use_bias``, ``bias`` [features];
    with ``lora`` also ``lora_a`` [in, rank] and ``lora_b`` [rank, features], which starts at zero.

    Attributes:
      features: size of the last axis of the result.
      use_bias: whether a bias is added.
      dtype: compute and result dtype.
      lora: ``scale * (x @ lora_a) @ lora_b`` is added; None is nothing.
    """

    features: int
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
    lora: LowRank | None = None

    @nn.compact
    def __call__(self, x):
        """[..., in] of any float dtype -> [..., features] in ``dtype``."""
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        # Rows flattened: XLA's CPU backward pass of a product with several row axes is 2 to 3 times
        # slower.
        y = x.astype(self.dtype).reshape(-1, x.shape[-1]) @ kernel.astype(self.dtype)
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        if self.lora is not None:
            y = y + self._low_rank(x.astype(self.dtype).reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], self.features)

    def _low_rank(self, x_nd):
        rank = self.lora.rank
        a = self.param('lora_a', nn.initializers.he_uniform(), (x_nd.shape[-1], rank))
        b = self.param('lora_b', nn.initializers.zeros, (rank, self.features))
        return (x_nd @ a.astype(self.dtype)) @ b.astype(self.dtype) * self.lora.scale


class Embedding(nn.Module):
    """A float32 lookup table, parameter ``embedding`` [rows, features]."""

    rows: int
    features: int
    embedding_init: nn.initializers.Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self):
        """The whole table; index it."""
        table = self.param('embedding', self.embedding_init, (self.rows, self.features))
        # Looked up in pieces, it would give rows of which each device has a part of the features.
        return placed(table, None, None)
