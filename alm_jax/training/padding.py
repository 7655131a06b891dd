"""How much of a batch is padding, which costs as much as what is real."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

_AUDIO = {'pcm': 'num_samples', 'mel': 'num_frames'}  # array -> its true lengths
_MASK = 'token_mask'
_SEGMENTS = 'segments'


def shares(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Shares of padded samples (frames, of a host front end) and tokens: float32 [], 0 to 1.

    Under jit over a sharded batch these are of the global one.

    Args:
      batch: 'pcm' [..., n] with 'num_samples' [...], or 'mel' [..., t, f] with 'num_frames'; masks
        [..., t], true where there is a token, of every name that ends in 'token_mask'; 'segments'
        [..., t], 0 where there is none.

    Returns:
      'padding_audio' and 'padding_text', as far as the batch has them.
    """
    found = {}
    for name, lengths in _AUDIO.items():
        if name in batch:
            longest = _times(name, batch[name])[-1]
            found['padding_audio'] = 1 - jnp.mean(batch[lengths].astype(jnp.float32)) / longest
    masks = [batch[name] for name in sorted(batch) if name.endswith(_MASK)]
    masks += [batch[_SEGMENTS] > 0] if _SEGMENTS in batch else []
    if masks:
        tokens = sum(jnp.sum(mask, dtype=jnp.float32) for mask in masks)
        found['padding_text'] = 1 - tokens / sum(mask.size for mask in masks)
    return found


def sizes(batch: Mapping[str, Any]) -> dict[str, int]:
    """Of what ``shares`` are shares: samples (or frames) and tokens of the batch, by its shapes."""
    found = {}
    for name in _AUDIO:
        if name in batch:
            found['padding_audio'] = math.prod(_times(name, batch[name]))
    of_text = [name for name in batch if name.endswith(_MASK) or name == _SEGMENTS]
    masks = [math.prod(batch[name].shape) for name in of_text]
    if masks:
        found['padding_text'] = sum(masks)
    return found


def _times(name: str, array: Any) -> tuple[int, ...]:
    """The shape up to time, which is last but for the bands of a log-mel."""
    return array.shape if name == 'pcm' else array.shape[:-1]
