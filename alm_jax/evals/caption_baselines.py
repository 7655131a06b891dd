"""Captions that no model wrote: the commonest of the training data, and the nearest one."""

import collections
from collections.abc import Sequence

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.evals import records, shares
from alm_jax.evals.metrics.retrieval import similarity
from alm_jax.load import load_towers


class TrainingCaptions:
    """The captions that a model may have seen."""

    def __init__(self, data: str, data_dir: str, where, text: str):
        """Reads field ``text`` of 'NAME/config:split'. Raises ConfigError when all are empty."""
        source = records.open_sorted(data, data_dir, where)
        found = [text for own in records.texts(source, text) for text in own if text.strip()]
        if not found:
            raise ConfigError(f'evals.train: {data} has no {text} where {dict(where)}.')
        self._counted = collections.Counter(' '.join(text.split()) for text in found)

    @property
    def commonest(self) -> str:
        """The caption that most records have; of several the first in the alphabet."""
        return min(self._counted, key=lambda text: (-self._counted[text], text))

    def nearest(
        self, two_tower: str, source: records.Records, rows: Sequence[int]
    ) -> tuple[list[str], str]:
        """The caption nearest to each clip by a trained two-tower model.

        Args:
          two_tower: a workdir or checkpoint.
          source, rows: the clips.

        Returns:
          (captions, the checkpoint's sha256).

        Raises:
          ConfigError: no such run, or one that does not embed.
        """
        model = load_towers(two_tower)
        texts = sorted(self._counted)
        state = model.predictors, model.params, model.extra
        scores = similarity(
            shares.embed_clips(*state, source, rows), shares.embed_texts(*state, texts)
        )
        return [texts[best] for best in np.argmax(scores, axis=1)], model.checkpoint_sha256
