"""What a config's batches will be, without a model: mixture, lengths, padding, texts, speed.

python -m alm_jax.data dry_run --config configs/clap/tiny.py --steps 1000
"""

import collections
import copy
import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from alm_jax import config as config_lib
from alm_jax.audio import presets
from alm_jax.data import dialogue_rows, dry_run_dialogues, loader, location, plan, sources
from alm_jax.data.dry_run_dialogues import Sequences
from alm_jax.text.tokenizer import Tokenizer

_REASONS = 5  # of skipped records that are printed
_PERCENTILES = (5, 50, 95, 100)


@dataclasses.dataclass(frozen=True)
class Words:
    """Stands in for a tokenizer that is not here: a token a word."""

    def __call__(self, texts: Sequence[str], lengths: Sequence[int]) -> dict[str, np.ndarray]:
        """'token_ids' (zeros) int32 and 'token_mask' bool, both [b, longest of ``lengths``]."""
        counts = np.array([len(text.split()) for text in texts])
        mask = np.arange(max(lengths)) < counts[:, None]
        return {'token_ids': np.zeros(mask.shape, np.int32), 'token_mask': mask}


@dataclasses.dataclass
class Batches:
    """What was counted over batches.

    Attributes:
      rows: of all batches.
      windows: samples of a row -> batches.
      samples, filled: of all rows, and those before the padding.
      tokens: tokens of a text -> texts.
      full: texts that take every place.
      dialogues: what rows of dialogues hold instead of texts.
      first: seconds until the first batch.
      seconds: from the first batch to the last.
    """

    rows: int = 0
    windows: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    samples: int = 0
    filled: int = 0
    tokens: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    full: int = 0
    dialogues: Sequences = dataclasses.field(default_factory=Sequences)
    first: float = 0.0
    seconds: float = 0.0

    def add(self, batch: dict[str, np.ndarray]) -> None:
        """Counts one batch, of whatever shapes: rows first."""
        pcm = batch['pcm']
        self.rows += len(pcm)
        self.windows[pcm.shape[-1]] += 1
        self.samples += pcm.size
        self.filled += int(batch['num_samples'].sum())
        if 'segments' in batch:
            self.dialogues.add(batch)
            return
        mask = batch['token_mask']
        lengths = mask.sum(axis=-1).ravel()
        lengths = lengths[lengths > 0]  # places for texts that a row does not have
        self.tokens.update(lengths.tolist())
        self.full += int(np.count_nonzero(lengths == mask.shape[-1]))


@dataclasses.dataclass
class Planned:
    """What the plan of the same batches says.

    Attributes:
      names: of the datasets.
      sizes: their records.
      units: their records or packs, each of which comes once an epoch.
      asked: shares of the rows, over the steps of the schedule.
      rows: of each.
      records: of all rows.
      seconds: float32, of each record.
      cropped: records longer than the window of their row.
      lost: seconds that do not fit.
    """

    names: list[str]
    sizes: list[int]
    units: list[int]
    asked: np.ndarray
    rows: np.ndarray
    records: int
    seconds: np.ndarray
    cropped: int
    lost: float


def dry_run(config: ConfigDict, steps: int, vectors_a_second: float = 25.0) -> str:
    """Makes ``steps`` batches of a config and says what they are.

    A record that cannot be used is counted with its reason, however many there are.

    Args:
      config: see ``alm_jax.config.base``.
      steps: batches.
      vectors_a_second: how many a model gets of audio, in rows of dialogues: no model is built, so
        it is not known here.

    Raises:
      ConfigError: whatever the user can mend.
    """
    config_lib.validate(config)
    share = config.data.max_bad_share
    config = copy.deepcopy(config)
    config.data.max_bad_share = 1.0
    front_end = config_lib.choose(
        presets.PRESETS, config.front_end.preset, where='front_end.preset'
    )
    options = {
        'sampling_rate': front_end.sampling_rate,
        'window_samples': round(config.front_end.seconds * front_end.sampling_rate),
    }
    opened, mixture = loader.open_mixture(config)
    if config.data.text.dialogue:
        tokenizer, counted = dry_run_dialogues.tokenizer(config, _captions(opened))
        longest = max(loader.window_lengths(config, **options))
        table = dry_run_dialogues.vectors_of_frames(front_end, longest, vectors_a_second)
        options |= {'tokenizer': tokenizer, 'vectors_of_frames': table}
        opened, mixture = loader.open_mixture(config, dialogue_rows.build(config, **options))
    else:
        tokenizer, counted = _tokenizer(config)
        options['tokenizer'] = tokenizer
    with tempfile.TemporaryDirectory() as folder:
        bad = pathlib.Path(folder, 'bad.jsonl')
        batches, read, skipped = _batches(config, steps, options, bad)
        reasons = _reasons(bad)
    planned = _planned(config, steps, opened, mixture)
    if config.data.text.dialogue:
        texts = batches.dialogues.lines(tokenizer, counted, vectors_a_second)
    else:
        texts = _text_lines(batches, counted)
    lines = [
        f'{config.name or "this config"}: {steps} batches of {config.batch_size} rows, no model.',
        '',
        *_mixture_lines(planned),
        '',
        *_length_lines(batches, planned, front_end.sampling_rate),
        *texts,
        *_skipped_lines(share, opened, read, skipped, reasons),
        *_speed_lines(config, batches, planned),
    ]
    return '\n'.join(lines) + '\n'


def _batches(
    config: ConfigDict, steps: int, options: Mapping[str, Any], bad: pathlib.Path
) -> tuple[Batches, int, int]:
    """(what the batches are, records read, records skipped)."""
    seen = Batches()
    began = time.perf_counter()
    made = loader.batches(config, **options, quarantine=bad)
    try:
        with tqdm(total=steps, desc='Batches', unit='batch', disable=None) as bar:
            for number in range(steps):
                seen.add(next(made))
                if not number:
                    seen.first = time.perf_counter() - began
                bar.update()
        seen.seconds = time.perf_counter() - began - seen.first
        return seen, made.bad_records.read, made.bad_records.skipped
    finally:
        made.close()


def _planned(
    config: ConfigDict, steps: int, opened: Sequence[sources.Source], mixture: plan.Mixture
) -> Planned:
    windows = loader.windows(config)
    rows_of = np.zeros(len(opened), np.int64)
    records = cropped = 0
    lost, lengths = 0.0, []
    for step in range(steps):
        rows = plan.plan(config.seed, step, mixture, config.batch_size)
        for dataset, count in collections.Counter(row.records[0][0] for row in rows).items():
            rows_of[dataset] += count
        wanted = collections.defaultdict(list)
        for row in rows:
            records += len(row.records)
            for dataset, index in row.records:
                wanted[dataset].append(opened[dataset].row(index))
        window = windows[min(rows[0].window, len(windows) - 1)] * config.data.max_windows
        for dataset, numbers in wanted.items():
            seconds = opened[dataset].index.numpy('duration', np.array(numbers))
            cropped += int(np.count_nonzero(seconds > window))
            lost += float(np.maximum(seconds - window, 0).sum())
            lengths.append(seconds)
    return Planned(
        names=[_name(source, entry) for source, entry in zip(opened, config.data.train)],
        sizes=[len(source) for source in opened],
        units=[len(pool) for pool in mixture.pools],
        asked=_asked(mixture, steps),
        rows=rows_of,
        records=records,
        seconds=np.concatenate(lengths),
        cropped=cropped,
        lost=lost,
    )


def _name(source: sources.Source, entry: Mapping) -> str:
    """The name of a dataset, with what of it was asked for."""
    where = config_lib.plain(entry.get('where') or {})
    return source.name + f' {where}' * bool(where)


def _asked(mixture: plan.Mixture, steps: int) -> np.ndarray:
    """Shares of the rows that the weights ask for, over ``steps`` steps."""
    pieces = mixture.scheduled_weights()
    starts = [min(start, steps) for start, _ in pieces] + [steps]
    shares = [np.array(weights) / sum(weights) for _, weights in pieces]
    return np.average(shares, axis=0, weights=np.diff(starts))


def _tokenizer(config: ConfigDict) -> tuple[Tokenizer | Words, str]:
    """The tokenizer, and what it counts. That of a package only where it has been fetched."""
    name, lengths = config.text.tokenizer, config.text.lengths
    if name.startswith('packaged:'):
        package = name.removeprefix('packaged:')
        folder = location.data_dir(config.data.dir) / 'weights' / package
        if not (folder / 'tokenizer.json').is_file():
            return Words(), f'words: {name} is not fetched (python -m alm_jax.prepare weights)'
        return Tokenizer.load(folder, lengths), f'tokens of {name}'
    return Tokenizer.load(name, lengths), f'tokens of {name}'


def _reasons(bad: pathlib.Path) -> list[tuple[str, str, str]]:
    """(dataset, id, reason) of every bad record, once."""
    if not bad.exists():
        return []
    lines = map(json.loads, bad.read_text(encoding='utf-8').splitlines())
    return [(line['dataset'], line['id'], line['reason']) for line in lines]


def _captions(opened: Sequence[sources.Source]) -> Iterator[str]:
    return (text for source in opened for i in range(len(source)) for text in source[i]['captions'])


def _mixture_lines(planned: Planned) -> list[str]:
    met = planned.rows / planned.rows.sum()
    width = max(len('dataset'), *map(len, planned.names))
    lines = [f'{"dataset":{width}}   asked     met        rows     records   epochs']
    columns = planned.names, planned.sizes, planned.units, planned.asked, met, planned.rows.tolist()
    for name, size, units, asked, share, rows in zip(*columns):
        counts = f'{rows:10,}  {size:10,}  {rows / units:7.2f}'
        lines.append(f'{name:{width}}  {asked:6.1%}  {share:6.1%}  {counts}')
    a_row = planned.records / planned.rows.sum()
    if a_row > 1:
        lines.append(f'A row holds {a_row:.2f} records on average (scenes, packs).')
    return lines


def _length_lines(batches: Batches, planned: Planned, rate: int) -> list[str]:
    low, middle, high, longest = np.percentile(planned.seconds, _PERCENTILES)
    total = float(planned.seconds.sum())
    windows = ', '.join(
        f'{samples / rate:g} s ({count} batches)'
        for samples, count in sorted(batches.windows.items())
    )
    return [
        f'lengths   {low:.2f} to {high:.2f} s (5 to 95 %), median {middle:.2f} s, longest '
        f'{longest:.2f} s',
        f'windows   {windows}',
        f'padding   {1 - batches.filled / batches.samples:.1%} of the samples',
        f'cropped   {planned.cropped / planned.records:.1%} of the records, '
        f'{planned.lost / total:.1%} of their seconds',
    ]


def _text_lines(batches: Batches, counted: str) -> list[str]:
    values = np.repeat(*map(np.array, zip(*sorted(batches.tokens.items()))))
    low, middle, high, longest = np.percentile(values, _PERCENTILES, method='nearest')
    return [
        f'texts     {low} to {high} {counted} (5 to 95 %), median {middle}, longest {longest}; '
        f'{batches.full / len(values):.1%} fill every place or are cut'
    ]


def _skipped_lines(
    share: float,
    opened: Sequence[sources.Source],
    read: int,
    skipped: int,
    reasons: list[tuple[str, str, str]],
) -> list[str]:
    left_out = [source.left_out for source in opened if source.left_out]
    unread = sum(map(len, left_out))
    lines = [f'skipped   {skipped - unread} of {read:,} records that were read']
    if unread:
        lines[0] += f', and {unread} that could not be listed'
    kinds = collections.Counter(dataset for dataset, _, _ in reasons)
    for dataset, count in kinds.most_common():
        lines.append(f'  {count} different ones of {dataset}')
        of_it = [(i, reason) for name, i, reason in reasons if name == dataset]
        lines += [f'    {i}: {reason}' for i, reason in of_it[:_REASONS]]
        lines += ['    ...'] * (len(of_it) > _REASONS)
    too_many = any(found.exceeds(share) for found in left_out)
    if too_many or skipped - unread > share * max(read, 1000):
        lines.append(f'  A run would stop: config.data.max_bad_share is {share:g}.')
    return lines


def _speed_lines(config: ConfigDict, batches: Batches, planned: Planned) -> list[str]:
    after_first = batches.rows - config.batch_size
    if not after_first:
        return ['speed     not measured: one batch']
    rate = after_first / batches.seconds
    records = rate * planned.records / batches.rows
    more = f' of {records:.0f} records/s' if planned.records > batches.rows else ''
    return [
        f'speed     {rate:.0f} clips/s{more} with {config.data.workers} workers; first batch after '
        f'{batches.first:.1f} s'
    ]
