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
from alm_jax import distributed, run_checks, run_setup
from alm_jax.config import ConfigError
from alm_jax.data import bad_records, loader, location
from alm_jax.evals import report, result
from alm_jax.evals.build import build_evaluators, missing
from alm_jax.interop import init_from
from alm_jax.run_setup import say
from alm_jax.training import (
    bad_numbers,
    checkpoint,
    environment,
    goodput,
    lock,
    metrics,
    param_sharding,
    preemption,
    profile,
    retention,
    rollback,
    sharding,
    stages,
    state,
    step,
    step_clock,
    verify_resume,
    watchdog,
)
from alm_jax.training.device_prefetch import DevicePrefetch


def train(
    config: ConfigDict,
    workdir: pathlib.Path,
    profile_steps: int = 0,
    allow_env_change: bool = False,
    signals: preemption.Signals | None = None,
) -> state.TrainState:
    """Trains until ``config.steps``, from wherever ``workdir`` already is.

    Args:
      config: see ``alm_jax.config.base``.
      workdir: made if needed; the layout is that of README, "A workdir".
      profile_steps: 0, or so many steady steps are profiled (see ``training.profile``), after which
        the command ends. It saves no checkpoint for that; the next one repeats the steps.
      allow_env_change: whether a checkpoint of other devices or packages may be gone on from, to
        which bits are not promised (see ``training.environment``).
      signals: what may end the run early; None is nothing.

    Returns:
      The last state.

    Raises:
      ConfigError: whatever the user can mend, before the first step where that can be known.
    """
    # ------------------------------------------------------------------ devices and data
    usage = goodput.Goodput(workdir)
    config_lib.validate(config)
    watch = watchdog.Watchdog(config.watchdog_seconds, workdir)
    judge = bad_numbers.BadNumbers(config.bad_numbers, workdir, say)
    mesh = sharding.make_mesh(config.mesh)
    curriculum = stages.of(config)
    retained = retention.check(config, [stage.config.evals for stage in curriculum])
    run_checks.names(curriculum, mesh)
    found = run_setup.checkpoint_to_continue(config, workdir)
    if not found:
        run_checks.sources(config)
    saved = checkpoint.read_manifest(found) if found else {'step': 0, **stages.entries(config, 0)}
    stages.check_begun(config, saved)
    say(environment.check(saved, found, allow_change=allow_env_change))
    begin = stages.number_at(config, saved['step'])
    left_out = rollback.Rollbacks(workdir, found, config.bad_numbers.max_rollbacks)
    profiled = profile.window(config, saved['step'], profile_steps)
    opened = run_setup.open_data(curriculum)
    scratch = run_setup.parts_from_scratch(config, found)
    say(f'{jax.device_count()} {jax.devices()[0].platform} device(s), mesh {dict(mesh.shape)}')

    # ------------------------------------------------------------------ every stage, as shapes
    prepared, evaluators = [], []
    for stage in curriculum:
        tokenizer = run_setup.make_tokenizer(stage.config, opened, found)
        prepared.append(run_setup.prepare(stage, mesh, tokenizer, scratch))
        with stages.named(stage.name):
            evaluators.append(build_evaluators(stage.config, prepared[-1].task.predictors))
            stages.check_shapes(*(one.planned.params for one in prepared[-2:]))
        trained, frozen = prepared[-1].parameters
        say(f'{stage}: parameters: {trained:,} trained, {frozen:,} frozen')
    run_checks.planned(workdir, config, prepared, saved['step'])

    # ------------------------------------------------------------------ state: the values
    first = prepared[begin]
    if found:
        current = restore(found, first)
    else:
        placed = (first.placement.params, first.placement.extra)
        params, extra = jax.jit(first.init, out_shardings=placed)()
        params, extra, told = init_from.initialise(
            params,
            extra,
            config.init_from,
            location.data_dir(config.data.dir),
            embed_text=run_setup.text_embedder(first.task.predictors),
        )
        say(str(told))
        adamw = first.optimizer
        create = jax.jit(lambda p, e: state.create(p, e, adamw), out_shardings=first.placement)
        current = create(params, extra)
        del params, extra
    first_step = int(current.step)
    judge.restore(saved, left_out.over(int(current.data_step)))
    say(f'state: {found or "init_from" * bool(config.init_from) or "scratch"}')

    # ------------------------------------------------------------------ a workdir that stands alone
    distributed.check_equal('config', config_lib.to_json(config))
    distributed.check_equal('tokenizer', tokenizer.sha256)
    run_setup.write_run_files(workdir, config, prepared)
    with (
        contextlib.closing(watch),
        checkpoint.Checkpointer(
            workdir,
            keep=config.checkpoint.keep,
            keep_every=config.checkpoint.keep_every,
            best=config.checkpoint.best,
            on_error=config.checkpoint.on_error,
            restored_step=first_step,
            mesh=dict(mesh.shape),
            config_sha256=hashlib.sha256(config_lib.to_json(config).encode()).hexdigest(),
        ) as saver,
        metrics.MetricsWriter(workdir, restored_step=first_step) as writer,
        metrics.progress_bar(config.steps, first_step) as bar,
        profile.Profiler(workdir, profiled) as profiler,
    ):
        held, compiled, ended = begin, None, False  # stages of ``current`` and of ``train_step``
        if config.bad_numbers.rollback and not found:
            saver.save(current, **stages.entries(config, begin), **judge.entries())
        if found and found.is_relative_to(workdir.absolute()):
            writer.stage = curriculum[begin].name
            missed = missing(evaluators[begin], workdir, first_step, curriculum[begin].stop)
            with usage.phase('evaluation'):
                evaluate(missed, current, workdir, writer, bar, retained)
        while int(current.step) < config.steps and not ended:
            # ---------------------------------------------------------- a stage: state, step, data
            number = stages.number_at(config, int(current.step) + 1)
            one, stage = prepared[number], curriculum[number]
            current = left_out.skip(current)
            watch.at(int(current.step))
            with watch.phase(goodput.COMPILE), usage.phase(goodput.COMPILE):
                if held != number:
                    current, new = stages.hand_off(
                        current, one.init, one.optimizer, one.planned, one.placement
                    )
                    say('\n'.join(f'  {name} is new and starts from its init' for name in new))
                if compiled != number:
                    jitted = step.make_train_step(
                        one.task,
                        one.optimizer,
                        seed=config.seed,
                        mesh=mesh,
                        placement=one.placement,
                        micro_batches=stage.config.micro_batches,
                    )
                    train_step = step.compile_shapes(jitted, current, one.specs, mesh)
            made = loader.batches(
                stage.config,
                **one.front_end,
                vectors_of_frames=getattr(one.task, 'vectors_of_frames', None),
                tokenizer=one.task.predictors.tokenizer,
                start_step=int(current.data_step),
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                quarantine=workdir / bad_records.file_of(jax.process_index()),
            )
            batches = DevicePrefetch(made, lambda batch: sharding.put_batch(batch, mesh))
            clock = step_clock.StepClock(
                stage.config.batch_size,
                usage,
                watch,
                model_flops=step_clock.model_flops(one.task, one.optimizer, one.planned, one.specs),
                peak_flops=step_clock.peak_flops(jax.devices()),
            )
            judge.begin(current, made.record_ids, new_stage=held != number)
            held = compiled = number
            startup = usage.started(int(current.step))
            say(
                f'compiled for {len(one.specs)} kind(s) of batch in '
                f'{startup["compile_seconds"]:.0f} s, ready after '
                f'{startup["start_up_seconds"]:.0f} s more'
            )
            writer.stage = stage.name
            bar.set_description_str(stage.name, refresh=False)

            # ---------------------------------------------------------- the loop
            spike, until = None, left_out.next_skip(current, stage.stop)
            with contextlib.closing(batches):
                for now in range(int(current.step) + 1, until + 1):
                    if now == profiler.first:
                        profiler.start(current)
                    with jax.profiler.StepTraceAnnotation('train', step_num=now):
                        with clock.waiting():
                            batch = next(batches)
                        current, numbers = train_step(current, batch)
                    clock.stepped(numbers, batch)
                    bar.update()
                    ended = signals is not None and signals.reached()
                    last = ended or now == stage.stop
                    saves = last or now % config.checkpoint.every == 0
                    if spike := judge.look(now, numbers, all_steps=saves or now == until):
                        break
                    if now % config.log_every == 0 or last or startup:
                        scalars = metrics.to_host(numbers)
                        rates, startup = clock.rates() | startup, {}
                        scalars |= {f'train/{name}': rate for name, rate in rates.items()}
                        scalars['train/bad_records'] = distributed.total(made.skipped)
                        retained.check_name(scalars)
                        writer.write(now, scalars)
                        metrics.show(bar, scalars)
                        saver.check()
                    if saves:
                        with clock.excluded('checkpoint'):
                            kept = bool(config.stages) and now == stage.stop
                            told = stages.entries(config, number) | judge.entries()
                            saver.save(current, kept=kept, **told)
                    due = {n: e for n, e in evaluators[number].items() if e.due(now, stage.stop)}
                    if due and not (ended and now < config.steps):  # else when the run goes on
                        with clock.excluded('evaluation'):
                            evaluate(due, current, workdir, writer, bar, retained)
                    if now == profiler.last:
                        with clock.excluded('profile'):
                            page = profiler.stop(current, train_step.programs.values())
                        say(f'\n{page}')
                    ended = ended or (profile_steps > 0 and now == profiler.last)
                    if ended:
                        break
            # ---------------------------------------------------------- back to the last checkpoint
            if spike:
                profiler.close()
                saver.wait()
                del current, numbers
                found = run_setup.checkpoint_to_continue(config, workdir)
                if found is None:  # config.checkpoint.on_error is 'go_on'
                    raise bad_numbers.BadNumbersError(f'{spike} No checkpoint could be saved.')
                saved = checkpoint.read_manifest(found)
                left_out.add(saved['step'], saved['data_step'], spike.data_step + 1, str(spike))
                say(f'Back to step {saved["step"]}, without the batches up to {spike.data_step}.')
                held = stages.number_at(config, saved['step'])
                current = restore(found, prepared[held])
                judge.restore(saved, left_out.over(spike.data_step + 1))
                writer.go_back(saved['step'])
                bar.n = saved['step']
        watch.enter('end')

    # ------------------------------------------------------------------ something to look at
    if jax.process_index() == 0:
        say(f'report: {report.write_report(workdir)}')
    return current


def restore(path: pathlib.Path, one: run_setup.Prepared) -> state.TrainState:
    """The state in a checkpoint of the stage ``one``, on its devices."""
    return checkpoint.restore(path, param_sharding.abstract(one.planned, one.placement))


def evaluate(
    due: dict[str, Any], current: state.TrainState, workdir, writer, bar, retained
) -> None:
    """Runs evaluators on the current parameters; writes their results beside the metrics."""
    now = int(current.step)
    sha256 = checkpoint.checkpoint_sha256(current.params) if due else ''
    for name, scheduled in due.items():
        bar.set_postfix_str(f'evaluating {name}')
        found = scheduled.evaluator.run(current.params, current.extra)
        scalars = {f'{name}/{key}': value for key, value in found.scalars.items()}
        if jax.process_index() == 0:
            result.write(found, workdir, name, now, sha256)
            bar.write(result.table(found, f'{name}, step {now}'), file=sys.stderr)
        writer.write(now, scalars)  # last: what has no line is made up for, see evals.build.missing
        retained.check_name(scalars)


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
    if flags.FLAGS.verify_resume:
        return verify_resume.verify(config, workdir)
    try:
        with distributed.session(), preemption.Signals() as signals:
            first = jax.process_index() == 0
            with lock.held(workdir) if first else contextlib.nullcontext():
                given = flags.FLAGS
                end = train(config, workdir, given.profile_steps, given.allow_env_change, signals)
    except KeyboardInterrupt as interrupt:
        found = checkpoint.latest_complete(workdir)
        whence = f'step {found.name}' if found else 'the start'
        say(f'\nInterrupted. The same command goes on from {whence}.')
        return getattr(interrupt, 'exit_code', 130)
    if signals.heard and int(end.step) < config.steps and not flags.FLAGS.profile_steps:
        number = int(end.step)
        say(f'Ended by {signals.heard.name}. The same command goes on from step {number}.')
        return preemption.exit_code(signals.heard)
    return None


if __name__ == '__main__':
    config_lib.define_config_flag()
    flags.DEFINE_string('workdir', '', 'Folder of the run.')
    flags.DEFINE_string('data', '', 'Train on this folder of audio files instead; see --captions.')
    flags.DEFINE_string('captions', '', 'CSV or JSONL beside --data: columns file, caption.')
    flags.DEFINE_integer('profile_steps', 0, 'Profile so many steady steps and stop.')
    flags.DEFINE_string('data_dir', '', 'Where prepared data lies; default $ALM_JAX_DATA.')
    flags.DEFINE_bool('verify_resume', False, 'See whether it goes on after kill -9 bit for bit.')
    flags.DEFINE_bool('allow_env_change', False, 'Go on under other devices or packages.')
    distributed.define_flags()
    config_lib.run(main)
