"""Prepares a dataset of the catalog: official files in, a TFDS dataset of ArrayRecord shards out.

Items are listed and sorted by id (listing.py), cut into shards of a fixed number of records, and
written by processes or Beam workers that know nothing of each other (shards.py). All is made in a
folder 'VERSION.part'; finished shards in it are found again by a later run. Then the indices are
merged, checksums, metadata and card are written, and the folder gets its name.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import array_records, index
from alm_jax.data.catalog.building import card, listing, runners, shards
from alm_jax.data.catalog.declaration import Dataset
from alm_jax.data.catalog.files import Files

CHECKSUMS = 'checksums.json'
_EXAMPLES = 5
_Made = tuple[shards.Job, dict[str, Any]]  # with its result


@dataclasses.dataclass(frozen=True)
class Options:
    """How a dataset is prepared.

    Attributes:
      sampling_rate: Hz of all records; 0 keeps that of the files.
      max_seconds: what is kept of a longer record, from its start; 0 keeps all.
      storage: 'flac', or 'pcm16', which is larger and faster to read.
      records_per_shard: the last shard of a split has fewer.
      allow_missing: go on without records whose audio is missing or cannot be decoded.
      splits: those to prepare; () is all.
      workers: processes, 0 is one a core.
      beam_runner: '' is processes of this machine.
      beam_options: of the pipeline.
    """

    sampling_rate: int = 0
    max_seconds: float = 0.0
    storage: str = 'flac'
    records_per_shard: int = 1024
    allow_missing: bool = False
    splits: Sequence[str] = ()
    workers: int = 0
    beam_runner: str = ''
    beam_options: Sequence[str] = ()

    def __post_init__(self):
        if self.storage not in shards.STORAGES:
            hint = did_you_mean(self.storage, shards.STORAGES)
            raise ConfigError(f'storage {self.storage!r}? {hint}')
        if self.sampling_rate and not 1000 <= self.sampling_rate <= 384_000:
            raise ConfigError(f'sampling_rate {self.sampling_rate} Hz is out of 1000 to 384000.')
        if self.records_per_shard < 1 or self.workers < 0 or self.max_seconds < 0:
            raise ConfigError(
                'records_per_shard must be at least 1; workers and max_seconds at least 0.'
            )

    def of_content(self) -> dict[str, Any]:
        """What all splits of a prepared dataset have in common."""
        names = ('sampling_rate', 'max_seconds', 'storage', 'records_per_shard')
        return {name: getattr(self, name) for name in names}


def choose_config(dataset: Dataset, config: str) -> str:
    """The config that is meant; '' is the first. Raises ConfigError for an unknown one."""
    if not config:
        return dataset.configs[0]
    if config not in dataset.configs:
        hint = did_you_mean(config, [name for name in dataset.configs if name])
        raise ConfigError(f'{dataset.name} has no config {config!r}. {hint}')
    return config


def folder_of(dataset: Dataset, config: str, data_dir: pathlib.Path) -> pathlib.Path:
    """Where it lies when it is prepared."""
    return data_dir / dataset.name / config / dataset.version


def build(
    dataset: Dataset,
    config: str,
    manual_dir: str | os.PathLike,
    data_dir: pathlib.Path,
    options: Options,
) -> tuple[pathlib.Path, bool]:
    """Prepares what is not prepared yet: (folder, whether there was anything to do).

    Args:
      dataset: its declaration.
      config: one of its configs; '' is the first.
      manual_dir: the official distribution. Not looked at when all is prepared.
      data_dir: where prepared datasets live.
      options: see Options.

    Raises:
      ConfigError: files are missing or damaged, or it is prepared with other options; says what to
        do. What is finished is kept.
    """
    config = choose_config(dataset, config)
    folder = folder_of(dataset, config, data_dir)
    known = card.read(folder)
    if known and known['options'] != options.of_content():
        raise ConfigError(
            f'{folder} is prepared with {known["options"]}, not {options.of_content()}. Use it as '
            'it is, delete it, or prepare into another --data_dir.'
        )
    if _is_done(known, options):
        return folder, False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / '.lock'):
        _Build(dataset, config, manual_dir, folder, options, known).run()
    return folder, True


def _is_done(known: Mapping[str, Any], options: Options) -> bool:
    if options.splits:
        return set(options.splits) <= set(known.get('splits', ()))
    return bool(known.get('all_splits'))


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    with path.open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f'Another process is preparing {path.parent}.') from error
        yield


class _Build:
    """One run of preparing. ``known`` is the card of splits that are prepared already."""

    def __init__(
        self,
        dataset: Dataset,
        config: str,
        manual_dir: str | os.PathLike,
        folder: pathlib.Path,
        options: Options,
        known: Mapping[str, Any],
    ):
        self._dataset, self._config, self._folder = dataset, config, folder
        self._options, self._known = options, known
        self._part = folder.with_name(f'{folder.name}.part')
        self._files = Files(manual_dir, dataset.layout, self._part / 'scratch')
        self._work, self._ready = self._part / 'work', self._part / 'ready'
        self._results = self._part / 'results'

    def run(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)  # listed again: files may have come
        for folder in (self._part, self._work, self._ready, self._results):
            folder.mkdir(exist_ok=True)
        listed = self._list()
        jobs = {
            split: self._jobs(split, listed.jobs.get(split, []))
            for split in listing.splits_of(listed)
            if split not in self._known.get('splits', ())
        }
        made = self._write_shards(jobs)
        self._finish(made, listed)
        shutil.rmtree(self._part)

    def _list(self) -> listing.Listing:
        options = self._options
        listed = listing.list_items(
            self._dataset,
            self._config,
            self._files,
            self._work,
            splits=options.splits,
            size=options.records_per_shard,
        )
        if not listed.items.total():
            raise ConfigError(
                f'{self._dataset.title}: no record has its audio in {self._files.root}.\n'
                f'{listed.complaint()}{self._files.packed()}\n{self._dataset.layout}'
            )
        if complaint := listed.complaint():
            where = f'{self._files.root}:\n{complaint}{self._files.packed()}'
            self._complain(f'audio is missing in {where}')
        return listed

    def _complain(self, what: str) -> None:
        """Raises, unless the user allowed it."""
        if not self._options.allow_missing:
            raise ConfigError(
                f'{self._dataset.title}: {what}\nComplete it, or go on without these records by '
                f'--allow_missing.\nWhat --manual_dir must hold:\n{self._dataset.layout}'
            )

    def _jobs(self, split: str, items: Sequence[pathlib.Path]) -> list[shards.Job]:
        options = self._options
        prefix = f'{self._dataset.name}-{split}.array_record'
        return [
            shards.Job(
                items=str(path),
                shard=str(self._ready / f'{prefix}-{number:05d}-of-{len(items):05d}'),
                result=str(self._results / f'{split}-{number:05d}-of-{len(items):05d}.json'),
                sampling_rate=options.sampling_rate,
                max_seconds=options.max_seconds,
                storage=options.storage,
            )
            for number, path in enumerate(items)
        ]

    def _write_shards(self, by_split: Mapping[str, list[shards.Job]]) -> dict[str, list[_Made]]:
        """Runs what is not finished; the jobs of every split with their results."""
        options = self._options
        jobs = [job for of_split in by_split.values() for job in of_split]
        wanted = {job.shard for job in jobs}
        for path in self._ready.iterdir():  # of other splits or of shards of another size
            if str(path) not in wanted:
                path.unlink()
        waiting = [job for job in jobs if job.finished() is None]
        if len(waiting) < len(jobs):
            print(f'{len(jobs) - len(waiting)} of {len(jobs)} shards are finished already.')
        if waiting and options.beam_runner:
            runners.run_beam(waiting, options.beam_runner, options.beam_options)
        elif waiting:
            records = sum(listing.count(pathlib.Path(job.items)) for job in waiting)
            runners.run_pool(waiting, options.workers, records)
        made = {split: [(job, job.read()) for job in of] for split, of in by_split.items()}
        unusable = [u for of in made.values() for _, result in of for u in result['unusable']]
        if unusable:
            some = '\n'.join(f'  {identity}: {reason}' for identity, reason in unusable[:_EXAMPLES])
            more = '\n  ...' * (len(unusable) > _EXAMPLES)
            self._complain(f'{len(unusable)} records cannot be decoded:\n{some}{more}')
        return made

    def _finish(self, made: Mapping[str, list[_Made]], listed: listing.Listing) -> None:
        """Writes what describes the shards, and moves all to its place."""
        checksums = _read_json(self._folder / CHECKSUMS)
        for split, parts in made.items():
            if parts:
                path = self._ready / f'index-{split}.arrow'
                _merge_indices(path, parts)
                checksums[path.name] = {
                    'sha256': shards.sha256(path),
                    'bytes': path.stat().st_size,
                }
            for job, result in parts:
                described = {name: result[name] for name in ('sha256', 'bytes', 'records')}
                checksums[os.path.basename(job.shard)] = described
        text = json.dumps(dict(sorted(checksums.items())), indent=1) + '\n'
        shards.write_text(self._ready / CHECKSUMS, text)
        self._write_left_out(made)
        summaries = {
            split: card.split_summary([result for _, result in parts], listed.missing[split])
            for split, parts in made.items()
        }
        card.write(
            self._ready,
            self._dataset,
            self._config,
            options=self._options.of_content(),
            by_split={**self._known.get('splits', {}), **summaries},
            all_splits=not self._options.splits,
        )
        self._move()

    def _write_left_out(self, made: Mapping[str, list[_Made]]) -> None:
        """A line for every record that is missing or unusable, after those of earlier splits."""
        earlier = self._folder / card.LEFT_OUT
        with (self._ready / card.LEFT_OUT).open('w', encoding='utf-8') as file:
            if earlier.exists():
                file.write(earlier.read_text(encoding='utf-8'))
            with (self._work / listing.MISSING).open(encoding='utf-8') as lines:
                file.writelines(line for line in lines if json.loads(line)['split'] in made)
            for split, parts in made.items():
                for _, result in parts:
                    for identity, reason in result['unusable']:
                        line = {'split': split, 'id': identity, 'reason': reason}
                        file.write(json.dumps(line) + '\n')

    def _move(self) -> None:
        if not self._folder.exists():
            os.rename(self._ready, self._folder)
            return
        names = sorted(path.name for path in self._ready.iterdir())
        for name in sorted(names, key=card.JSON_NAME.__eq__):  # the card last
            os.replace(self._ready / name, self._folder / name)


def _merge_indices(path: pathlib.Path, parts: Sequence[_Made]) -> None:
    """One index of a split from those of its shards, in batches of the index's own size."""

    def batches() -> Iterator[pa.RecordBatch]:
        waiting: list[pa.Table] = []
        for number, (job, _) in enumerate(parts, start=1):
            waiting.append(index.Index.open(job.index_part()).table)
            if number == len(parts) or sum(map(len, waiting)) >= index.ROWS_A_BATCH:
                joined = pa.concat_tables(waiting).unify_dictionaries().combine_chunks()
                yield from joined.to_batches()
                waiting = []

    made_from = array_records.shards_digest([pathlib.Path(job.shard) for job, _ in parts])
    # Sizes are rounded up to blocks, and plans are kept by what an index was made from.
    made_from += repr([result['sha256'] for _, result in parts])
    index.write_batches(path, batches(), made_from)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
