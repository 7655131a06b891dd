"""Random access to records: prepared datasets, data of your own, or sounds rendered on the fly.

A reader behind a Source has ``len(reader)``, ``reader.index`` (alm_jax.data.index.Index),
``reader.read(row)``, a record whose audio may still be the bytes of an audio file, and
``reader.shard(row)``, the file that holds it among others ('' where there is none).
"""

import contextlib
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import array_records, catalog, location, mapped, record, synthetic
from alm_jax.data.hygiene import licences
from alm_jax.data.inputs import entries
from alm_jax.data.inputs.left_out import LeftOut
from alm_jax.data.mapped import Mapped

ENTRY_KEYS = ('name', *entries.KINDS, *entries.OPTIONS, 'weight', 'where', 'blocklists')
_KEEP_FROM = 100_000  # records; filtering fewer takes no time


class Source:
    """Records by number: ``len(source)``, ``source[i] -> record`` (see ``alm_jax.data.record``).

    Files are opened again after a fork, and in another process that gets a source by its recipe
    (``alm_jax.data.recipes``).

    Attributes:
      name: for messages.
      index: planning columns of all records of the reader, without reading any audio.
      rows: those of the reader that belong to the source; None is all.
      digest: names the records, for results kept on disk; '' where that is not known.
      left_out: what should have been records and cannot be used (inputs.left_out.LeftOut); None for
        data that is prepared. Not known in other processes.
      columns: {field of record.COLUMNS: array [len(source)]}, made when asked for.
    """

    def __init__(
        self, name: str, reader: Any, rows: np.ndarray | Mapped | None = None, digest: str = ''
    ):
        self.name = name
        self.rows = rows
        self.digest = reader.index.digest if rows is None else digest
        self._reader = reader
        self.left_out: LeftOut | None = None
        self.columns = Columns(self)

    def __reduce__(self) -> tuple:
        return Source, (self.name, self._reader, self.rows, self.digest)

    @property
    def index(self):
        return self._reader.index

    def __len__(self) -> int:
        return len(self._reader) if self.rows is None else len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return record.decoded(self.read(i))

    def read(self, i: int) -> dict[str, Any]:
        """Record ``i`` as it is stored: its audio may be the bytes of an audio file."""
        return self._reader.read(self.row(i))

    def row(self, i: int) -> int:
        """Where record ``i`` stands in ``index``."""
        if not 0 <= i < len(self):
            raise IndexError(f'record {i} of {len(self)} of {self.name}')
        return int(i if self.rows is None else self.rows[i])

    def id(self, i: int) -> str:
        """The id of record ``i``."""
        return self.index.value('id', self.row(i))

    def shard(self, i: int) -> str:
        """The file that holds record ``i`` among others; '' where it has one of its own."""
        return self._reader.shard(self.row(i))

    def where(
        self, condition: Mapping[str, Any], cache_dir: str | os.PathLike | None = None
    ) -> 'Source':
        """The records that a condition admits (see ``index.Index.rows_where``).

        Args:
          condition: column -> value, values or range; 'licence_allows' -> 'commercial'.
          cache_dir: where the rows of a large dataset are kept, so that they are found once.

        Raises:
          ConfigError: a column that does not exist, or no record left.
        """
        condition = licences.expanded(condition, self.index)

        def find() -> np.ndarray:
            try:
                return self.index.rows_where(condition)
            except ConfigError as error:
                raise ConfigError(f'{self.name}: {error}') from error

        kept = self._keep(find, repr(sorted(condition.items())), cache_dir)
        if not len(kept):
            present = {name: np.unique(self.columns[name])[:20].tolist() for name in condition}
            raise ConfigError(
                f'{self.name}: no record is left after where {dict(condition)}. Values: {present}.'
            )
        return kept

    def without(self, paths: Sequence[str], cache_dir: str | os.PathLike | None = None) -> 'Source':
        """The records that no blocklist names (see ``alm_jax.data.hygiene.blocklists``)."""
        from alm_jax.data.hygiene import blocklists

        lists = [blocklists.read(path) for path in paths]
        digests = repr([hashlib.sha256(pathlib.Path(p).read_bytes()).hexdigest() for p in paths])
        return self._keep(
            lambda: blocklists.rows_not_blocked(self.index, lists), digests, cache_dir
        )

    def _keep(self, find: Callable, what: str, cache_dir: str | os.PathLike | None) -> 'Source':
        """The source with the rows of the index that ``find`` gives and that it has already."""
        digest = hashlib.sha256(f'{self.digest} {what}'.encode()).hexdigest() if self.digest else ''
        path = pathlib.Path(cache_dir or '', digest, 'rows.npy')
        rows = None
        if keep := bool(cache_dir and digest and len(self) >= _KEEP_FROM):
            with contextlib.suppress(FileNotFoundError):
                rows = Mapped(path)
        if rows is None:
            rows = find()
            if self.rows is not None:
                rows = np.intersect1d(rows, self.rows)
            rows = mapped.save(path, rows) if keep else rows
        kept = Source(self.name, self._reader, rows, digest)
        kept.left_out = self.left_out
        return kept

    def sorted_indices(self) -> np.ndarray:
        """Indices in the order of record ids (code point order): the order of every evaluation."""
        return np.argsort(self.columns['id'], kind='stable')


class Columns(Mapping):
    """The planning columns of a source; each is made when it is first asked for."""

    def __init__(self, source: Source):
        self._source = source
        self._made: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._made:
            rows = self._source.rows
            rows = None if rows is None else np.asarray(rows)
            self._made[name] = self._source.index.numpy(name, rows)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(record.COLUMNS)

    def __len__(self) -> int:
        return len(record.COLUMNS)

    def __getstate__(self) -> dict[str, Any]:
        return {'_source': self._source, '_made': {}}


def open_source(
    name: str | Mapping[str, Any],
    data_dir: str | os.PathLike,
    where: Mapping[str, Any] | None = None,
    *,
    max_bad_share: float | None = None,
) -> Source:
    """Opens a dataset.

    Args:
      name: 'packaged_sounds/tiny:train' (dataset/config:split; 'train+validation' joins splits),
        'synthetic_scenes:train', data of one's own as in 'folder:PATH?captions=my.csv&split=train',
        'tars:shards/*.tar?split=train', 'parquet:data/*.parquet' or 'tree:PATH', or an entry of
        config.data.train: {'name': ..., 'where': {...}}, {'tars': ..., 'split': ...} and so on.
      data_dir: where prepared datasets and the listings of other data live.
      where: see ``Source.where``; added to that of an entry.
      max_bad_share: of data of one's own, what may be left out because it cannot be used. None:
        nothing of what a manifest names, of the other forms all but one record.

    Raises:
      ConfigError: the dataset, config or split does not exist; says how to prepare or spell it.
        More cannot be used than may be; names the worst shard, and examples.
    """
    entry = {'name': name} if isinstance(name, str) else dict(name)
    for key in entry:
        if key not in ENTRY_KEYS:
            raise ConfigError(
                f'dataset entry key {key!r} is unknown. {did_you_mean(key, ENTRY_KEYS)}'
            )
    if entries.is_own_data(entry.get('name', '')):
        entry.update(entries.parsed(entry.pop('name')))
    kinds = [key for key in ('name', *entries.KINDS) if entry.get(key)]
    if len(kinds) != 1:
        raise ConfigError(
            f'dataset entry {dict(entry)} has {" and ".join(map(repr, kinds)) or "no source"}; '
            f'give one of {", ".join(map(repr, ("name", *entries.KINDS)))}.'
        )
    is_named = kinds == ['name']
    source = _open_named(entry, data_dir) if is_named else _open_own(kinds[0], entry, data_dir)
    if source.left_out:
        _judge(source.name, kinds[0], source.left_out, max_bad_share)
    plans = plans_dir(data_dir)
    for condition in (entry.get('where'), where):
        if condition:
            source = source.where(condition, plans)
    if entry.get('blocklists'):
        source = source.without(entry['blocklists'], plans)
    if not len(source):
        raise ConfigError(f'{source.name} holds no record.')
    return source


def plans_dir(data_dir: str | os.PathLike) -> pathlib.Path:
    """Where results of planning are kept: selections, buckets and packs of large datasets."""
    return pathlib.Path(data_dir, 'plans')


def _open_own(kind: str, entry: Mapping[str, Any], data_dir: str | os.PathLike) -> Source:
    title, reader, rows = entries.opened(kind, entry, location.data_dir(os.fspath(data_dir)))
    split = entry.get('split', '')
    digest = hashlib.sha256(f'{reader.index.digest} split {split}'.encode()).hexdigest()
    source = Source(f'{title}:{split}' if split else title, reader, rows, digest)
    source.left_out = reader.listing.left_out.of(split, len(source))
    return source


def _judge(name: str, kind: str, found: LeftOut, max_share: float | None) -> None:
    if max_share is None:
        max_share = 0.0 if kind == 'folder' else 1.0
    if found.exceeds(max_share):
        allowed = f', more than config.data.max_bad_share ({max_share:g}) allows' * bool(max_share)
        raise found.error(name, allowed)


def _open_named(entry: Mapping[str, Any], data_dir: str | os.PathLike) -> Source:
    name = entry['name']
    if wrong := [key for key in entries.OPTIONS if entry.get(key)]:
        raise ConfigError(f'dataset {name!r} takes no {wrong[0]!r}; its split stands in its name.')
    dataset, colon, split = name.partition(':')
    if not colon or not split:
        raise ConfigError(f'dataset {name!r} names no split; write {dataset}:train, for example.')
    if dataset == 'synthetic_scenes':
        return Source(name, synthetic.SyntheticScenes(split))
    folder_path = _prepared(dataset, pathlib.Path(data_dir))
    parts = [array_records.ArrayRecords(folder_path, part) for part in split.split('+')]
    return Source(name, parts[0] if len(parts) == 1 else array_records.Joined(parts))


def _prepared(dataset: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The newest version folder of 'dataset/config'."""
    root = data_dir / dataset
    versions = [p for p in root.glob('*') if re.fullmatch(r'\d+\.\d+\.\d+', p.name) and p.is_dir()]
    if versions:
        return max(versions, key=lambda path: tuple(map(int, path.name.split('.'))))
    base, _, tier = dataset.partition('/')
    infos = data_dir.glob('*/*/*/features.json')
    known = {info.parent.parent.relative_to(data_dir).as_posix() for info in infos}
    buildable = set(catalog.names())
    prepared = f'Prepared there: {", ".join(sorted(known)) or "nothing"}.'
    if base not in buildable:
        hint = did_you_mean(dataset, sorted(known | buildable | {'synthetic_scenes'}))
        raise ConfigError(f'dataset {dataset!r} is unknown in {data_dir}. {hint} {prepared}')
    if base in catalog.OWN_BUILDERS:
        command = f'python -m alm_jax.prepare {base}' + f' --tier {tier}' * bool(tier)
    else:
        configs = [config for config in catalog.find(base).configs if config]
        if configs and tier not in configs:
            hint = f'Write {base}/CONFIG:SPLIT; its configs are {", ".join(configs)}.'
            raise ConfigError(f'dataset {dataset!r} is none in {data_dir}. {hint} {prepared}')
        command = f'python -m alm_jax.prepare {dataset} --manual_dir FOLDER'
    raise ConfigError(
        f'dataset {dataset!r} is not prepared in {data_dir}. {prepared} If the name is right, run\n'
        f'  {command}'
    )
