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
