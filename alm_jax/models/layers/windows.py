"""Overlapping windows over the frames of padded clips, and pooling under a mask.

Shared by encoders that cut a log-mel spectrogram into patches. A clip of n frames has
``1 + ceil((n - size) / hop)`` windows (at least one), so every frame is in a window and the last
one is filled up, as YAMNet's own waveform padding does. With ``partial=False`` it has only those
that its frames fill, as a convolution without padding does (still at least one).
"""

import jax.numpy as jnp


def num_windows(num_frames, size: int, hop: int, partial: bool = True):
    """How many windows of ``size`` frames, ``hop`` apart, cover so many: an int or an array."""
    after_first = num_frames - size
    more = -(-after_first // hop) if partial else after_first // hop
    return 1 + more * (more > 0)


def window_mask(num_frames_b, count: int, size: int, hop: int, partial: bool = True):
    """bool [b, count]: the windows that a clip of each length has. The first one always counts."""
    start_k = jnp.arange(count) * hop
    needed_k = start_k + size - (hop - 1 if partial else 0)
    return (start_k == 0) | (needed_k <= num_frames_b[:, None])


def fill_padding(mel_btf, num_frames_b, length: int, value: float):
    """Sets frames beyond ``num_frames_b`` to ``value`` and pads the time axis up to ``length``.

    Args:
      mel_btf: [b, t, f] with t <= length; what it holds beyond a clip's end is ignored.
      num_frames_b: int [b], valid frames.

    Returns:
      [b, length, f].
    """
    mel_btf = jnp.pad(mel_btf, ((0, 0), (0, length - mel_btf.shape[1]), (0, 0)))
    valid_bt = jnp.arange(length) < num_frames_b[:, None]
    return jnp.where(valid_bt[..., None], mel_btf, jnp.asarray(value, mel_btf.dtype))


def masked_mean(x_btd, mask_bt):
    """Mean over the positions where the mask is True, in float32; zeros for an empty row.

    Args:
      x_btd: [b, t, d].
      mask_bt: bool [b, t].

    Returns:
      float32 [b, d].
    """
    weight_bt1 = mask_bt[..., None].astype(jnp.float32)
    total = jnp.sum(jnp.where(mask_bt[..., None], x_btd.astype(jnp.float32), 0), axis=1)
    return total / jnp.maximum(jnp.sum(weight_bt1, axis=1), 1)
