"""Audio-text matching: whether a clip and a text belong together, against the hardest of others.

Source: Li et al. 2021 (ALBEF, https://arxiv.org/abs/2107.07651), section 3.2; for audio Xu et al.
2023 (BLAT, https://arxiv.org/abs/2303.07902), section 3.3. Arrays in, scalars out, over the global
batch.
"""

import jax
import jax.numpy as jnp

from alm_jax.objectives.contrastive import positives, scaled_cosines


def hard_negatives(
    rng: jax.Array,
    za: jax.Array,
    zt: jax.Array,
    scale: jax.Array,
    audio_group: jax.Array,
    text_group: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """For every row another text and another audio of the batch, likelier the more they are alike.

    They are drawn with the probabilities of the contrastive softmax over what is no positive of the
    row (see ``contrastive``), and depend on the key and the global batch alone.

    Args:
      rng: one key.
      za, zt: [b, d] unit norm.
      scale: scalar multiplier of the cosine.
      audio_group, text_group: [b] integers; equal means the same recording or the same caption.

    Returns:
      (text for each audio int32 [b], audio for each text int32 [b], bool [b] whether there is any;
      where there is none the other two are of no use).
    """
    positive = positives(audio_group, text_group)
    scores = jnp.where(positive, -jnp.inf, scaled_cosines(za, zt, scale))
    text_rng, audio_rng = jax.random.split(rng)
    text = jax.random.categorical(text_rng, scores, axis=1)
    audio = jax.random.categorical(audio_rng, scores.T, axis=1)
    return text, audio, ~jnp.all(positive, axis=1)


def matching(
    own_b: jax.Array, other_text_b: jax.Array, other_audio_b: jax.Array, exists_b: jax.Array
) -> jax.Array:
    """Binary cross-entropy of all pairs, the mean over them.

    Args:
      own_b: [b] logits of each row's own pair, a positive one.
      other_text_b: of its audio with another text; other_audio_b: of its text with other audio.
      exists_b: bool [b], whether the row has such others.

    Returns:
      float32 scalar.
    """
    own, text, audio = (x.astype(jnp.float32) for x in (own_b, other_text_b, other_audio_b))
    negatives = jnp.where(exists_b, jax.nn.softplus(text) + jax.nn.softplus(audio), 0.0)
    pairs = len(own) + 2 * jnp.sum(exists_b)
    return jnp.sum(jax.nn.softplus(-own) + negatives) / pairs
