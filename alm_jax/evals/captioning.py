"""Captioning: what a model writes about clips, against what people wrote.

``python -m alm_jax.evals.captioning --workdir RUN [--data NAME/config:split] [--watch]``, or
``--checkpoint HF_DIR --data NAME/config:split --out DIR`` for a pretrained model.
The protocol is ``protocols/captioning.json``.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data.location import data_dir as data_dir_of
from alm_jax.evals import binary, hearing, pretrained, records, result
from alm_jax.evals.caption_baselines import TrainingCaptions
from alm_jax.evals.metrics import bootstrap, captions, meteor_tables
from alm_jax.evals.metrics.word_errors import plain, word_errors
from alm_jax.evals.sentence_encoder import SentenceEncoder
from alm_jax.interop.packaged_weights import WeightsUnavailable

PROMPTS = {
    'captions': 'Describe what can be heard.',
    'caption_own': 'Describe what can be heard.',
    'transcript': 'Write down what is said.',
}
# Of every condition these are told beside the model's scores; its table has all of them.
HEADLINES = ('cider_d', 'rouge_l', 'minilm_similarity', 'wer', 'cer')


class Captioning:
    """The captioning evaluator; with ``text='transcript'`` that of speech recognition."""

    name = 'captioning'
    load = staticmethod(pretrained.load_model)

    def __init__(
        self,
        predictors: Any,
        *,
        data: str,
        data_dir: str = '',
        where: Mapping[str, Sequence[str]] | None = None,
        text: str = 'captions',
        prompt: str | None = None,
        max_tokens: int = 48,
        conditions: Sequence[str] = hearing.CONDITIONS,
        train: str = '',
        two_tower: str = '',
        limit: int = 0,
    ):
        """Reads the texts; generates nothing yet.

        Args:
          predictors: ``tasks.generators.Generators``, or what behaves so.
          data: 'NAME/config:split'.
          data_dir: where prepared data lies; '' is the default place.
          where: column -> admitted values; default sounds, or speech for transcripts.
          text: the record field with the references: 'captions', 'caption_own' or 'transcript'.
          prompt: what is asked; default by ``text``.
          max_tokens: of an answer.
          conditions: 'silence' and 'shuffled', what is heard instead to see whether it matters.
          train: 'NAME/config:split' of the training data, for the commonest caption.
          two_tower: a run whose nearest training caption is a baseline; needs ``train``.
          limit: at most so many records, spread over the labels; 0 is all.

        Raises:
          ConfigError: fewer than two records have such a text; an option that cannot be.
        """
        where = (
            {'kind': ['speech' if text == 'transcript' else 'sound']} if where is None else where
        )
        if text not in PROMPTS:
            raise ConfigError(f'evals.text is {text!r}. {did_you_mean(text, list(PROMPTS))}')
        if two_tower and not train:
            raise ConfigError('evals.two_tower needs train: the data whose captions it retrieves.')
        self._predictors = hearing.checked_generators(predictors)
        self._conditions = hearing.checked_conditions(conditions)
        self._data, self._text, self._max_tokens = data, text, max_tokens
        self._prompt = PROMPTS[text] if prompt is None else prompt
        self._open(where, data_dir, limit)
        self._train = TrainingCaptions(train, data_dir, where, text) if train else None
        self._two_tower = two_tower
        self._unavailable, self._encoder = dict(captions.UNAVAILABLE), None
        self._meteor, self._tables = meteor_tables.folder(), None
        if self._meteor:
            del self._unavailable['meteor']
        if text == 'transcript':
            self._unavailable = {}
        else:
            try:
                self._encoder = SentenceEncoder(data_dir_of(data_dir))
            except WeightsUnavailable as error:
                self._unavailable['minilm_similarity'] = str(error)
        self.protocol = result.load_protocol(
            self.name,
            data=data,
            where={key: list(value) for key, value in where.items()},
            text=text,
            prompt=self._prompt,
            max_tokens=max_tokens,
            train=train,
            text_sha256=predictors.text_sha256,
            record_ids_sha256=self._ids_sha256,
        )

    def _open(self, where, data_dir: str, limit: int) -> None:
        self._source = records.open_sorted(self._data, data_dir, where)
        usable = plain if self._text == 'transcript' else captions.ptb_words
        texts = [
            [' '.join(text.split()) for text in own if usable(text)]
            for own in records.texts(self._source, self._text)
        ]
        rows = np.flatnonzero([bool(own) for own in texts])
        if len(rows) < 2:
            raise ConfigError(
                f'{self._data} has {len(rows)} records with {self._text} where {dict(where)}; '
                'captioning needs at least 2.'
            )
        self._rows = rows[hearing.spread(self._source.columns['label'][rows], limit)]
        self._references = [texts[row] for row in self._rows]
        self._recordings = [str(r) for r in self._source.columns['recording_id'][self._rows]]
        self._ids_sha256 = records.ids_sha256(self._source, self._rows)

    def run(self, params: Any, extra: Any) -> result.EvalResult:
        """Generates under every condition and scores."""
        heard = hearing.Hearing(self._source, self._rows, self._predictors)
        write = functools.partial(self._write, params, extra)
        everything = np.arange(len(self._rows))
        written = {'model': (everything, write(everything, heard.own))}
        if 'silence' in self._conditions:
            written['silence'] = everything, write(everything, heard.silence)
        if 'shuffled' in self._conditions:
            paired = np.flatnonzero(heard.partner >= 0)
            if len(paired) > 1:
                written['shuffled'] = paired, write(paired, heard.shuffled)
        if self._train:
            commonest = [self._train.commonest] * len(everything)
            written['most_frequent'] = everything, commonest
        if self._two_tower:
            written['retrieved'] = everything, self._nearest[0]
        return self._result(written, heard)

    @functools.cached_property
    def _nearest(self) -> tuple[list[str], str]:
        """The training captions that the two towers find, for every model that is evaluated."""
        return self._train.nearest(self._two_tower, self._source, self._rows)

    def _write(self, params, extra, indices, hear) -> list[str]:
        turns = [(self._prompt, None)]
        asked = [hearing.Asked(functools.partial(hear, i), turns) for i in indices]
        return hearing.answers(self._predictors, params, extra, asked, self._max_tokens)

    def _result(self, written, heard) -> result.EvalResult:
        if self._meteor and self._text != 'transcript':
            texts = [text for _, written_so in written.values() for text in written_so]
            texts += [text for own in self._references for text in own]
            self._tables = captions.meteor_tables(self._meteor, texts)
        _, own = written.pop('model')
        similarity = self._similarities(own, range(len(own)))
        metrics = bootstrap.scored(
            self._statistics(own, range(len(own)), similarity), self._recordings
        )
        if self._text != 'transcript':
            metrics['vocabulary'] = float(captions.vocabulary(own))
        table, baselines = {}, {}
        for name, (indices, texts) in written.items():
            table[name] = self._condition(own, similarity, indices, texts)
            for metric in (m for m in HEADLINES if m in table[name]['metrics']):
                baselines[f'{name}_{metric}'] = table[name]['metrics'][metric]
                for key in (metric, f'{metric}_ci95'):
                    metrics[f'over_{name}_{key}'] = table[name]['difference'][key]
        two_tower = self._nearest[1] if self._two_tower else ''
        options = {**self.protocol['options'], 'two_tower': two_tower}
        return result.EvalResult(
            evaluator=self.name,
            data=self._data,
            n=len(self._rows),
            classes=None,
            protocol={**self.protocol, 'options': options},
            front_end_sha256=self._predictors.front_end_sha256,
            metrics=metrics,
            baselines=baselines,
            tables={
                'conditions': table,
                'unavailable': self._unavailable,
                'references_vocabulary': captions.vocabulary(
                    [text for texts in self._references for text in texts]
                ),
            },
            excluded=len(self._source) - len(self._rows),
            predictions=self._predictions(own, similarity, written, heard),
        )

    def _condition(self, own, similarity, indices, texts) -> dict[str, Any]:
        """Scores of other captions, and of the model minus them, on the clips that have both."""
        theirs = self._statistics(texts, indices, self._similarities(texts, indices))
        ours = self._statistics(
            [own[i] for i in indices], indices, None if similarity is None else similarity[indices]
        )
        ids = [self._recordings[i] for i in indices]
        return {
            'n': len(indices),
            'metrics': bootstrap.scored(theirs, ids),
            'difference': bootstrap.paired(ours, theirs, ids),
        }

    def _similarities(self, texts, indices) -> np.ndarray | None:
        if self._encoder is None:
            return None
        references = [self._references[i] for i in indices]
        return captions.sentence_similarity(texts, references, self._encoder)

    def _statistics(self, texts, indices, similarity) -> captions.Statistics:
        references = [self._references[i] for i in indices]
        if self._text == 'transcript':
            return word_errors(texts, [own[0] for own in references])
        return captions.caption_statistics(texts, references, similarity, self._tables)

    def _predictions(self, own, similarity, written, heard) -> list[dict[str, Any]]:
        ids = [str(i) for i in self._source.columns['id'][self._rows]]
        lines = [
            {
                'id': ids[i],
                'recording_id': self._recordings[i],
                'prompt': self._prompt,
                'references': references,
                'prediction': own[i],
            }
            for i, references in enumerate(self._references)
        ]
        for i, value in enumerate(() if similarity is None else similarity):
            lines[i]['minilm_similarity'] = round(float(value), 4)
        for name, (indices, texts) in written.items():
            for i, text in zip(indices, texts):
                lines[i][name] = text
                if name == 'shuffled':
                    lines[i]['shuffled_with'] = ids[heard.partner[i]]
        return lines


if __name__ == '__main__':
    binary.run(Captioning)
