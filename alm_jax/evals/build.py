"""The evaluators a config asks for, for use inside the training loop."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax import distributed
from alm_jax.config import ConfigError
from alm_jax.evals.captioning import Captioning
from alm_jax.evals.question_answering import QuestionAnswering
from alm_jax.evals.result import evaluator_options
from alm_jax.evals.retrieval import Retrieval
from alm_jax.evals.zero_shot import ZeroShot
from alm_jax.training import json_lines

EVALUATORS = {
    evaluator.name: evaluator for evaluator in (ZeroShot, Retrieval, Captioning, QuestionAnswering)
}


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """An evaluator, and when: at every ``every``-th step (0 is never) and at the last."""

    every: int
    evaluator: Any

    def due(self, step: int, last_step: int) -> bool:
        """Whether it runs after update ``step``."""
        return step == last_step or (self.every > 0 and step % self.every == 0)


def build_evaluators(config: ConfigDict, predictors: Any) -> dict[str, Scheduled]:
    """Evaluators by the name of their entry in ``config.evals``.

    Raises:
      ConfigError: an unknown evaluator or option, data that is not there; names the key.
    """
    scheduled = {}
    for name, entry in config.evals.items():
        where = f'evals.{name}'
        if 'evaluator' not in entry:
            raise ConfigError(f'config.{where} lacks evaluator: one of {", ".join(EVALUATORS)}.')
        make = config_lib.choose(EVALUATORS, entry['evaluator'], where=f'{where}.evaluator')
        options = {'data_dir': config.data.dir, **evaluator_options(entry)}
        if 'data' not in options:
            raise ConfigError(f'config.{where} lacks data: NAME/config:split.')
        evaluator = config_lib.call_with(make, options, where=where, predictors=predictors)
        scheduled[name] = Scheduled(int(entry.get('every', 0)), evaluator)
    return scheduled


def missing(
    scheduled: Mapping[str, Scheduled], workdir: pathlib.Path, step: int, last_step: int
) -> dict[str, Scheduled]:
    """Those that were due after update ``step``, but the run had ended before they did.

    All processes must call it, and get the same.
    """

    def find() -> str:
        due = [name for name, one in scheduled.items() if step and one.due(step, last_step)]
        lines = json_lines.read(workdir / 'metrics.jsonl') if due else []
        told = {key.split('/')[0] for line in lines if line['step'] == step for key in line}
        return json.dumps([name for name in due if name not in told])

    return {name: scheduled[name] for name in json.loads(distributed.from_first(find))}
