"""The training loop: ``train(config, workdir)``, top to bottom.

  python -m alm_jax.train --config configs/clap/tiny.py --workdir runs/tiny
  python -m alm_jax.train --config configs/clap/tiny.py --workdir runs/mine \
      --data my_folder --captions my.csv

Running the same command again goes on from the newest complete checkpoint.
"""

import contextlib
import hashlib
import pathlib
import sys
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict

from alm_jax import config as config_lib
from alm_jax import distributed, run_setup
from alm_jax.config import ConfigError
from alm_jax.data import bad_records, loader, location
from alm_jax.evals import report, result
from alm_jax.evals.build import build_evaluators
from alm_jax.interop import init_from
from alm_jax.run_setup import say
from alm_jax.tasks import build_task
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
    found = run_setup.checkpoint_to_continue(config, workdir)
    tokenizer = run_setup.make_tokenizer(config, opened, found)
    task = build_task(config, tokenizer=tokenizer, mesh=mesh)
    front_end = {'sampling_rate': task.sampling_rate, 'window_samples': task.window_samples}
    specs = loader.batch_specs(config, **front_end)
    evaluators = build_evaluators(config, task.predictors)
    run_setup.refuse_leaks(config, opened)
    say(f'{jax.device_count()} {jax.devices()[0].platform} device(s), mesh {dict(mesh.shape)}')
    for source, weight in zip(opened, mixture.weights):
        say(f'data: {source.name}, {len(source)} records, weight {weight:g}')

    # ------------------------------------------------------------------ state: shapes, then values
    def init():
        return task.init(jax.random.key(config.seed), specs[-1])

    shapes = jax.eval_shape(init)[0]
    run_setup.train_what_starts_from_scratch(config, found, param_names.flatten_canonical(shapes))
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
    run_setup.write_run_files(workdir, config, task, param_sharding.table(planned, placement))
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


def main(argv: list[str]) -> int | None:
    del argv
    config = flags.FLAGS.config
    if config is None:
        raise ConfigError('give --config FILE[:args], such as configs/clap/tiny.py.')
    if flags.FLAGS.data_dir:
        config.data.dir = flags.FLAGS.data_dir
    if flags.FLAGS.data:
        run_setup.use_own_data(config, flags.FLAGS.data, flags.FLAGS.captions)
    workdir = run_setup.make_workdir(flags.FLAGS.workdir)
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
