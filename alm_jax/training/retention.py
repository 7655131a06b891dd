"""Which checkpoints of a run stay: the last, every n-th, the best by a metric, the ends of stages.

What a metric was at a step is read from the workdir's metrics.jsonl, so it is known after a restart
as well. Nothing here needs jax.
"""

import dataclasses
import json
import math
import os
import pathlib
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.training import manifest as manifest_lib


@dataclasses.dataclass(frozen=True)
class Retention:
    """What ``config.checkpoint`` says of it.

    Attributes:
      keep: the last so many, at least 1.
      keep_every: steps that are a multiple of it stay; 0 is none.
      best: a name in metrics.jsonl, such as 'zero_shot_validation/top1', of which the highest value
        stays, or the lowest after a '-'; '' is none.
    """

    keep: int = 2
    keep_every: int = 0
    best: str = ''

    def __post_init__(self):
        if self.keep < 1:
            raise ConfigError(f'config.checkpoint.keep is {self.keep}; it must be at least 1.')
        if self.keep_every < 0:
            raise ConfigError(
                f'config.checkpoint.keep_every is {self.keep_every}; it is a number of steps, or 0.'
            )

    @property
    def metric(self) -> str:
        """``best`` without its sign."""
        return self.best.removeprefix('-')

    def reasons(
        self, manifests: Mapping[int, Mapping[str, Any]], values: Mapping[int, float]
    ) -> dict[int, list[str]]:
        """Why each of these checkpoints stays; those without a reason may go.

        Args:
          manifests: by step.
          values: of the metric, from ``measured``; of steps without checkpoints, too.
        """
        newest = sorted(manifests, reverse=True)
        found: dict[int, list[str]] = {step: [] for step in newest}
        for step in newest[: self.keep]:
            found[step].append('last' if self.keep == 1 else f'last {self.keep}')
        for step in newest:
            if self.keep_every and step and step % self.keep_every == 0:
                found[step].append(f'every {self.keep_every}')
            if manifests[step].get('kept'):
                found[step].append('end of a stage')
        sign = -1 if self.best.startswith('-') else 1
        known = [step for step in newest if step in values]
        if known:
            best = max(known, key=lambda step: (sign * values[step], step))
            found[best].append(f'best {self.metric}, {values[best]:.4g}')
        return found

    def check_name(self, names: Iterable[str]) -> None:
        """Raises ConfigError where ``names``, of which one group is logged, lack the metric.

        Args:
          names: what is logged together, such as 'zero_shot_validation/top1'.
        """
        names = sorted(names)
        group = self.metric.partition('/')[0]
        beside = [name for name in names if name.partition('/')[0] == group]
        if self.metric and beside and self.metric not in beside:
            raise ConfigError(
                f'config.checkpoint.best is {self.best!r}, and {group} has no such value. '
                f'{did_you_mean(self.metric, beside)}'
            )


def measured(workdir: str | os.PathLike, metric: str) -> dict[int, float]:
    """{step: value} of a metric in a workdir's metrics.jsonl; only finite ones."""
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    if not metric or not path.exists():
        return {}
    found = {}
    mark = json.dumps(metric)
    for line in path.read_text(errors='replace').splitlines():
        if mark not in line:  # most lines of a long run
            continue
        try:
            values = json.loads(line)
            step, value = int(values['step']), values[metric]
        except (ValueError, KeyError, TypeError):  # a line that was cut short
            continue
        if isinstance(value, int | float) and math.isfinite(value):
            found[step] = float(value)
    return found


def check(config: Any, evals: Iterable[Mapping[str, Any]]) -> Retention:
    """The retention of a run, as far as it can be known to make sense before the first step.

    Args:
      config: of the run.
      evals: ``config.evals`` of each of its stages.

    Raises:
      ConfigError: a value that is out of its range, or a metric that no checkpoint will have.
    """
    choice = config.checkpoint
    made = Retention(choice.keep, choice.keep_every, choice.best)
    if choice.on_error not in ('stop', 'go_on'):
        raise ConfigError(
            f"config.checkpoint.on_error is {choice.on_error!r}; it is 'stop' or 'go_on'."
        )
    if not made.metric:
        return made
    stages = list(evals)
    group = made.metric.partition('/')[0]
    intervals = {'train': [config.log_every] * len(stages)}
    for entries in stages:
        for name, entry in entries.items():
            intervals.setdefault(name, []).append(int(entry.get('every', 0)))
    if group not in intervals or '/' not in made.metric:
        names = sorted(intervals)
        raise ConfigError(
            f'config.checkpoint.best is {made.best!r}; it begins with the name of an evaluation in '
            f"config.evals, or with train, such as 'train/loss'. {did_you_mean(group, names)}"
        )
    # The end of a stage is measured and saved in any case.
    both = [math.lcm(every, choice.every) for every in intervals[group] if every]
    if len(stages) == 1 and min(both, default=math.inf) > config.steps:
        every = 'log_every' if group == 'train' else f'evals.{group}.every'
        raise ConfigError(
            f'config.checkpoint.best is {made.best!r}, but no step before the last is both '
            f'measured and saved: config.{every} is {intervals[group][0]} and '
            f'config.checkpoint.every is {choice.every}. Make one a multiple of the other.'
        )
    return made


def remove(path: pathlib.Path) -> None:
    """Removes a checkpoint; interrupted, what is left of it counts no more."""
    try:
        (path / manifest_lib.MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)
    except OSError as error:
        print(f'{path} cannot be removed: {error}', file=sys.stderr, flush=True)
