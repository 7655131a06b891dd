"""Rotary position embeddings (Su et al. 2021, https://arxiv.org/abs/2104.09864) and their scaling.

Scaling stretches a model's positions beyond the length it was trained on, by changing the
frequencies: all alike (linear), with the length of the text (dynamic), or low ones more than high
ones (llama3, yarn).
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from alm_jax import config as config_lib


def frequencies(size: int, base: float = 10_000.0) -> np.ndarray:
    """float64 [size / 2]: radians a position, of each pair of a rotated part of ``size``."""
    return base ** (-np.arange(0, size, 2) / size)


def cos_sin(positions_bt, frequencies_f, scale: float = 1.0):
    """What ``rotate`` takes: (cos, sin), float32 [b, t, 2 * f], in halves.

    Args:
      positions_bt: int [b, t].
      frequencies_f: radians a position, [f], or [b, 1, f]; scaled variants change these.
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


@dataclasses.dataclass(frozen=True)
class Rope:
    """Frequencies of a model, as Hugging Face's ``rope_parameters`` describe them.

    Attributes:
      base: theta.
      scaling: 'default', 'linear', 'dynamic', 'llama3' or 'yarn'.
      factor: by how much lengths are stretched.
      length: positions before stretching.
      share: of the head that is rotated.
      low, high: of llama3: wavelengths above length / low are stretched by the factor, below
        length / high not at all.
      fast, slow: of yarn: pairs that turn more than ``fast`` times in ``length`` positions are left
        alone, less than ``slow`` times stretched.
      truncate: yarn rounds the pairs where that happens to whole ones.
      attention_factor: yarn's, of cos and sin; None is 0.1 ln(factor) + 1 (YaRN, section 3.4).
    """

    base: float = 10_000.0
    scaling: str = 'default'
    factor: float = 1.0
    length: int = 2048
    share: float = 1.0
    low: float = 1.0
    high: float = 4.0
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None

    def cos_sin(self, positions_bt, head_dim: int):
        """(cos, sin), float32 [b, t, share * head_dim], for ``rotate``.

        'dynamic' depends on the largest position of the row in this call, so keys that are cached
        keep the frequencies they had, as in transformers; there the largest of the batch counts.

        Raises:
          ConfigError: for an unknown scaling.
        """
        scale = 1.0
        if self.scaling == 'yarn':
            natural = 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0
            scale = natural if self.attention_factor is None else self.attention_factor
        return cos_sin(positions_bt, self.frequencies(head_dim, positions_bt), scale)

    def frequencies(self, head_dim: int, positions_bt=None):
        """Radians a position, [f] or, for 'dynamic', which needs the positions, [b, 1, f]."""
        stretched = config_lib.choose(_SCALINGS, self.scaling, where='rope_parameters.rope_type')
        return stretched(self, int(head_dim * self.share), positions_bt)


def _default(rope: Rope, size: int, positions_bt):
    del positions_bt
    return frequencies(size, rope.base)


def _linear(rope: Rope, size: int, positions_bt):
    """Chen et al. 2023, https://arxiv.org/abs/2306.15595."""
    return _default(rope, size, positions_bt) / rope.factor


def _dynamic(rope: Rope, size: int, positions_bt):
    """A base that grows with the length (NTK-aware; YaRN, appendix B.1): [b, 1, f]."""
    length = jnp.maximum(jnp.max(positions_bt, axis=-1) + 1, rope.length)[:, None, None]
    growth = rope.factor * length.astype(jnp.float32) / rope.length - (rope.factor - 1)
    # In the exponent, log by log: float32 holds the base of long texts to few digits only.
    pairs = np.arange(0, size, 2) / size
    return jnp.exp(-pairs * (math.log(rope.base) + jnp.log(growth) * (size / (size - 2))))


def _llama3(rope: Rope, size: int, positions_bt):
    """Llama 3.1: smooth between two wavelengths (transformers' llama3)."""
    plain = _default(rope, size, positions_bt)
    turns = rope.length * plain / (2 * np.pi)  # in the original length
    keep = np.clip((turns - rope.low) / (rope.high - rope.low), 0.0, 1.0)
    return keep * plain + (1 - keep) * plain / rope.factor


def _yarn(rope: Rope, size: int, positions_bt):
    """Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.2."""
    plain = _default(rope, size, positions_bt)

    def pair(turns):  # where the frequency makes so many turns in the original length
        return size * math.log(rope.length / (turns * 2 * math.pi)) / (2 * math.log(rope.base))

    first, last = pair(rope.fast), pair(rope.slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    if first == last:
        last += 0.001
    keep = 1 - np.clip((np.arange(size // 2) - first) / (last - first), 0.0, 1.0)
    return keep * plain + (1 - keep) * plain / rope.factor


_SCALINGS = {
    'default': _default,
    'linear': _linear,
    'dynamic': _dynamic,
    'llama3': _llama3,
    'yarn': _yarn,
}
