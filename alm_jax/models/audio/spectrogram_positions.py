"""Positions of the patches of a spectrogram, and patches left out at random."""

import jax
import jax.numpy as jnp

from alm_jax import config as config_lib
from alm_jax.models.layers.dense import Embedding
from alm_jax.models.layers.positions import sin_cos
from alm_jax.models.layers.resize import linear_matrix

KINDS = ('sin_cos', 'separable', 'absolute')


def positions(kind: str, steps: int, bands: int, width: int, grid=None, stretch: bool = False):
    """Float32 [steps, bands, width], or what broadcasts to it; in a compact method.

    Args:
      kind: 'sin_cos' (fixed over time, no length is special, plus ``frequency_embedding``),
        'separable' (``time_embedding`` plus ``frequency_embedding``: PaSST) or 'absolute' (one
        vector a patch, ``position_embedding`` [steps * bands, width], band by band within a step:
        ViT).
      steps, bands: patches over time and frequency.
      grid: (steps, bands) that the learned ones have parameters for; None is these.
      stretch: whether other numbers of steps are fitted as AST does it, see ``_fit``.

    Raises:
      ConfigError: for an unknown kind.
      ValueError: other bands than learned ones, or more steps without ``stretch``.
    """
    config_lib.choose(dict.fromkeys(KINDS), kind, where='model.audio.positions')
    grid = grid or (steps, bands)
    if kind != 'sin_cos' and grid[1] != bands:
        raise ValueError(f'{bands} bands of patches; the encoder has positions for {grid[1]}.')
    if kind == 'absolute':
        table = Embedding(grid[0] * bands, width, name='position_embedding')()
        return _fit(table.reshape(grid[0], bands, width), steps, stretch)
    if kind == 'separable':
        time = Embedding(grid[0], width, name='time_embedding')()
        time = _fit(time, steps, stretch)
    else:
        time = sin_cos(steps, width)
    return time[:, None] + Embedding(bands, width, name='frequency_embedding')()


def _fit(table, steps: int, stretch: bool):
    """[t, ..., d] -> [steps, ..., d]: the first ones; with ``stretch`` as AST's ASTModel does it.

    That is the middle ones for fewer steps, and linear interpolation with half-pixel centres for
    more (Gong et al. 2021, section 2.2, and torch's interpolate(mode='bilinear')).
    """
    length = len(table)
    if steps <= length:
        start = length // 2 - steps // 2 if stretch else 0
        return table[start : start + steps]
    if not stretch:
        raise ValueError(f'{steps} steps of patches; the encoder has positions for {length}.')
    return jnp.tensordot(linear_matrix(length, steps), table, axes=1, precision='highest')


def kept(key, length: int, left_out: int):
    """Int [length - left_out]: a random choice of so many of ``length``, in order.

    Raises:
      ValueError: when none is left.
    """
    if not 0 <= left_out < length:
        raise ValueError(f'patchout of {left_out} leaves none of {length}.')
    # An axis of one in front tells ``training.row_keys`` that the draw is of no row.
    order = jax.random.permutation(key, jnp.arange(length)[None], axis=1, independent=True)[0]
    return jnp.sort(order[: length - left_out])
