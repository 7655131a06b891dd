"""What a model is given to hear of the records of an evaluation, and what it writes about it."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from alm_jax import distributed
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.evals import records
from alm_jax.evals.shuffling import partners

CONDITIONS = ('silence', 'shuffled')
Clips = list[tuple[np.ndarray, int]]  # (int16 [n], Hz)
Turns = list[tuple[str, str | None]]  # (instruction, response), the last response None


class Asked(NamedTuple):
    """What is heard, read when its turn comes, and what is asked about it."""

    clips: Callable[[], Clips]
    turns: Turns


class Hearing:
    """The audio of some records: their own, silence of their length, or another record's.

    Attributes:
      partner: int64 [rows], which of the rows is heard instead where audio is shuffled; -1 is none.
    """

    def __init__(self, source: records.Records, rows: np.ndarray, predictors: Any):
        self._source, self._rows = source, rows
        names = ('duration', 'clips', 'package', 'label', 'id', 'recording_id')
        columns = {name: source.columns[name][rows] for name in names}
        seconds = np.minimum(columns['duration'], getattr(predictors, 'max_seconds', np.inf))
        window = predictors.window_samples / predictors.sampling_rate
        packages = columns['package']
        self.partner = partners(
            seconds,
            np.ceil(seconds / window) + 1e6 * columns['clips'],  # as many clips in as many windows
            np.where(columns['label'] == '', columns['id'], columns['label']),
            packages if len(set(packages) - {''}) > 1 else columns['recording_id'],
        )

    def own(self, index: int) -> Clips:
        """The clips of a row."""
        record = self._source[int(self._rows[index])]
        ends = np.cumsum(record['clip_samples'], dtype=int)[:-1]
        return [(clip, record['rate']) for clip in np.split(record['audio'], ends)]

    def silence(self, index: int) -> Clips:
        """Zeros of the same lengths."""
        return [(np.zeros_like(clip), rate) for clip, rate in self.own(index)]

    def shuffled(self, index: int) -> Clips:
        """The clips of the row's partner."""
        return self.own(int(self.partner[index]))


def answers(
    predictors: Any, params: Any, extra: Any, asked: Sequence[Asked], max_tokens: int
) -> list[str]:
    """What the model writes, in order. Each process asks its share and gets all; all call it."""
    own = asked[jax.process_index() :: jax.process_count()]
    rows = ((one.clips(), one.turns) for one in own)  # read as they are needed
    texts = predictors.generate(params, extra, rows, max_tokens=max_tokens)
    everything = [''] * len(asked)
    parts = distributed.gather_bytes(json.dumps([' '.join(t.split()) for t in texts]).encode())
    for process, part in enumerate(parts):
        everything[process :: len(parts)] = json.loads(part)
    return everything


def checked_conditions(conditions: Sequence[str]) -> tuple[str, ...]:
    """Raises ConfigError for one that is not in CONDITIONS."""
    for name in conditions:
        if name not in CONDITIONS:
            raise ConfigError(f'evals.conditions has {name!r}. {did_you_mean(name, CONDITIONS)}')
    return tuple(conditions)


def checked_generators(predictors: Any) -> Any:
    """``predictors``, or ConfigError for those that write nothing."""
    if not hasattr(predictors, 'generate'):
        raise ConfigError(
            'this model embeds and writes nothing (config.task.name); evaluate it with '
            'alm_jax.evals.retrieval or alm_jax.evals.zero_shot.'
        )
    return predictors


def spread(labels: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` rows (0: all), spread evenly over their ``labels`` [n]; rising."""
    if not most or most >= len(labels):
        return np.arange(len(labels))
    order = np.argsort(labels, kind='stable')
    return np.sort(order[np.linspace(0, len(labels) - 1, most).astype(int)])
