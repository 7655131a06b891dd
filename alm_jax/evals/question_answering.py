"""Question answering: what a model answers about clips, by choice, in a word or freely.

``python -m alm_jax.evals.question_answering --workdir RUN --data NAME/config:split [--watch]``, or
``--checkpoint HF_DIR --data NAME/config:split --out DIR`` for a pretrained model.
The protocol is ``protocols/question_answering.json``.
"""

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.data.location import data_dir as data_dir_of
from alm_jax.evals import binary, hearing, pretrained, questions, records, result
from alm_jax.evals.metrics import answers, bootstrap
from alm_jax.evals.metrics.captions import Statistics, sentence_similarity
from alm_jax.evals.sentence_encoder import SentenceEncoder
from alm_jax.interop.packaged_weights import WeightsUnavailable

_CONFUSED = 20  # closed answers of the table


class QuestionAnswering:
    """The question-answering evaluator."""

    name = 'question_answering'
    load = staticmethod(pretrained.load_model)

    def __init__(
        self,
        predictors: Any,
        *,
        data: str,
        data_dir: str = '',
        where: Mapping[str, Sequence[str]] | None = None,
        choices: int = 0,
        max_tokens: int = 32,
        conditions: Sequence[str] = hearing.CONDITIONS,
        limit: int = 0,
    ):
        """Reads the questions; asks nothing yet.

        Args:
          predictors: ``tasks.generators.Generators``, or what behaves so.
          data: 'NAME/config:split'.
          data_dir: where prepared data lies; '' is the default place.
          where: column -> admitted values; default all, or sounds for questions about labels.
          choices: 2 to 8 asks for the label among so many; 0 asks the records' own questions.
          max_tokens: of an answer.
          conditions: 'silence' and 'shuffled', what is heard instead to see whether it matters.
          limit: at most so many records, spread over the labels; 0 is all.

        Raises:
          ConfigError: fewer than two questions; an option that cannot be.
        """
        if choices and not 2 <= choices <= 8:
            raise ConfigError(f'evals.choices is {choices}; it is 2 to 8, or 0 for own questions.')
        where = ({'kind': ['sound']} if choices else {}) if where is None else where
        self._predictors = hearing.checked_generators(predictors)
        self._conditions = hearing.checked_conditions(conditions)
        self._data, self._max_tokens = data, max_tokens
        self._source = records.open_sorted(data, data_dir, where)
        self._rows, self._asked = self._questions(choices, limit)
        if len(self._asked) < 2:
            raise ConfigError(
                f'{data} has {len(self._asked)} questions where {dict(where)}; at least 2 are '
                'needed. Option choices=4 asks for the labels.'
            )
        columns = self._source.columns
        self._ids = [str(columns['id'][self._rows[q.row]]) for q in self._asked]
        self._recordings = [str(columns['recording_id'][self._rows[q.row]]) for q in self._asked]
        self._unavailable, self._encoder = {}, None
        try:
            self._encoder = SentenceEncoder(data_dir_of(data_dir))
        except WeightsUnavailable as error:
            self._unavailable['minilm_similarity'] = str(error)
        self.protocol = result.load_protocol(
            self.name,
            data=data,
            where={key: list(value) for key, value in where.items()},
            choices=choices,
            max_tokens=max_tokens,
            questions=len(self._asked),
            text_sha256=predictors.text_sha256,
            record_ids_sha256=records.ids_sha256(self._source, self._rows),
        )

    def _questions(self, choices: int, limit: int) -> tuple[np.ndarray, list[questions.Question]]:
        """(rows of the source, questions whose ``row`` is a place among these rows)."""
        labels = self._source.columns['label']
        if choices:
            rows = np.flatnonzero(labels != '')
            rows = rows[hearing.spread(labels[rows], limit)]
            named = [str(label) for label in labels[rows]]
            ids = [str(i) for i in self._source.columns['id'][rows]]
            return rows, list(questions.of_labels(named, ids, choices))
        rows = np.flatnonzero(self._source.columns['num_turns'])
        rows = rows[hearing.spread(labels[rows], limit)]
        asked = [
            question
            for place, row in enumerate(rows)
            for question in questions.of_turns(place, self._source.stored(row)['turns'])
        ]
        return rows, asked

    def run(self, params: Any, extra: Any) -> result.EvalResult:
        """Asks under every condition and scores."""
        heard = hearing.Hearing(self._source, self._rows, self._predictors)
        everything = np.arange(len(self._asked))
        hears = {'model': (everything, heard.own)}
        if 'silence' in self._conditions:
            hears['silence'] = everything, heard.silence
        if 'shuffled' in self._conditions:
            partner = heard.partner[[q.row for q in self._asked]]
            if (partner >= 0).sum() > 1:
                hears['shuffled'] = np.flatnonzero(partner >= 0), heard.shuffled
        written = {
            name: (indices, self._write(params, extra, indices, hear))
            for name, (indices, hear) in hears.items()
        }
        _, own = written.pop('model')
        metrics = bootstrap.scored(self._statistics(own, everything), self._recordings)
        table, baselines = {}, self._guesses()
        for name, (indices, texts) in written.items():
            table[name] = self._condition(own, indices, texts)
            baselines[f'{name}_accuracy'] = table[name]['metrics']['accuracy']
            for key in ('accuracy', 'accuracy_ci95'):
                metrics[f'over_{name}_{key}'] = table[name]['difference'][key]
        return result.EvalResult(
            evaluator=self.name,
            data=self._data,
            n=len(self._rows),
            classes=None,
            protocol=self.protocol,
            front_end_sha256=self._predictors.front_end_sha256,
            metrics=metrics,
            baselines=baselines,
            tables={
                'conditions': table,
                'per_task': self._per_task(own, written),
                'closed_answers': self._closed_answers(own),
                'unavailable': self._unavailable,
            },
            excluded=len(self._source) - len(self._rows),
            predictions=self._predictions(own, written),
        )

    def _write(self, params, extra, indices, hear) -> list[str]:
        asked = []
        for question in (self._asked[i] for i in indices):
            turns = [*question.history, (question.text, None)]
            asked.append(hearing.Asked(functools.partial(hear, question.row), turns))
        return hearing.answers(self._predictors, params, extra, asked, self._max_tokens)

    def _statistics(self, texts: Sequence[str], indices: Sequence[int]) -> Statistics:
        """``accuracy`` of all; of each task that occurs its own; see the protocol."""
        asked = [self._asked[i] for i in indices]
        right = np.array([_is_right(q, text) for q, text in zip(asked, texts)], np.float64)
        tasks = np.array([q.task for q in asked])
        values = {'accuracy': (right, np.ones(len(asked), bool))}
        for task in (t for t in questions.TASKS if t in tasks):
            values[f'{task}_accuracy'] = right, tasks == task
        if 'choice' in tasks:
            listed = tasks == 'choice'
            parsed = [answers.chosen(t, q.choices) is not None for q, t in zip(asked, texts)]
            values['parse_rate'] = np.array(parsed, np.float64), listed
            official = [
                q.right is not None and answers.mmau_match(t, q.choices[q.right], q.choices)
                for q, t in zip(asked, texts)
            ]
            values['mmau_accuracy'] = np.array(official, np.float64), listed
        if self._encoder is not None:
            references = [q.answers for q in asked]
            similar = sentence_similarity(texts, references, self._encoder)
            values['minilm_similarity'] = similar, np.ones(len(asked), bool)

        def statistics(weights):
            return {
                name: bootstrap.weighted_mean(value, weights * counts)
                for name, (value, counts) in values.items()
            }

        return statistics

    def _condition(self, own, indices, texts) -> dict[str, Any]:
        """Scores of other answers, and of the model minus them, on the questions that have both."""
        theirs = self._statistics(texts, indices)
        ours = self._statistics([own[i] for i in indices], indices)
        ids = [self._recordings[i] for i in indices]
        return {
            'n': len(indices),
            'metrics': bootstrap.scored(theirs, ids),
            'difference': bootstrap.paired(ours, theirs, ids),
        }

    def _guesses(self) -> dict[str, float]:
        """Chance among listed choices, and the commonest answer of each task as the only one."""
        found = {}
        for task in questions.TASKS:
            asked = [q for q in self._asked if q.task == task]
            if task == 'choice' and asked:
                found['chance_choice_accuracy'] = float(
                    np.mean([1 / len(q.choices) for q in asked])
                )
            elif asked:
                said = collections.Counter(answers.normal(q.answers[0]) for q in asked)
                commonest = max(sorted(said), key=said.get)
                right = [answers.is_answer(commonest, q.answers) for q in asked]
                found[f'commonest_{task}_accuracy'] = float(np.mean(right))
        return found

    def _per_task(self, own, written) -> list[dict[str, Any]]:
        rows = []
        for task in questions.TASKS:
            indices = [i for i, question in enumerate(self._asked) if question.task == task]
            if not indices:
                continue
            row = {'task': task, 'questions': len(indices)}
            row['accuracy'] = self._share_right({i: own[i] for i in indices})
            for name, (asked, texts) in written.items():
                among = {i: text for i, text in zip(asked, texts) if i in set(indices)}
                if among:
                    row[f'{name}_accuracy'] = self._share_right(among)
            rows.append(row)
        return rows

    def _share_right(self, texts: Mapping[int, str]) -> float:
        return float(np.mean([_is_right(self._asked[i], text) for i, text in texts.items()]))

    def _closed_answers(self, own) -> dict[str, Any]:
        """Counts of answers (columns, the last is any other) by reference, of the commonest."""
        pairs = [
            (
                answers.normal(q.answers[0]) if q.right is None else q.choices[q.right],
                _said(q, text),
            )
            for q, text in zip(self._asked, own)
            if q.task != 'open'
        ]
        common = [
            name for name, _ in collections.Counter(r for r, _ in pairs).most_common(_CONFUSED)
        ]
        counts = np.zeros((len(common), len(common) + 1), np.int64)
        for reference, said in pairs:
            if reference in common:
                place = common.index(said) if said in common else len(common)
                counts[common.index(reference), place] += 1
        if not common:
            return {}
        return {'references': common, 'answers': [*common, 'other'], 'counts': counts.tolist()}

    def _predictions(self, own, written) -> list[dict[str, Any]]:
        lines = []
        for i, question in enumerate(self._asked):
            line = {
                'id': self._ids[i],
                'recording_id': self._recordings[i],
                'task': question.task,
                'history': question.history,
                'prompt': question.text,
                'references': list(question.answers),
                'prediction': own[i],
                'correct': _is_right(question, own[i]),
            }
            if question.choices:
                line['choices'] = list(question.choices)
                line['chosen'] = answers.chosen(own[i], question.choices)
            lines.append(line)
        for name, (indices, texts) in written.items():
            for i, text in zip(indices, texts):
                lines[i][name] = text
        return lines


def _is_right(question: questions.Question, text: str) -> bool:
    if question.choices:
        return answers.chosen(text, question.choices) == question.right
    return answers.is_answer(text, question.answers)


def _said(question: questions.Question, text: str) -> str:
    """The answer as the table of closed answers has it."""
    if not question.choices:
        return answers.normal(text)
    place = answers.chosen(text, question.choices)
    return '' if place is None else question.choices[place]


if __name__ == '__main__':
    binary.run(QuestionAnswering)
