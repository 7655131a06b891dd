"""A window of steps under the profiler of JAX, and the page that is made of it.

Under ``<workdir>/profile`` there are afterwards the trace, for ``xprof`` or TensorBoard's profile
plugin (https://openxla.org/xprof), and what is in it of a step, as ``breakdown.txt`` to read and
``breakdown.json`` to compute with. Of several processes each writes its own, under
``profile/process_<index>``.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
from ml_collections import ConfigDict

from alm_jax.config import ConfigError
from alm_jax.training import stages
from alm_jax.training.perf import breakdown, op_scopes, trace

WARM_UP = 3  # steps of a command before those that --profile_steps takes


def window(config: ConfigDict, first_step: int, profile_steps: int = 0) -> tuple[int, int]:
    """The first and the last step to profile; (0, 0) for none.

    Args:
      config: of which ``profile`` counts where ``profile_steps`` is 0.
      first_step: that the state has already.
      profile_steps: how many steady ones, of one stage.

    Raises:
      ConfigError: so few steps are left.
    """
    curriculum = stages.of(config)
    if not profile_steps:
        first, last = tuple(config.profile) or (0, 0)
        if any(first <= stage.stop < last for stage in curriculum):
            raise ConfigError(f'config.profile is {config.profile}; trace steps of one stage.')
        return first, last
    needed = WARM_UP + profile_steps
    for stage in curriculum:
        begin = max(first_step, stage.start)
        if profile_steps > 0 and begin + needed <= stage.stop:
            return begin + WARM_UP + 1, begin + needed
    raise ConfigError(
        f'--profile_steps is {profile_steps}, for which the run must go on to step '
        f'{first_step + needed}, after {WARM_UP} to warm up, within a stage. It is at {first_step} '
        f'of config.steps = {config.steps}: use another --workdir, or more steps.'
    )


class Profiler:
    """Traces the steps ``first`` to ``last``, between ``start`` and ``stop``."""

    def __init__(self, workdir: pathlib.Path, steps: tuple[int, int]):
        self.first, self.last = steps
        self._folder = workdir / 'profile'
        if jax.process_count() > 1:
            self._folder /= f'process_{jax.process_index()}'
        self._open = contextlib.ExitStack()

    def start(self, state: Any) -> None:
        """Before the first step: waits for what runs, the making of ``state``, and traces."""
        jax.block_until_ready(state)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every Python call, which would slow the steps
        jax.profiler.start_trace(str(self._folder), profiler_options=options)
        self._open.callback(jax.profiler.stop_trace)
        self._open.enter_context(jax.profiler.TraceAnnotation(breakdown.WINDOW))

    def stop(self, state: Any, programs: Iterable[jax.stages.Compiled]) -> str:
        """After the last step: waits for ``state``, and writes the trace and its breakdown.

        Args:
          state: what the last step made.
          programs: the kinds of the step.

        Returns:
          The page, or why there is none: a trace that cannot be told apart ends no run.
        """
        jax.block_until_ready(state)
        self.close()
        names = [breakdown.WINDOW, *breakdown.SPANS]
        file = trace.newest(self._folder)
        try:
            found = breakdown.analyse(
                trace.read(file, names),
                [op_scopes.scopes(program.as_text()) for program in programs],
                (self.first, self.last),
            )
        except ValueError as error:
            return f'The trace is {file}; there is no page of it, for {error}'
        text = breakdown.page(found)
        (self._folder / 'breakdown.txt').write_text(text)
        content = json.dumps(dataclasses.asdict(found), indent=1) + '\n'
        (self._folder / 'breakdown.json').write_text(content)
        return text

    def close(self) -> None:
        """Ends a trace that goes on."""
        self._open.close()

    def __enter__(self) -> 'Profiler':
        return self

    def __exit__(self, *exception) -> None:
        self.close()
