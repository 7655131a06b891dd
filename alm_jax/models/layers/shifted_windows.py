"""Swin blocks: attention within square windows, which every other block shifts.

Liu et al. 2021, https://arxiv.org/abs/2103.14030, sections 3.1 and 3.2.
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from alm_jax import config as config_lib
from alm_jax.models.layers.attention import PROJECTIONS, MultiHeadAttention
from alm_jax.models.layers.norm import LayerNorm
from alm_jax.models.layers.transformer import REMAT, Mlp


class SwinPair(nn.Module):
    """The smallest group that repeats: a block with plain windows and one with shifted windows.

    Parameters: ``plain`` and ``shifted``, each ``attn`` (with ``relative_position_bias``
    [(2 * window - 1) ** 2, heads] beside it), ``attn_norm``, ``mlp``, ``mlp_norm``.

    Attributes:
      window: positions along a side of a window. A picture no larger than a window is one window,
        and is not shifted.
      remat: what each block recomputes in the backward pass, see ``transformer_stack``.
    """

    heads: int
    mlp_width: int
    window: int
    norm_epsilon: float = 1e-5
    biases: tuple[str, ...] = PROJECTIONS
    remat: str = 'none'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_bhwd, _=None):
        """[b, h, w, d] -> ([b, h, w, d], None), for nn.scan."""
        wrap = config_lib.choose(REMAT, self.remat, where='model.audio.remat')
        # A scan over a single pair is no loop when it is compiled, so that what is computed again
        # would be found to be the same as before and kept after all.
        block = _Block if self.remat == 'none' else wrap(_Block, prevent_cse=True)
        fields = (self.heads, self.mlp_width, self.window, self.norm_epsilon, self.biases)
        x = block(*fields, 0, self.dtype, name='plain')(x_bhwd)
        return block(*fields, self.window // 2, self.dtype, name='shifted')(x), None


class _Block(nn.Module):
    heads: int
    mlp_width: int
    window: int
    norm_epsilon: float
    biases: tuple[str, ...]
    shift: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_bhwd):
        b, height, width, _ = x_bhwd.shape
        small = min(height, width) <= self.window
        side, shift = (min(height, width), 0) if small else (self.window, self.shift)
        x = LayerNorm(self.norm_epsilon, name='attn_norm')(x_bhwd)
        x = jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))
        x = jnp.roll(x, (-shift, -shift), axis=(1, 2))
        mask = regions_mask(*x.shape[1:3], side, shift) if shift else None
        y = _join(self._attend(_cut(x, side), side, mask), b, *x.shape[1:3])
        y = jnp.roll(y, (shift, shift), axis=(1, 2))[:, :height, :width]
        x = x_bhwd + y
        mlp = Mlp(self.mlp_width, dtype=self.dtype, name='mlp')
        return x + mlp(LayerNorm(self.norm_epsilon, name='mlp_norm')(x))

    def _attend(self, x_ntd, side, mask_wtt):
        table = self.param(
            'relative_position_bias',
            nn.initializers.truncated_normal(0.02),
            ((2 * side - 1) ** 2, self.heads),
        )
        bias = table[relative_positions(side)].transpose(2, 0, 1)[None]
        mask = None
        if mask_wtt is not None:  # the same windows in every picture of the batch
            mask = jnp.tile(mask_wtt, (x_ntd.shape[0] // len(mask_wtt), 1, 1))
        attn = MultiHeadAttention(self.heads, biases=self.biases, dtype=self.dtype, name='attn')
        return attn(x_ntd, mask, bias_bhts=bias.astype(self.dtype))


def relative_positions(side: int) -> np.ndarray:
    """int [side ** 2, side ** 2]: row of the bias table for each pair of positions in a window."""
    y, x = np.divmod(np.arange(side * side), side)
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    return (dy + side - 1) * (2 * side - 1) + dx + side - 1


def regions_mask(height: int, width: int, side: int, shift: int) -> np.ndarray:
    """bool [windows, side ** 2, side ** 2]: pairs that were neighbours before the shift."""

    def region(length):
        i = np.arange(length)
        return (i >= length - side).astype(int) + (i >= length - shift)

    regions = region(height)[:, None] * 3 + region(width)[None]
    cut = np.asarray(_cut(regions[None, ..., None], side))[..., 0]
    return cut[:, :, None] == cut[:, None, :]


def _cut(x_bhwd, side):
    """[b, h, w, d] -> [b * windows, side ** 2, d]."""
    b, height, width, d = x_bhwd.shape
    x = x_bhwd.reshape(b, height // side, side, width // side, side, d)
    return x.swapaxes(2, 3).reshape(-1, side * side, d)


def _join(windows_ntd, b, height, width):
    """The inverse of ``_cut``."""
    side = int(np.sqrt(windows_ntd.shape[1]))
    x = windows_ntd.reshape(b, height // side, width // side, side, side, -1)
    return x.swapaxes(2, 3).reshape(b, height, width, -1)
