"""The evaluators as programs: once on a checkpoint, or on every checkpoint as it appears."""

import inspect
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import flags

from alm_jax import config as config_lib
from alm_jax import distributed
from alm_jax.config import ConfigError
from alm_jax.data.inputs import entries
from alm_jax.evals import answers_page
from alm_jax.evals import result as result_lib
from alm_jax.load import Run, complete_steps, load_run, load_towers
from alm_jax.training import checkpoint, stages


def run(evaluator: type) -> None:
    """Defines the flags of ``python -m alm_jax.evals.<evaluator>`` and runs it.

    Flags are made here and not on import: train.py imports the evaluators and has flags of its own.
    """
    flags.DEFINE_string('workdir', '', 'The run to evaluate.')
    flags.DEFINE_string(
        'checkpoint', '', 'One checkpoint folder, or a pretrained model that writes.'
    )
    flags.DEFINE_integer('step', None, 'Which checkpoint; the newest complete one when not given.')
    flags.DEFINE_string(
        'data', '', 'NAME/config:split; default the test split of the training data.'
    )
    flags.DEFINE_string('data_dir', '', 'Where prepared data lies; default $ALM_JAX_DATA.')
    flags.DEFINE_list('kind', [], 'Kinds of record: sound, instrument, speech. Default sound.')
    flags.DEFINE_multi_string('option', [], 'KEY=VALUE of the evaluator: --option text=transcript.')
    flags.DEFINE_string('name', '', 'Name of the result: evals/NAME/STEP.json.')
    flags.DEFINE_string('out', '', 'Folder for the results; default the workdir.')
    flags.DEFINE_bool('watch', False, 'Evaluate every checkpoint until the run has finished.')
    distributed.define_flags()

    def main(argv: list[str]) -> None:
        del argv
        with distributed.session():
            _main(evaluator, flags.FLAGS)

    config_lib.run(main)


def _main(evaluator: type, given: Any) -> None:
    path = given.checkpoint or given.workdir
    if not path:
        raise ConfigError('give --workdir RUN, or --checkpoint RUN/checkpoints/STEP.')
    name = given.name or '_'.join([evaluator.name, *given.kind])
    evaluate = Evaluation(
        evaluator,
        name,
        data=given.data,
        data_dir=given.data_dir,
        kind=given.kind,
        options=given.option,
        out=given.out,
    )
    if not given.watch:
        evaluate(_loaded(evaluator, path, given.step))
    elif jax.process_count() == 1:
        watch(path, evaluate)
    else:
        raise ConfigError('--watch is for one process, beside the run; start it by itself.')


def _loaded(evaluator: type, path: str, step: int | None) -> Any:
    if jax.process_count() > 1:
        return load_run(*_agreed(path, step))
    return getattr(evaluator, 'load', load_towers)(path, step)


def _agreed(path: str, step: int | None) -> tuple[str, int | None]:
    """Of several processes all take the checkpoint that the first finds; the run may go on."""
    if jax.process_count() == 1:
        return path, step
    return distributed.from_first(lambda: str(checkpoint.resolve(path, step))), None


class Evaluation:
    """One named evaluation of loaded models: writes and prints each result."""

    def __init__(
        self, evaluator: type, name: str, *, data='', data_dir='', kind=(), options=(), out=''
    ):
        self._make, self._name, self._out = evaluator, name, out
        self._data, self._data_dir, self._kind = data, data_dir, list(kind)
        self._given = dict(map(_parsed, options))
        self._evaluator: Any = None
        self._stage: int | None = None  # of the run, that the evaluator is for

    def __call__(self, model: Run) -> result_lib.EvalResult:
        """Evaluates ``model``; the config's entry of this name says what is not given here."""
        out = self._out or model.workdir
        if not out:
            raise ConfigError('give --out DIR: a pretrained model has no workdir.')
        stage = 0 if model.step is None else stages.number_at(model.config, model.step)
        if stage != self._stage:  # else kept, so that the next checkpoint compiles nothing
            self._stage = stage
            self._evaluator = config_lib.call_with(
                self._make,
                self._options(model.config),
                where=f'evals.{self._name}',
                predictors=model.predictors,
            )
        found = self._evaluator.run(model.params, model.extra)
        if jax.process_index() == 0:
            path = result_lib.write(found, out, self._name, model.step, model.checkpoint_sha256)
            where = 'pretrained' if model.step is None else f'step {model.step}'
            print(result_lib.table(found, f'{self._name}, {where}, {found.data}'))
            if found.predictions:
                page = answers_page.write_page(path, self._data_dir or model.config.data.dir)
                print(f'  to listen to and read: {page}')
            print(f'  written to {path}', flush=True)
        return found

    def _options(self, config: config_lib.ConfigDict) -> dict[str, Any]:
        options = result_lib.evaluator_options(config.evals.get(self._name, {}))
        options['data'] = self._data or options.get('data') or _test_split(config)
        options['data_dir'] = self._data_dir or config.data.dir
        if 'train' in inspect.signature(self._make).parameters and config.data.train:
            options.setdefault('train', _training_data(config.data.train[0]))
        if self._kind:
            options['where'] = {'kind': self._kind}
        return options | self._given


def _parsed(option: str) -> tuple[str, Any]:
    """'tags=true' as ('tags', True): a JSON value, else text."""
    key, equals, value = option.partition('=')
    if not equals:
        raise ConfigError(f'--option {option!r}: write KEY=VALUE, such as text=transcript.')
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _training_data(entry: Mapping[str, Any]) -> str:
    """The name of an entry of config.data.train; '' for data of one's own without a split."""
    if entry.get('name'):
        return entry['name']
    return entries.name_of(entry, entry['split']) if entry.get('split') else ''


def _test_split(config: config_lib.ConfigDict) -> str:
    """The test split beside the first dataset or folder the run was trained on."""
    if not config.data.train:
        raise ConfigError('give --data NAME/config:split.')
    return entries.name_of(config.data.train[0], 'test')


def watch(workdir: str, evaluate: Callable[[Run], Any], poll_seconds: float = 5.0) -> None:
    """Evaluates each complete checkpoint, oldest first, up to that of the run's last step.

    A checkpoint that the run deletes before it is read is named and left out. Ctrl-C ends it.
    """
    seen: set[int] = set()
    while True:
        for step in complete_steps(workdir):
            if step in seen:
                continue
            seen.add(step)
            try:
                model = load_run(workdir, step)
            except (ConfigError, OSError):
                if step in complete_steps(workdir):
                    raise
                print(f'step {step} was deleted before it could be read (config.checkpoint.keep).')
                continue
            evaluate(model)
            if step >= model.config.steps:
                return
        time.sleep(poll_seconds)
