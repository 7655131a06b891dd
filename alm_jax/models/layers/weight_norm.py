"""Weight normalisation (Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868)."""

import jax.numpy as jnp
from flax import linen as nn


def normed_kernel(module: nn.Module, init, shape: tuple[int, ...], axis: int = -1):
    """g v / |v|, made of the parameters ``kernel_v`` and ``kernel_g`` of ``module``.

    Both are kept as they are stored, so a checkpoint is written again bit by bit. torch's
    weight_norm with its ``dim`` as ``axis``.

    Args:
      module: the calling module, in a compact method.
      init: of ``kernel_v``; ``kernel_g`` starts as its norm, so the kernel starts as ``init`` says.
      shape: of the kernel.
      axis: each index of which has one g; norms are over all the others.

    Returns:
      float32 ``shape``.
    """
    others = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    kernel = module.param('kernel_v', init, shape)
    norm = jnp.sqrt(jnp.sum(jnp.square(kernel), axis=others, keepdims=True))
    g = module.param('kernel_g', lambda rng: norm.reshape(-1))
    return kernel * (jnp.expand_dims(g, others) / norm)
