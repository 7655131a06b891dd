"""Batches for training, a function of (config, data_step); records in order for evaluation."""

import dataclasses
import os
import pathlib
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import (
    dialogue_packs,
    dialogue_rows,
    location,
    packing,
    plan,
    pools,
    sources,
    transforms,
    workers,
)
from alm_jax.data.bad_records import POLICIES, BadRecord, BadRecords
from alm_jax.data.batch_maker import BatchMaker
from alm_jax.data.batch_text import Tokenizer
from alm_jax.text.language_tokenizer import LanguageTokenizer

_SEGMENT_ARRAYS = ('segment_start', 'segment_samples')
_NEVER_ENDS = 2**40  # grain's range needs an end


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of an array, where jax must not be imported; ``jax.eval_shape`` takes it."""

    shape: tuple[int, ...]
    dtype: np.dtype


def batch_spec(config: ConfigDict, *, window_samples: int) -> dict[str, ArraySpec]:
    """The arrays of a global batch of one window length.

    A batch has one text length, the longest of config.text.lengths: which shorter one would do
    depends on the captions of all hosts, and of 64 captions the longest nearly always needs it.
    """
    if config.data.text.dialogue:
        return _dialogue_spec(config, window_samples)
    rows, data = config.batch_size, config.data
    segments = (packing.MAX_CLIPS,) * bool(data.pack)
    clips = (data.max_clips,) * (data.max_clips > 1 and not data.pack)
    negatives = data.text.hard_negatives

    def integers(*shape: int) -> ArraySpec:
        return ArraySpec((rows, *shape), np.dtype(np.int32))

    def tokens(prefix: str, *shape: int) -> dict[str, ArraySpec]:
        shape = (*shape, max(config.text.lengths))
        mask = ArraySpec((rows, *shape), np.dtype(np.bool_))
        return {f'{prefix}token_ids': integers(*shape), f'{prefix}token_mask': mask}

    return {
        'pcm': ArraySpec((rows, *clips, window_samples), np.dtype(np.int16)),
        'num_samples': integers(*clips),
        'audio_group': integers(*segments),
        'text_group': integers(*segments),
        **tokens('', *segments),
        **(tokens('negative_', *segments, negatives) if negatives else {}),
        **(tokens('prompt_') if data.text.instruction else {}),
        **(
            {n: integers(*segments) for n in ('segment_start', 'segment_samples')}
            if segments
            else {}
        ),
    }


def _dialogue_spec(config: ConfigDict, window_samples: int) -> dict[str, ArraySpec]:
    rows, clips, length = config.batch_size, config.data.max_clips, max(config.text.lengths)
    shapes = {
        'pcm': ((clips, window_samples), np.int16),
        'num_samples': ((clips,), np.int32),
        'token_ids': ((length,), np.int32),
        'segments': ((length,), np.int32),
        'loss_mask': ((length,), np.bool_),
        'audio_group': ((), np.int32),
        'text_group': ((), np.int32),
    }
    return {
        name: ArraySpec((rows, *shape), np.dtype(kind)) for name, (shape, kind) in shapes.items()
    }


def batch_specs(
    config: ConfigDict, *, sampling_rate: int, window_samples: int
) -> list[dict[str, ArraySpec]]:
    """The arrays of every kind of batch that will come, one a window length."""
    lengths = window_lengths(config, sampling_rate, window_samples)
    return [batch_spec(config, window_samples=length) for length in lengths]


def window_lengths(config: ConfigDict, sampling_rate: int, window_samples: int) -> tuple[int, ...]:
    """Samples of each window of the plan: config.data.buckets, else ``window_samples`` alone."""
    seconds = tuple(config.data.buckets)
    return tuple(round(s * sampling_rate) for s in seconds) or (window_samples,)


def open_mixture(
    config: ConfigDict, dialogues: dialogue_rows.ToDialogues | None = None
) -> tuple[list[sources.Source], plan.Mixture]:
    """The sources of config.data.train and the mixture the plan draws from.

    Args:
      config: see ``alm_jax.config.base``.
      dialogues: makes the rows, from which those that hold several dialogues are planned; without
        it they hold one.

    Raises:
      ConfigError: no dataset named, a dataset that cannot be opened, a weight not above zero.
    """
    if config.data.pack and config.data.scenes.share:
        raise ConfigError('config.data.pack and config.data.scenes.share exclude each other.')
    entries = [dict(entry) for entry in config.data.train]
    if not entries:
        raise ConfigError("config.data.train is empty; name a dataset: ({'name': ...},).")
    data_dir = location.data_dir(config.data.dir)
    share = bad_share(config)
    opened = [sources.open_source(entry, data_dir, max_bad_share=share) for entry in entries]
    weights = tuple(float(entry.get('weight', 1.0)) for entry in entries)
    if config.data.temperature:
        sizes = np.array([len(source) for source in opened], float)
        weights = tuple((weights * sizes ** (1 / config.data.temperature)).tolist())
    mixture = plan.Mixture(
        pools=tuple(_pool(config, source, data_dir, dialogues) for source in opened),
        weights=weights,
        schedule=tuple((step, tuple(later)) for step, later in config.data.schedule),
        scene_share=config.data.scenes.share,
        scene_clips=config.data.scenes.max_clips,
        noises=_size(open_effect(config, 'noise')),
        noise_share=config.data.noise.share,
        impulses=_size(open_effect(config, 'reverb')),
        impulse_share=config.data.reverb.share,
    )
    return opened, mixture


def _pool(
    config: ConfigDict,
    source: sources.Source,
    data_dir: pathlib.Path,
    dialogues: dialogue_rows.ToDialogues | None,
) -> pools.Pool:
    plans = sources.plans_dir(data_dir)
    packs_clips = config.data.pack and not config.data.text.dialogue
    pool = pools.make_pool(source, windows(config), pack=packs_clips, cache_dir=plans)
    if not config.data.pack or packs_clips or dialogues is None:
        return pool
    if len(pool.sizes) > 1:
        raise ConfigError('config.data.pack fills rows of one window; leave data.buckets empty.')
    return dialogue_packs.make_pool(source, dialogues, plans)


def open_effect(config: ConfigDict, kind: str) -> sources.Source | None:
    """The recordings of config.data.noise or config.data.reverb, None when no row gets one.

    Raises:
      ConfigError: a share without a dataset, or out of 0 to 1.
    """
    effect = config.data[kind]
    if not 0 <= effect.share <= 1:
        raise ConfigError(f'config.data.{kind}.share is {effect.share}; it is 0 to 1.')
    if not effect.share:
        return None
    if not effect.name:
        raise ConfigError(f'config.data.{kind}.share is {effect.share}, but {kind}.name is empty.')
    data_dir = location.data_dir(config.data.dir)
    return sources.open_source(effect.name, data_dir, max_bad_share=bad_share(config))


def bad_share(config: ConfigDict) -> float:
    """What of a dataset may be unusable. Raises ConfigError: config.data.on_bad is no policy."""
    if config.data.on_bad not in POLICIES:
        raise ConfigError(
            f'config.data.on_bad is {config.data.on_bad!r}. '
            f'{did_you_mean(config.data.on_bad, POLICIES)}'
        )
    return config.data.max_bad_share if config.data.on_bad == 'skip' else 0.0


def _size(source: sources.Source | None) -> int:
    return 0 if source is None else len(source)


def windows(config: ConfigDict) -> tuple[float, ...]:
    """Window lengths in seconds, rising: what a batch may have."""
    return tuple(config.data.buckets) or (config.front_end.seconds,)


class Batches(Iterator):
    """The batches of one host, from some step on, without end.

    Attributes:
      bad_records: what was read and skipped so far (``bad_records.BadRecords``).
      record_ids: data_step -> ids that the plan has for this batch on all hosts, by dataset.
    """

    def __init__(
        self,
        made: Iterator[tuple[dict[str, np.ndarray], int, list]],
        bad: BadRecords,
        record_ids: Callable[[int], dict[str, list[str]]],
    ):
        """Use ``batches``. ``made`` yields (batch, records read, bad records) and can be closed."""
        self.bad_records, self.record_ids = bad, record_ids
        self._made = made

    @property
    def skipped(self) -> int:
        """Records that could not be used, so far."""
        return self.bad_records.skipped

    def __next__(self) -> dict[str, np.ndarray]:
        batch, read, bad = next(self._made)
        try:
            self.bad_records.add(read, bad)
        except ConfigError:
            self.close()
            raise
        return batch

    def close(self) -> None:
        """Ends the workers or threads. Batches handed out stay valid."""
        self._made.close()


def batches(
    config: ConfigDict,
    *,
    sampling_rate: int,
    window_samples: int,
    tokenizer: Tokenizer | LanguageTokenizer,
    vectors_of_frames: np.ndarray | None = None,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    quarantine: str | os.PathLike | None = None,
) -> Batches:
    """Batches from ``start_step`` on, without end, made ahead by config.data.workers processes.

    Batch ``data_step`` depends on nothing but (config, data_step); the hosts' batches, one after
    another, are the batch a single host would get. With no workers, threads make them.

    Args:
      config: see ``alm_jax.config.base``: seed, batch_size, data, text.
      sampling_rate: Hz of the model's front end.
      window_samples: length of a row, when config.data.buckets names no others.
      tokenizer: (captions, lengths) -> {'token_ids': int32 [b, t], 'token_mask': bool [b, t]}; with
        config.data.text.dialogue that of a language model.
      vectors_of_frames: int32 [frames + 1], vectors of audio that the language model gets of a clip
        of so many frames; for dialogues.
      start_step: the first data_step.
      process_index, process_count: this host among all.
      quarantine: a JSONL file to which records that cannot be used are added; None is none.

    Returns:
      An iterator, to be closed, over the arrays of ``batch_spec`` with batch_size / process_count
      rows. Arrays of workers lie in shared memory, which is used again when the last reference to a
      batch is gone.

    Raises:
      ConfigError: a dataset or setting that cannot be used (at once); or, when its batch is due, a
        record that cannot be read or not be used, too many of them, or a worker that died.
    """
    dialogues = None
    if config.data.text.dialogue:
        dialogues = dialogue_rows.build(
            config,
            sampling_rate=sampling_rate,
            window_samples=window_samples,
            tokenizer=tokenizer,
            vectors_of_frames=vectors_of_frames,
        )
    opened, mixture = open_mixture(config, dialogues)
    if config.data.workers < 0 or config.data.prefetch < 1:
        raise ConfigError(
            f'config.data.workers is {config.data.workers} (0 or more) and config.data.prefetch is '
            f'{config.data.prefetch} (1 or more).'
        )
    make = BatchMaker(
        sources=opened,
        mixture=mixture,
        transform=dialogues or transforms.build(config, sampling_rate, window_samples),
        window_samples=window_lengths(config, sampling_rate, window_samples),
        tokenizer=tokenizer,
        text_length=max(config.text.lengths),
        seed=config.seed,
        batch_size=config.batch_size,
        rows=plan.host_rows(config.batch_size, process_index, process_count),
        on_bad=config.data.on_bad,
        negatives=config.data.text.hard_negatives,
        noises=open_effect(config, 'noise'),
        impulses=open_effect(config, 'reverb'),
    )
    bad = BadRecords(config.data.max_bad_share, quarantine)
    for source in (*opened, make.noises, make.impulses):
        if source and source.left_out and process_index == 0:  # all hosts find the same
            bad.leave_out(source.name, source.left_out)
    if not config.data.workers:
        return Batches(_Threads(make, config.data.prefetch, start_step), bad, make.record_ids)
    made = workers.Workers(
        make, config.data.workers, ahead=config.data.prefetch, first_step=start_step
    )
    return Batches(made, bad, make.record_ids)


class _Threads(Iterator):
    """What ``Workers`` gives, from threads of this process: one a core, as far as there is work."""

    def __init__(self, make: BatchMaker, ahead: int, first_step: int):
        import grain  # takes a second, and jax with it: workers do without

        def made(data_step: int) -> tuple[dict[str, np.ndarray], int, list[BadRecord]]:
            batch, found = make.whole(data_step)
            return batch, found.read, found.bad

        threads = min(ahead, os.cpu_count() or 1)
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        steps = grain.MapDataset.range(first_step, _NEVER_ENDS)
        iterator = iter(steps.map(made).to_iter_dataset(read))
        self._iterator, self._lock = iterator, threading.Lock()
        self._stop = weakref.finalize(self, iterator.close)

    def __next__(self) -> tuple[dict[str, np.ndarray], int, list[BadRecord]]:
        with self._lock:
            if not self._stop.alive:
                raise StopIteration
            return next(self._iterator)

    def close(self) -> None:
        """Ends the threads, when the batch that another thread waits for is made."""
        with self._lock:
            self._stop()


def eval_clips(
    source: sources.Source, process_index: int = 0, process_count: int = 1
) -> Iterator[dict[str, Any]]:
    """This host's records: all records by id, dealt round-robin. Read one at a time."""
    for index in source.sorted_indices()[process_index::process_count]:
        yield source[int(index)]
