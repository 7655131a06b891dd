"""Contrastive objectives between two sets of unit-norm embeddings.

Arrays in, scalars out. Inputs may be of any float dtype; logits and losses are float32. The batch
is the global one: under a sharded ``jit`` every row sees the negatives of every device.

Where groups are taken, a pair (audio i, text j) is positive when the recordings or the captions
agree: ``audio_group[i] == audio_group[j] or text_group[i] == text_group[j]``. A row is always a
positive of itself.
"""

import jax
import jax.numpy as jnp


def infonce(za: jax.Array, zt: jax.Array, scale: jax.Array) -> jax.Array:
    """Symmetric InfoNCE: the mean of both cross-entropies against the diagonal.

    Source: Radford et al. 2021 (CLIP), figure 3.

    Args:
      za: [b, d] audio embeddings, unit norm.
      zt: [b, d] text embeddings, unit norm.
      scale: scalar multiplier of the cosine, already exponentiated.

    Returns:
      float32 scalar.
    """
    return _soft_cross_entropy(scaled_cosines(za, zt, scale), jnp.eye(za.shape[0], dtype=bool))


def multi_positive(
    za: jax.Array, zt: jax.Array, scale: jax.Array, audio_group: jax.Array, text_group: jax.Array
) -> jax.Array:
    """Symmetric InfoNCE with several positives a row.

    With P(i) the positives of row i, the audio-to-text half is
    ``mean_i -1/|P(i)| sum_{j in P(i)} log softmax_j(scale <za_i, zt_j>)``; text-to-audio is the
    same down the columns, and the loss is the mean of the two. Source: Yang et al. 2022 (UniCL),
    equations 2 to 4, there with sums over the batch; Khosla et al. 2020 (SupCon), L_out.

    Args:
      za, zt, scale: as in ``infonce``.
      audio_group, text_group: [b] integers; equal means the same recording or the same caption.

    Returns:
      float32 scalar; equals ``infonce`` when all groups differ.
    """
    return _soft_cross_entropy(scaled_cosines(za, zt, scale), positives(audio_group, text_group))


def sigmoid(
    za: jax.Array,
    zt: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    audio_group: jax.Array,
    text_group: jax.Array,
) -> jax.Array:
    """Pairwise sigmoid loss: ``-1/b sum_ij log sigmoid(y_ij (scale <za_i, zt_j> + bias))``.

    y is +1 for a positive pair, else -1. Source: Zhai et al. 2023 (SigLIP), equation 1, there with
    the diagonal as the only positives.

    Args:
      za, zt, scale, audio_group, text_group: as in ``multi_positive``.
      bias: scalar added to the logits.

    Returns:
      float32 scalar.
    """
    logits = scaled_cosines(za, zt, scale) + jnp.asarray(bias, jnp.float32)
    sign = jnp.where(positives(audio_group, text_group), 1.0, -1.0)
    return -jnp.sum(jax.nn.log_sigmoid(sign * logits)) / za.shape[0]


def positives(audio_group: jax.Array, text_group: jax.Array) -> jax.Array:
    """[b, b] bool, symmetric, true on the diagonal: which (audio, text) pairs belong together."""
    return (audio_group[:, None] == audio_group) | (text_group[:, None] == text_group)


def scaled_cosines(za: jax.Array, zt: jax.Array, scale: jax.Array) -> jax.Array:
    """float32 [b, b]: the logit of every audio with every text."""
    za, zt = jnp.asarray(za, jnp.float32), jnp.asarray(zt, jnp.float32)
    cosine = jnp.matmul(za, zt.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.asarray(scale, jnp.float32) * cosine


def _soft_cross_entropy(logits, positive):
    """The mean over both directions, each positive of a row weighing the same."""

    def one_way(axis):
        log_p = jax.nn.log_softmax(logits, axis=axis)
        share = positive / jnp.sum(positive, axis=axis, keepdims=True)
        return -jnp.mean(jnp.sum(share * log_p, axis=axis))

    return (one_way(0) + one_way(1)) / 2
