"""Augmentation on the device: jnp, pure, keyed, a different draw for each row.

Call these under jit on the GLOBAL batch, outside shard_map: the draws are then a function of the
key and the row alone, whatever the sharding. Waveforms are float32 [b, n] in [-1, 1], zero from
``num_samples_b`` int32 [b] on, and stay so. With its option at 0 or () a function gives its input.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_MASKED_SHARE = 5  # one time mask covers at most 1 / 5 of a clip (adaptive SpecAugment, 1912.05533)


def gain(key: jax.Array, x_bn: jax.Array, max_db: float) -> jax.Array:
    """Scales each row by a gain uniform in +-``max_db`` dB. The result may exceed [-1, 1]."""
    if not max_db:
        return x_bn
    db = jax.random.uniform(key, (x_bn.shape[0], 1), minval=-max_db, maxval=max_db)
    return x_bn * 10.0 ** (db / 20.0)


def time_shift(
    key: jax.Array, x_bn: jax.Array, num_samples_b: jax.Array, max_samples: int
) -> jax.Array:
    """Moves each clip later or earlier within its own length; zeros enter, what leaves is lost.

    Args:
      key: one key.
      x_bn, num_samples_b: see the module.
      max_samples: shifts are uniform integers in +-min(max_samples, num_samples // 2), so that at
        least half of a clip remains.
    """
    if not max_samples:
        return x_bn
    num_rows, length = x_bn.shape
    most = jnp.minimum(max_samples, num_samples_b // 2)
    # Two axes, by which draws for rows x clips are known to be of rows (training.row_keys).
    shift = jax.random.randint(key, (num_rows, 1), -most[:, None], most[:, None] + 1)[:, 0]
    padded = jnp.pad(x_bn, ((0, 0), (max_samples, max_samples)))
    shifted = jax.vmap(lambda row, s: jax.lax.dynamic_slice_in_dim(row, max_samples - s, length))(
        padded, shift
    )
    return jnp.where(_valid(length, num_samples_b), shifted, 0.0)


def add_noise(
    key: jax.Array, x_bn: jax.Array, num_samples_b: jax.Array, snr_db: Sequence[float]
) -> jax.Array:
    """Adds white Gaussian noise at a signal-to-noise ratio uniform in ``snr_db`` = (low, high) dB.

    The ratio is that of the mean powers over the clip as drawn, so it is met exactly. A silent clip
    stays silent.
    """
    if not snr_db:
        return x_bn
    low, high = snr_db
    noise_key, ratio_key = jax.random.split(key)
    num_rows, length = x_bn.shape
    noise = jax.random.normal(noise_key, x_bn.shape)
    noise = jnp.where(_valid(length, num_samples_b), noise, 0.0)
    ratio_db = jax.random.uniform(ratio_key, (num_rows, 1), minval=low, maxval=high)
    signal_energy = jnp.sum(x_bn**2, axis=1, keepdims=True)
    noise_energy = jnp.maximum(jnp.sum(noise**2, axis=1, keepdims=True), 1e-20)
    return x_bn + noise * jnp.sqrt(signal_energy / noise_energy * 10.0 ** (-ratio_db / 10.0))


def spec_augment(
    key: jax.Array,
    mel_btf: jax.Array,
    num_frames_b: jax.Array,
    *,
    time_masks: int = 0,
    time_mask_frames: int = 20,
    freq_masks: int = 0,
    freq_mask_bins: int = 8,
) -> jax.Array:
    """SpecAugment (1904.08779) without warping: spans of frames and of mel bins set to the mean.

    Args:
      key: one key.
      mel_btf: float32 [b, t, f], log-mel.
      num_frames_b: int32 [b]; frames from there on are padding and stay as they are.
      time_masks, freq_masks: masks a row.
      time_mask_frames, freq_mask_bins: widths are uniform integers in [0, this]; a time mask is
        also at most a fifth of the clip.

    Returns:
      float32 [b, t, f]; masked cells hold the row's mean over its own frames before masking.
    """
    if not time_masks and not freq_masks:
        return mel_btf
    num_rows, num_frames, num_bins = mel_btf.shape
    time_key, freq_key = jax.random.split(key)
    valid = _valid(num_frames, num_frames_b)
    widest = jnp.minimum(time_mask_frames, num_frames_b // _MASKED_SHARE)
    frames = _spans(time_key, time_masks, num_frames, num_frames_b, widest)
    all_bins = jnp.full(num_rows, num_bins)
    bins = _spans(freq_key, freq_masks, num_bins, all_bins, jnp.full(num_rows, freq_mask_bins))
    masked = (frames[:, :, None] | bins[:, None, :]) & valid[:, :, None]
    total = jnp.sum(jnp.where(valid[:, :, None], mel_btf, 0.0), axis=(1, 2), keepdims=True)
    mean = total / (jnp.maximum(num_frames_b, 1)[:, None, None] * num_bins)
    return jnp.where(masked, mean, mel_btf)


def _spans(
    key: jax.Array, count: int, size: int, end_b: jax.Array, widest_b: jax.Array
) -> jax.Array:
    """bool [b, size]: the union of ``count`` spans a row, width uniform to widest, within end."""
    shape = (len(end_b), count)
    width_key, start_key = jax.random.split(key)
    width = jax.random.randint(width_key, shape, 0, widest_b[:, None] + 1)
    start = jax.random.randint(start_key, shape, 0, end_b[:, None] - width + 1)
    cell = jnp.arange(size)[None, None, :]
    return jnp.any((cell >= start[..., None]) & (cell < (start + width)[..., None]), axis=1)


def _valid(size: int, count_b: jax.Array) -> jax.Array:
    """bool [b, size]: the first ``count`` of each row."""
    return jnp.arange(size)[None, :] < count_b[:, None]
