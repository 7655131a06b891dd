"""Batches for training, a function of (config, data_step); records in order for evaluation."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from ml_collections import ConfigDict

from alm_jax.config import ConfigError
from alm_jax.data import location, plan, pools, sources, transforms

_NEVER_ENDS = 2**40  # grain's range needs an end
Tokenizer = Callable[..., dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of an array, where jax must not be imported; ``jax.eval_shape`` takes it."""

    shape: tuple[int, ...]
    dtype: np.dtype


def batch_spec(config: ConfigDict, *, window_samples: int) -> dict[str, ArraySpec]:
    """The arrays of a global batch.

    A batch has one text length, the longest of config.text.lengths: which shorter one would do
    depends on the captions of all hosts, and of 64 captions the longest nearly always needs it.
    """
    rows, length = config.batch_size, max(config.text.lengths)
    return {
        'pcm': ArraySpec((rows, window_samples), np.dtype(np.int16)),
        'num_samples': ArraySpec((rows,), np.dtype(np.int32)),
        'token_ids': ArraySpec((rows, length), np.dtype(np.int32)),
        'token_mask': ArraySpec((rows, length), np.dtype(np.bool_)),
        'audio_group': ArraySpec((rows,), np.dtype(np.int32)),
        'text_group': ArraySpec((rows,), np.dtype(np.int32)),
    }


def open_mixture(config: ConfigDict) -> tuple[list[sources.Source], plan.Mixture]:
    """The sources of config.data.train and the mixture the plan draws from.

    Raises:
      ConfigError: no dataset named, a dataset that cannot be opened, a weight not above zero.
    """
    entries = [dict(entry) for entry in config.data.train]
    if not entries:
        raise ConfigError("config.data.train is empty; name a dataset: ({'name': ...},).")
    data_dir = location.data_dir(config.data.dir)
    opened = [sources.open_source(entry, data_dir) for entry in entries]
    weights = tuple(float(entry.get('weight', 1.0)) for entry in entries)
    if config.data.temperature:
        sizes = np.array([len(source) for source in opened], float)
        weights = tuple((weights * sizes ** (1 / config.data.temperature)).tolist())
    mixture = plan.Mixture(
        pools=tuple(
            pools.make_pool(
                source,
                windows(config),
                pack=config.data.pack,
                cache_dir=sources.plans_dir(data_dir),
            )
            for source in opened
        ),
        weights=weights,
        schedule=tuple((step, tuple(later)) for step, later in config.data.schedule),
        scene_share=config.data.scenes.share,
        scene_clips=config.data.scenes.max_clips,
    )
    return opened, mixture


def windows(config: ConfigDict) -> tuple[float, ...]:
    """Window lengths in seconds, rising: what a batch may have."""
    return tuple(config.data.buckets) or (config.front_end.seconds,)


@dataclasses.dataclass(frozen=True)
class BatchMaker:
    """data_step -> the batch of one host. Picklable; holds no state."""

    sources: Sequence[sources.Source]
    mixture: plan.Mixture
    transform: transforms.ToWindow
    tokenizer: Tokenizer
    text_length: int
    seed: int
    batch_size: int
    rows: slice

    def __call__(self, data_step: int) -> dict[str, np.ndarray]:
        rows = plan.plan(self.seed, data_step, self.mixture, self.batch_size)[self.rows]
        made = [self._row(row) for row in rows]
        captions = [row.pop('caption') for row in made]
        arrays = {name: np.stack([row[name] for row in made]) for name in made[0]}
        return {**arrays, **self.tokenizer(captions, (self.text_length,))}

    def _row(self, row: plan.Row) -> dict[str, Any]:
        try:
            examples = [self.sources[dataset][index] for dataset, index in row.records]
            return self.transform(examples, row.key)
        except Exception as error:
            names = ', '.join(
                f'{self.sources[d].id(i)!r} of {self.sources[d].name}' for d, i in row.records
            )
            kind = ConfigError if isinstance(error, ConfigError | OSError) else RuntimeError
            raise kind(f'record {names}: {error}') from error


def batches(
    config: ConfigDict,
    *,
    sampling_rate: int,
    window_samples: int,
    tokenizer: Tokenizer,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches from ``start_step`` on, without end, made ahead by threads.

    Batch ``data_step`` depends on nothing but (config, data_step); the hosts' batches, one after
    another, are the batch a single host would get. Closing the iterator stops the threads.

    Args:
      config: see ``alm_jax.config.base``: seed, batch_size, data, text.
      sampling_rate: Hz of the model's front end.
      window_samples: length of a row.
      tokenizer: (captions, lengths) -> {'token_ids': int32 [b, t], 'token_mask': bool [b, t]}.
      start_step: the first data_step.
      process_index, process_count: this host among all.

    Returns:
      {'pcm': int16 [b, n], 'num_samples': int32 [b], 'token_ids', 'token_mask',
      'audio_group': int32 [b], 'text_group': int32 [b]}, b = batch_size / process_count.

    Raises:
      ConfigError: a dataset or setting that cannot be used (at once), or a record that cannot be
        decoded (when its batch is due), named by its id.
    """
    opened, mixture = open_mixture(config)
    make = BatchMaker(
        sources=opened,
        mixture=mixture,
        transform=transforms.ToWindow(sampling_rate, window_samples, config.data.scenes.overlay),
        tokenizer=tokenizer,
        text_length=max(config.text.lengths),
        seed=config.seed,
        batch_size=config.batch_size,
        rows=plan.host_rows(config.batch_size, process_index, process_count),
    )
    read = grain.ReadOptions(
        num_threads=max(1, config.data.workers),
        prefetch_buffer_size=max(config.data.prefetch, config.data.workers),
    )
    steps = grain.MapDataset.range(start_step, _NEVER_ENDS)
    return _until_closed(steps.map(make).to_iter_dataset(read))


def _until_closed(dataset: grain.IterDataset) -> Iterator[dict[str, np.ndarray]]:
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()


def eval_clips(
    source: sources.Source, process_index: int = 0, process_count: int = 1
) -> Iterator[dict[str, Any]]:
    """This host's records: all records by id, dealt round-robin. Read one at a time."""
    for index in source.sorted_indices()[process_index::process_count]:
        yield source[int(index)]
