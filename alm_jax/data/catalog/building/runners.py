"""Runs jobs on processes of this machine, or on any Apache Beam runner."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence

from tqdm import tqdm

from alm_jax.config import ConfigError
from alm_jax.data.catalog.building import shards


def run_pool(jobs: Sequence[shards.Job], workers: int, records: int) -> None:
    """Runs ``jobs`` on ``workers`` processes, 0 is one a core that this process may use.

    Ctrl-C, or an error in a job, stops the processes at once: a shard under way is made again next
    time. They also end when this process is killed. One worker is this process itself.

    Args:
      jobs: not finished yet.
      workers: processes.
      records: of all jobs together, for the display of rate and remaining time.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), len(jobs))
    bar = tqdm(total=records, unit=' records', desc=f'Writing, {workers} processes')
    if workers == 1:
        with bar:
            for job in jobs:
                result = shards.write_shard(job)
                bar.update(result['records'] + len(result['unusable']))
        return
    before = set(multiprocessing.active_children())
    context = _context()
    with (
        bar,
        concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=_ready_worker
        ) as pool,
    ):
        futures = [pool.submit(shards.write_shard, job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                result = future.result()
                bar.update(result['records'] + len(result['unusable']))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise


def _context() -> multiprocessing.context.BaseContext:
    """Never a fork of this process, which may have a runtime's threads; a server of forks imports
    what a job needs once for all workers."""
    if 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([shards.__name__])
    return context


def _ready_worker() -> None:
    """A terminal sends Ctrl-C to all: the parent tells of it, and stops the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_beam(jobs: Sequence[shards.Job], runner: str, options: Sequence[str]) -> None:
    """Runs ``jobs`` as a Beam pipeline; all its workers must see the same folders by these names.

    Args:
      jobs: not finished yet.
      runner: 'DirectRunner', 'FlinkRunner', 'DataflowRunner' or another.
      options: of the pipeline, as in ['--direct_num_workers=2'].

    Raises:
      ConfigError: Beam is not installed.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ConfigError(
            f'Apache Beam is not installed ({error}). It needs an older protobuf, so give it an '
            "environment of its own: pip install 'alm_jax[beam]'."
        ) from error
    given = PipelineOptions([f'--runner={runner}', *options])
    with beam.Pipeline(options=given) as pipeline:
        _ = (
            pipeline
            | 'jobs' >> beam.Create(list(jobs))
            | 'spread' >> beam.Reshuffle()
            | 'write' >> beam.Map(shards.write_shard)
        )
