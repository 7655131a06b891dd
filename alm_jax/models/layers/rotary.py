"""Rotary position embeddings (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

import jax.numpy as jnp
import numpy as np


def frequencies(size: int, base: float = 10_000.0) -> np.ndarray:
    """float64 [size / 2]: radians a position, of each pair of a rotated part of ``size``."""
    return base ** (-np.arange(0, size, 2) / size)


def cos_sin(positions_bt, frequencies_f: np.ndarray, scale: float = 1.0):
    """What ``rotate`` takes: (cos, sin), float32 [b, t, 2 * f], in halves.

    Args:
      positions_bt: int [b, t].
      frequencies_f: radians a position, [f]; scaled variants change these.
      scale: of both (YaRN's attention factor).
    """
    angle = positions_bt[..., None].astype(jnp.float32) * jnp.asarray(frequencies_f, jnp.float32)
    angle = jnp.concatenate([angle, angle], axis=-1)
    return jnp.cos(angle) * scale, jnp.sin(angle) * scale


def rotate(x_bthd, cos_btd, sin_btd):
    """Rotates pairs (i, i + r / 2) of the first r = cos.shape[-1] features of every head.

    The order of halves, as in GPT-NeoX and Hugging Face's Llama, not of neighbours. In float32.

    Args:
      x_bthd: [b, t, h, d].
      cos_btd, sin_btd: [b or 1, t, r], r at most d.

    Returns:
      [b, t, h, d] in the dtype of ``x_bthd``.
    """
    size = cos_btd.shape[-1]
    x = x_bthd[..., :size].astype(jnp.float32)
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    y = x * cos_btd[:, :, None] + turned * sin_btd[:, :, None]
    return jnp.concatenate([y.astype(x_bthd.dtype), x_bthd[..., size:]], axis=-1)
