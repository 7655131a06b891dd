"""Zero-shot classification: class names in prompts, the nearest one wins.

``python -m alm_jax.evals.zero_shot --workdir runs/tiny [--data NAME/config:split] [--watch]``.
The protocol is ``protocols/zero_shot.json``.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax import config as config_lib
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.evals import binary, prompts, records, result, shares
from alm_jax.evals.metrics import bootstrap, classification, retrieval
from alm_jax.tasks.predictors import Predictors
from alm_jax.text.templates import TEMPLATES


class ZeroShot:
    """The zero-shot evaluator."""

    name = 'zero_shot'

    def __init__(
        self,
        predictors: Predictors,
        *,
        data: str,
        data_dir: str = '',
        where: Mapping[str, Sequence[str]] | None = None,
        classes: Sequence[str] = (),
        templates: str = 'sound',
        tags: bool = False,
    ):
        """Reads labels; embeds nothing yet.

        Args:
          predictors: how to embed audio and text.
          data: 'NAME/config:split'.
          data_dir: where prepared data lies; '' is the default place.
          where: column -> admitted values; default {'kind': ['sound']}.
          classes: candidates; default the labels that occur in the data.
          templates: which prompt templates of ``alm_jax.text.templates``.
          tags: also score the records' tags by mean average precision.

        Raises:
          ConfigError: no record is left, or a class does not occur in the data.
        """
        where = {'kind': ['sound']} if where is None else where
        self._predictors = predictors
        self._data = data
        self._source = records.open_sorted(data, data_dir, where)
        prompts_used = config_lib.choose(TEMPLATES, templates, where='evals.templates')
        self._templates = templates
        labels = self._source.columns['label']
        present = sorted({str(label) for label in labels} - {''})
        for name in classes:
            if name not in present:
                raise ConfigError(
                    f'class {name!r} is no label of {data}. {did_you_mean(name, present)}'
                )
        self._classes = sorted(classes) or present
        if len(self._classes) < 2:
            raise ConfigError(
                f'{data} has {len(self._classes)} labelled classes where {dict(where)}; '
                'zero-shot classification needs at least 2.'
            )
        self._rows = np.flatnonzero(np.isin(labels, self._classes))
        self._target = np.searchsorted(self._classes, labels[self._rows])
        self._recordings = [str(r) for r in self._source.columns['recording_id'][self._rows]]
        known = records.classes_file(data, data_dir)
        self._unseen = [i for i, c in enumerate(self._classes) if known.get(c, {}).get('unseen')]
        self._tags = records.texts(self._source, 'tags') if tags else None
        self.protocol = result.load_protocol(
            self.name,
            data=data,
            where={key: list(value) for key, value in where.items()},
            classes=self._classes,
            unseen=[self._classes[i] for i in self._unseen],
            templates=list(prompts_used),
            tags=tags,
            record_ids_sha256=records.ids_sha256(self._source, self._rows),
        )

    def run(self, params: Any, extra: Any) -> result.EvalResult:
        """Embeds the records and the prompts and scores them."""
        class_embeddings = self._prompted(params, extra, self._classes)
        audio = shares.embed_clips(self._predictors, params, extra, self._source, self._rows)
        scores = retrieval.similarity(audio, class_embeddings)
        metrics = bootstrap.scored(self._statistics(scores, self._target), self._recordings)
        baselines = _baselines(self._target, len(self._classes))
        if len(self._unseen) >= 2:
            unseen_metrics, unseen_baselines = self._score_unseen(scores)
            metrics |= unseen_metrics
            baselines |= unseen_baselines
        if self._tags is not None:
            metrics |= self._score_tags(params, extra)
        return result.EvalResult(
            evaluator=self.name,
            data=self._data,
            n=len(self._rows),
            classes=len(self._classes),
            protocol=self.protocol,
            front_end_sha256=self._predictors.front_end_sha256,
            metrics=metrics,
            baselines=baselines,
            tables=self._tables(scores),
            excluded=len(self._source) - len(self._rows),
        )

    def _prompted(self, params, extra, names: Sequence[str]) -> np.ndarray:
        embed_text = functools.partial(shares.embed_texts, self._predictors, params, extra)
        return prompts.class_embeddings(embed_text, names, self._templates)

    @staticmethod
    def _statistics(scores: np.ndarray, target: np.ndarray):
        first = classification.top_k_correct(scores, target, 1)
        fifth = classification.top_k_correct(scores, target, 5)
        relevant = target[:, None] == np.arange(scores.shape[1])

        def statistics(weights):
            return {
                'top1': bootstrap.weighted_mean(first, weights),
                'top5': bootstrap.weighted_mean(fifth, weights),
                'macro': classification.macro_mean(first, target, weights),
                'map': classification.mean_average_precision(relevant, scores, weights),
            }

        return statistics

    def _score_unseen(self, scores):
        """Top-1 and macro accuracy among the unseen classes alone, and what chance gives."""
        rows = np.flatnonzero(np.isin(self._target, self._unseen))
        target = np.searchsorted(self._unseen, self._target[rows])
        recordings = [self._recordings[row] for row in rows]
        statistics = self._statistics(scores[np.ix_(rows, self._unseen)], target)
        scored = bootstrap.scored(statistics, recordings)
        metrics = {
            f'unseen_{key}': value
            for key, value in scored.items()
            if key.removesuffix('_ci95') in ('top1', 'macro')
        }
        baselines = _baselines(target, len(self._unseen))
        return metrics, {
            f'unseen_{key}': baselines[key] for key in ('chance_top1', 'majority_top1')
        }

    def _score_tags(self, params, extra):
        rows = np.asarray([row for row, tags in enumerate(self._tags) if tags], int)
        if not len(rows):
            raise ConfigError('evals.tags is set, but no record has tags.')
        names = sorted({tag for tags in self._tags for tag in tags})
        relevant = np.array([[name in self._tags[row] for name in names] for row in rows])
        audio = shares.embed_clips(self._predictors, params, extra, self._source, rows)
        scores = retrieval.similarity(audio, self._prompted(params, extra, names))

        def statistics(weights):
            precision = classification.mean_average_precision(relevant, scores, weights)
            return {'tags_map': precision}

        return bootstrap.scored(
            statistics, [str(r) for r in self._source.columns['recording_id'][rows]]
        )

    def _tables(self, scores):
        predicted = classification.ranking(scores)[:, 0]
        counts = classification.confusion_matrix(self._target, predicted, len(self._classes))
        per_class = []
        for index, name in enumerate(self._classes):
            member = self._target == index
            if not member.any():
                continue
            confused = counts[index].copy()
            confused[index] = 0
            per_class.append(
                {
                    'class': name,
                    'n': int(member.sum()),
                    'recordings': len({r for r, m in zip(self._recordings, member) if m}),
                    'top1': float(counts[index, index] / member.sum()),
                    'average_precision': float(
                        classification.average_precision(
                            member, scores[:, index], np.ones(len(member))
                        )
                    ),
                    'unseen': index in self._unseen,
                    'most_confused': self._classes[int(confused.argmax())]
                    if confused.any()
                    else '',
                }
            )
        return {
            'per_class': per_class,
            'confusion': {'classes': self._classes, 'counts': counts.tolist()},
        }


def _baselines(target: np.ndarray, classes: int) -> dict[str, float]:
    """Chance, and the best constant answer (the commonest classes of the evaluated records)."""
    commonest = [count for _, count in Counter(target.tolist()).most_common(5)]
    return {
        'chance_top1': 1 / classes,
        'chance_top5': min(5, classes) / classes,
        'majority_top1': commonest[0] / len(target),
        'majority_top5': sum(commonest) / len(target),
        'majority_macro': 1 / len(np.unique(target)),
    }


if __name__ == '__main__':
    binary.run(ZeroShot)
