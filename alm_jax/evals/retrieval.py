"""Retrieval: captions find their clips and clips find their captions.

``python -m alm_jax.evals.retrieval --workdir runs/tiny [--data NAME/config:split] [--watch]``.
The protocol is ``protocols/retrieval.json``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.evals import binary, records, result, shares
from alm_jax.evals.metrics import bootstrap
from alm_jax.evals.metrics import retrieval as ranks_lib
from alm_jax.tasks.predictors import Predictors

TEXT_FIELDS = ('captions', 'caption_own', 'transcript')
EXAMPLES = 10
EXAMPLE_RESULTS = 5
SIMILARITY_CLIPS = 40  # rows of the similarity picture


class Retrieval:
    """The retrieval evaluator, both directions."""

    name = 'retrieval'

    def __init__(
        self,
        predictors: Predictors,
        *,
        data: str,
        data_dir: str = '',
        where: Mapping[str, Sequence[str]] | None = None,
        text: str = 'captions',
    ):
        """Reads the texts; embeds nothing yet.

        Args:
          predictors: how to embed audio and text.
          data: 'NAME/config:split'.
          data_dir: where prepared data lies; '' is the default place.
          where: column -> admitted values; default {'kind': ['sound']}.
          text: the record field that is searched: 'captions', 'caption_own' or 'transcript'.

        Raises:
          ConfigError: fewer than two records have such a text.
        """
        where = {'kind': ['sound']} if where is None else where
        if text not in TEXT_FIELDS:
            raise ConfigError(f'evals.text is {text!r}. {did_you_mean(text, TEXT_FIELDS)}')
        self._predictors = predictors
        self._data = data
        self._source = records.open_sorted(data, data_dir, where)
        captions = [_distinct(texts) for texts in records.texts(self._source, text)]
        self._rows = np.asarray([row for row, texts in enumerate(captions) if texts], int)
        if len(self._rows) < 2:
            raise ConfigError(
                f'{data} has {len(self._rows)} records with {text} where {dict(where)}; '
                'retrieval needs at least 2.'
            )
        self._captions = [captions[row] for row in self._rows]
        self._candidates: dict[str, str] = {}  # equal captions once, as first written, in id order
        for texts in self._captions:
            for normal, caption in texts.items():
                self._candidates.setdefault(normal, caption)
        self._recordings = [str(r) for r in self._source.columns['recording_id'][self._rows]]
        self.protocol = result.load_protocol(
            self.name,
            data=data,
            where={key: list(value) for key, value in where.items()},
            text=text,
            captions=sum(map(len, self._captions)),
            distinct_captions=len(self._candidates),
            record_ids_sha256=records.ids_sha256(self._source, self._rows),
        )

    def run(self, params: Any, extra: Any) -> result.EvalResult:
        """Embeds the records and their texts and ranks them."""
        audio = shares.embed_clips(self._predictors, params, extra, self._source, self._rows)
        captions = list(self._candidates.values())
        text = shares.embed_texts(self._predictors, params, extra, captions)
        text_audio = ranks_lib.similarity(text, audio)  # [distinct captions, clips]
        position = {normal: i for i, normal in enumerate(self._candidates)}
        relevant = np.zeros(text_audio.shape, bool)
        for clip, texts in enumerate(self._captions):
            relevant[[position[normal] for normal in texts], clip] = True

        caption_ranks = ranks_lib.best_ranks(text_audio, relevant)
        pairs = [(clip, position[n]) for clip, texts in enumerate(self._captions) for n in texts]
        clip_of, caption_of = np.array(pairs).T
        metrics = self._score('text_to_audio', caption_ranks[caption_of], clip_of)
        clip_ranks = ranks_lib.best_ranks(text_audio.T, relevant.T)
        metrics |= self._score('audio_to_text', clip_ranks, np.arange(len(clip_ranks)))
        return result.EvalResult(
            evaluator=self.name,
            data=self._data,
            n=len(self._rows),
            classes=None,
            protocol=self.protocol,
            front_end_sha256=self._predictors.front_end_sha256,
            metrics=metrics,
            baselines=_chance(relevant, caption_of),
            tables={'similarity': self._similarity_table(text_audio, position)},
            examples=self._examples(text_audio, relevant),
            excluded=len(self._source) - len(self._rows),
        )

    def _score(self, direction, ranks, clip_of):
        recordings = [self._recordings[clip] for clip in clip_of]

        def statistics(weights):
            values = ranks_lib.statistics(ranks, weights)
            return {f'{key}_{direction}': value for key, value in values.items()}

        return bootstrap.scored(statistics, recordings)

    def _by_label(self, count: int) -> np.ndarray:
        """``count`` clips spread over the labels, for pictures; without one only if need be."""
        labels = self._source.columns['label'][self._rows]
        order = np.argsort(labels, kind='stable')
        if (labels != '').sum() >= count:
            order = order[labels[order] != '']
        return order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]

    def _similarity_table(self, text_audio, position):
        clips = self._by_label(SIMILARITY_CLIPS)
        own = [position[next(iter(self._captions[clip]))] for clip in clips]
        captions = list(self._candidates.values())
        return {
            'captions': [captions[i] for i in own],
            'clips': [self._id(clip) for clip in clips],
            'values': np.round(text_audio[np.ix_(own, clips)], 3).tolist(),
        }

    def _examples(self, text_audio, relevant):
        """Ten captions, from clips spread over the labels, each with its five nearest clips."""
        captions = list(self._candidates.values())
        by_normal = list(self._candidates)
        queries = dict.fromkeys(
            by_normal.index(next(iter(self._captions[clip]))) for clip in self._by_label(EXAMPLES)
        )
        examples = []
        for query in queries:
            nearest = np.argsort(-text_audio[query], kind='stable')[:EXAMPLE_RESULTS]
            examples.append(
                {
                    'query': captions[query],
                    'results': [
                        {
                            'id': self._id(clip),
                            'caption': next(iter(self._captions[clip].values())),
                            'score': float(text_audio[query, clip]),
                            'relevant': bool(relevant[query, clip]),
                        }
                        for clip in nearest
                    ],
                }
            )
        return examples

    def _id(self, clip: int) -> str:
        return str(self._source.columns['id'][self._rows[clip]])


def _distinct(texts: Sequence[str]) -> dict[str, str]:
    """Normalised text -> text as written, equal texts once, empty texts left out."""
    distinct: dict[str, str] = {}
    for text in texts:
        normal = ' '.join(text.casefold().split()).rstrip('.')
        if normal:
            distinct.setdefault(normal, text)
    return distinct


def _chance(relevant, caption_of) -> dict[str, float]:
    captions, clips = relevant.shape
    chance = {}
    for k in ranks_lib.RECALL_AT:
        found = ranks_lib.chance_recall(relevant.sum(axis=1)[caption_of], clips, k)
        chance[f'chance_r_at_{k}_text_to_audio'] = found
        found = ranks_lib.chance_recall(relevant.sum(axis=0), captions, k)
        chance[f'chance_r_at_{k}_audio_to_text'] = found
    return chance


if __name__ == '__main__':
    binary.run(Retrieval)
