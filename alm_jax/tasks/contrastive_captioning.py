"""Two towers that agree, a decoder that captions, and pairs told apart: up to three losses at once.

The sum of what ``config.task.weights`` names: 'contrastive' (see the contrastive task),
'captioning', the cross-entropy of a caption's tokens beside its audio, and 'matching', whether a
clip and a caption belong together, with the hardest others of the batch.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alm_jax.config import ConfigError
from alm_jax.models.captioning_towers import build_captioning_towers
from alm_jax.models.layers.placement import activation_axes
from alm_jax.objectives.matching import hard_negatives, matching
from alm_jax.tasks.contrastive import ContrastiveTask
from alm_jax.tasks.generative import next_tokens, token_loss
from alm_jax.text.tokenizer import Tokenizer


class ContrastiveCaptioningTask(ContrastiveTask):
    """CoCa-style pretraining; predicts what the contrastive task does."""

    MODELS: ClassVar = {'captioning_towers': build_captioning_towers}

    def __init__(
        self, config: ConfigDict, *, tokenizer: Tokenizer | None = None, mesh: Mesh | None = None
    ):
        """See ``build_task``."""
        super().__init__(config, tokenizer=tokenizer, mesh=mesh)
        self._weights = dict(config.task.weights)
        if min(self._weights.values()) < 0 or not any(self._weights.values()):
            raise ConfigError(f'config.task.weights are {self._weights}: 0 or more, one above.')
        if self._weights['matching'] and config.micro_batches > 1:
            raise ConfigError(
                'config.task.weights.matching compares the audio of all rows, which '
                f'{config.micro_batches} micro-batches do not hold. Set config.micro_batches to 1.'
            )
        self._token_loss = token_loss(config)

    def loss(
        self, params: Any, extra: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """The weighted sum of the losses, over the global batch.

        Args:
          params, extra, batch, rng: see ``ContrastiveTask.loss``.

        Returns:
          (float32 scalar, (metrics, extra)): each loss by its name, 'accuracy' of caption tokens,
          'logit_scale' and 'logit_bias'.
        """
        embed_rng, matching_rng = jax.random.split(rng)
        rows, memory = self._read(params, extra, batch, embed_rng)
        total, (metrics, extra) = self.loss_of(params, extra, rows, batch)
        if self._weights['matching']:
            found = self._matching(params, extra, rows, memory, batch, matching_rng)
            total += self._weights['matching'] * found
            metrics['matching'] = found
        return total, (metrics, extra)

    def embed(
        self, params: Any, extra: Any, batch: Mapping[str, jax.Array], rng: jax.Array
    ) -> dict[str, jax.Array]:
        """What the losses but for matching take of some rows, as ``loss`` sees them.

        Returns:
          'audio_embedding' and 'text_embedding', float32 [b, d] of unit norm; 'loss', 'count' and
          'correct', float32 [b], sums over the tokens of each caption.
        """
        return self._read(params, extra, batch, jax.random.split(rng)[0])[0]

    def loss_of(
        self,
        params: Any,
        extra: Any,
        embeddings: Mapping[str, jax.Array],
        batch: Mapping[str, jax.Array],
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        """What ``loss`` returns but for matching, from what ``embed`` gives of the global batch."""
        contrastive, (metrics, extra) = super().loss_of(params, extra, embeddings, batch)
        count = jnp.maximum(jnp.sum(embeddings['count']), 1.0)
        captioning = jnp.sum(embeddings['loss']) / count
        metrics |= {
            'contrastive': contrastive,
            'captioning': captioning,
            'accuracy': jnp.sum(embeddings['correct']) / count,
        }
        weights = self._weights
        total = weights['contrastive'] * contrastive + weights['captioning'] * captioning
        return total, (metrics, extra)

    def _read(self, params, extra, batch, rng):
        """(what ``embed`` returns, (vectors of each clip [b, s, e], bool [b, s]))."""
        *mel_rngs, towers_rng, decoder_rng = jax.random.split(rng, 4)
        mel, num_frames = self._features.augmented(batch, *mel_rngs)
        text = batch['token_ids'], batch['token_mask']
        with activation_axes(self._mesh, self._axes):
            read = self._apply(params, extra, 'read', towers_rng, mel, num_frames, *text)
            memory = read.pop('audio'), read.pop('audio_mask')
            tokens = self._apply(params, extra, 'write', decoder_rng, *text, *memory)
            head = params['decoder']['token_embedding']['embedding']
            found = self._token_loss(tokens, head, *next_tokens(text[0], text[1], text[1]))
        return {**read, **found._asdict()}, memory

    def _matching(self, params, extra, rows, memory, batch, rng):
        """The loss of every row's own pair, its audio with another text and the other way round."""
        negatives_rng, decoder_rng = jax.random.split(rng)
        text = batch['token_ids'], batch['token_mask']
        scale = self.model.apply({'params': params, **extra}, method='scales')['logit_scale']
        other_text, other_audio, exists = hard_negatives(
            negatives_rng,
            rows['audio_embedding'],
            rows['text_embedding'],
            scale,
            batch['audio_group'],
            batch['text_group'],
        )
        own = jnp.arange(len(exists))
        texts = jnp.concatenate([own, other_text, own])
        clips = jnp.concatenate([own, own, other_audio])
        pairs = [jnp.take(x, texts, axis=0) for x in text]
        pairs += [jnp.take(x, clips, axis=0) for x in memory]
        with activation_axes(self._mesh, self._axes):
            match = self._apply(params, extra, 'match', decoder_rng, *pairs)
        with jax.named_scope('objective'):
            return matching(*jnp.split(match, 3), exists)

    def _apply(self, params, extra, method, rng, *inputs):
        return self.model.apply(
            {'params': params, **extra}, *inputs, train=True, method=method, rngs={'dropout': rng}
        )
