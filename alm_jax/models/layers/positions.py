"""Position embeddings that need no parameters."""

import jax.numpy as jnp
import numpy as np


def sin_cos(length: int, width: int):
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5), sines first, then cosines.

    Returns:
      float32 [length, width]; ``width`` must be even.
    """
    rate = np.exp(np.arange(0, width, 2) * (-np.log(10_000.0) / width))
    angle = np.arange(length)[:, None] * rate
    return jnp.asarray(np.concatenate([np.sin(angle), np.cos(angle)], axis=1), jnp.float32)


def cos_sin(positions_bt, width: int):
    """Sinusoidal positions as tensor2tensor counts them, cosines first, then sines.

    Its rates end at 10000 ** -1, those of ``sin_cos`` one step before.

    Args:
      positions_bt: int [b, t].
      width: of the result, even.

    Returns:
      float32 [b, t, width].
    """
    half = width // 2
    step = np.float32(-np.log(10_000.0) / (half - 1))
    rate = np.exp(np.arange(half, dtype=np.float32) * step)
    angle = positions_bt[..., None].astype(jnp.float32) * rate
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
