"""Random access to records: prepared datasets, a folder of your own, or sounds rendered on the fly.

Prepared datasets are in the layout TFDS writes (ArrayRecord shards of tf.train.Example), but are
read here directly: opening one costs milliseconds and needs no dataset_info, and no TensorFlow.
"""

import os
import pathlib
import pkgutil
import re
import urllib.parse
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from array_record.python import array_record_module
from google.protobuf.message import Message
from tensorflow_datasets.proto import tf_example_pb2

from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import catalog, folder, record, synthetic

ENTRY_KEYS = ('name', 'folder', 'captions', 'split', 'weight', 'where')
_SHARD = re.compile(r'-(?P<split>[^-]+)\.array_record-(?P<shard>\d{5})-of-(?P<count>\d{5})$')
_RECORDS_A_READ = 64  # while building columns: bounds memory to tens of MB


class Source:
    """Records by index: ``len(source)``, ``source[i] -> record`` (see ``alm_jax.data.record``).

    Picklable; files are opened again after a fork or in another process.

    Attributes:
      name: for messages.
      columns: {field of record.COLUMNS: array [len(source)]}, without reading any audio.
    """

    def __init__(self, name: str, reader: Any, indices: np.ndarray | None = None):
        self.name = name
        self._reader = reader  # __len__, __getitem__ and .columns
        self._indices = np.arange(len(reader)) if indices is None else indices
        self.columns = {key: column[self._indices] for key, column in reader.columns.items()}

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._reader[int(self._indices[index])]

    def where(self, condition: Mapping[str, Any]) -> 'Source':
        """The records whose columns hold one of the given values.

        Args:
          condition: {column: value or list of values}, as in {'kind': ['sound', 'instrument']}.

        Raises:
          ConfigError: a column that does not exist, or no record left.
        """
        keep = np.ones(len(self), bool)
        for column, values in condition.items():
            if column not in self.columns:
                hint = did_you_mean(column, list(self.columns))
                raise ConfigError(f'{self.name}: where {column!r} is not a column. {hint}')
            values = [values] if isinstance(values, str | int | float) else list(values)
            keep &= np.isin(self.columns[column], values)
            if not keep.any():
                present = np.unique(self.columns[column])[:20].tolist()
                raise ConfigError(
                    f'{self.name}: no record is left after where {column!r} in {values}. '
                    f'Values of {column!r}: {present}.'
                )
        return Source(self.name, self._reader, self._indices[keep])

    def sorted_indices(self) -> np.ndarray:
        """Indices in the order of record ids (code point order): the order of every evaluation."""
        return np.argsort(self.columns['id'], kind='stable')


def open_source(
    name: str | Mapping[str, Any],
    data_dir: str | os.PathLike,
    where: Mapping[str, Any] | None = None,
) -> Source:
    """Opens a dataset.

    Args:
      name: 'packaged_sounds/tiny:train' (dataset/config:split; 'train+validation' joins splits),
        'synthetic_scenes:train',
        'folder:PATH?captions=my.csv&split=train', or an entry of config.data.train:
        {'name': ..., 'where': {...}} or {'folder': ..., 'captions': ..., 'split': ...}.
      data_dir: where prepared datasets live.
      where: see ``Source.where``; added to that of an entry.

    Raises:
      ConfigError: the dataset, config or split does not exist; says how to prepare or spell it.
    """
    entry = {'name': name} if isinstance(name, str) else dict(name)
    for key in entry:
        if key not in ENTRY_KEYS:
            raise ConfigError(
                f'dataset entry key {key!r} is unknown. {did_you_mean(key, ENTRY_KEYS)}'
            )
    if str(entry.get('name', '')).startswith('folder:'):
        entry = {**entry, **_folder_entry(entry.pop('name'))}
    source = _open_folder(entry) if entry.get('folder') else _open_named(entry, data_dir)
    for condition in (entry.get('where'), where):
        if condition:
            source = source.where(condition)
    if not len(source):
        raise ConfigError(f'{source.name} holds no record.')
    return source


def _folder_entry(name: str) -> dict[str, str]:
    """'folder:PATH?captions=my.csv&split=train' as an entry."""
    path, _, query = name.removeprefix('folder:').partition('?')
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in ('captions', 'split'):
            hint = did_you_mean(key, ['captions', 'split'])
            raise ConfigError(f'{name!r}: option {key!r} is unknown. {hint}')
    return {'folder': path, **options}


def _open_folder(entry: Mapping[str, Any]) -> Source:
    if not entry.get('captions'):
        raise ConfigError(f'folder {entry["folder"]!r} needs captions: a CSV or JSONL manifest.')
    reader = folder.Folder(entry['folder'], entry['captions'], entry.get('split', ''))
    return Source(f'{entry["captions"]}' + f':{reader.split}' * bool(reader.split), reader)


def _open_named(entry: Mapping[str, Any], data_dir: str | os.PathLike) -> Source:
    name = entry.get('name')
    if not name:
        raise ConfigError(f"dataset entry {dict(entry)} has neither 'name' nor 'folder'.")
    dataset, colon, split = name.partition(':')
    if not colon or not split:
        raise ConfigError(f'dataset {name!r} names no split; write {dataset}:train, for example.')
    if dataset == 'synthetic_scenes':
        return Source(name, synthetic.SyntheticScenes(split))
    folder_path = _prepared(dataset, pathlib.Path(data_dir))
    parts = [ArrayRecords(folder_path, part) for part in split.split('+')]
    return Source(name, parts[0] if len(parts) == 1 else Joined(parts))


def _prepared(dataset: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The newest version folder of 'dataset/config'."""
    root = data_dir / dataset
    versions = [p for p in root.glob('*') if re.fullmatch(r'\d+\.\d+\.\d+', p.name) and p.is_dir()]
    if versions:
        return max(versions, key=lambda path: tuple(map(int, path.name.split('.'))))
    base, _, tier = dataset.partition('/')
    infos = data_dir.glob('*/*/*/features.json')
    known = {info.parent.parent.relative_to(data_dir).as_posix() for info in infos}
    buildable = {module.name for module in pkgutil.iter_modules(catalog.__path__)}
    prepared = f'Prepared there: {", ".join(sorted(known)) or "nothing"}.'
    if base not in buildable:
        hint = did_you_mean(dataset, sorted(known | buildable | {'synthetic_scenes'}))
        raise ConfigError(f'dataset {dataset!r} is unknown in {data_dir}. {hint} {prepared}')
    command = f'python -m alm_jax.prepare {base}' + f' --tier {tier}' * bool(tier)
    raise ConfigError(
        f'dataset {dataset!r} is not prepared in {data_dir}. {prepared} If the name is right, run\n'
        f'  {command}'
    )


class ArrayRecords:
    """The ArrayRecord shards of one split, as the reader behind a Source."""

    def __init__(self, folder_path: pathlib.Path, split: str):
        self._paths = _shards(folder_path, split)
        self._open: tuple[int, list] = (0, [])
        self.columns = _cached_columns(
            folder_path / f'columns-{split}.npz', self._paths, self._all_records
        )
        counts = [reader.num_records() for reader in self._readers()]
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f'record {index} of {len(self)}')
        shard = int(np.searchsorted(self._starts, index, side='right')) - 1
        serialized = self._readers()[shard].read([index - int(self._starts[shard])])[0]
        return parse_example(serialized)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_open': (0, [])}

    def _readers(self) -> list:
        """Open files; a forked child must not share their offsets with its parent."""
        if self._open[0] != os.getpid():
            options = 'readahead_buffer_size:0,max_parallelism:0'  # random access
            readers = [
                array_record_module.ArrayRecordReader(
                    str(path), options, file_reader_buffer_size=1 << 16
                )
                for path in self._paths
            ]
            self._open = (os.getpid(), readers)
        return self._open[1]

    def _all_records(self) -> Iterator[dict[str, Any]]:
        for reader in self._readers():
            for start in range(0, reader.num_records(), _RECORDS_A_READ):
                stop = min(start + _RECORDS_A_READ, reader.num_records())
                yield from map(parse_example, reader.read(start, stop))


class Joined:
    """Several readers one after another, as the reader behind a Source."""

    def __init__(self, parts: Sequence[ArrayRecords]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self.columns = {
            name: np.concatenate([part.columns[name] for part in parts]) for name in record.COLUMNS
        }

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        part = int(np.searchsorted(self._starts, index, side='right')) - 1
        return self._parts[part][index - int(self._starts[part])]


def _shards(folder_path: pathlib.Path, split: str) -> list[pathlib.Path]:
    """The shard files of ``split`` in order; all must be there."""
    found: dict[str, list[tuple[int, int, pathlib.Path]]] = {}
    for path in folder_path.iterdir():
        if match := _SHARD.search(path.name):
            shard = (int(match['shard']), int(match['count']), path)
            found.setdefault(match['split'], []).append(shard)
    if split not in found:
        raise ConfigError(
            f'{folder_path} has no split {split!r}. {did_you_mean(split, list(found))}'
        )
    shards = sorted(found[split])
    if [number for number, _, _ in shards] != list(range(shards[0][1])):
        raise ConfigError(
            f'{folder_path}: split {split!r} has {len(shards)} of {shards[0][1]} shards; '
            'delete the folder and prepare the dataset again.'
        )
    return [path for _, _, path in shards]


def parse_example(serialized: bytes) -> dict[str, Any]:
    """A record from one tf.train.Example; fields the dataset lacks get record.DEFAULTS."""
    features = tf_example_pb2.Example.FromString(serialized).features.feature
    parsed = {}
    for name, default in record.DEFAULTS.items():
        values = _values(features[name]) if name in features else ()
        if name == 'audio':
            parsed[name] = np.frombuffer(values[0] if values else b'', '<i2')
        elif isinstance(default, tuple):
            parsed[name] = [value.decode() for value in values]
        elif isinstance(default, str):
            parsed[name] = values[0].decode() if values else default
        else:
            parsed[name] = values[0] if values else default
    return parsed


def _values(feature: Message) -> Sequence:
    kind = feature.WhichOneof('kind')  # None where an empty list was written
    return getattr(feature, kind).value if kind else ()


def _cached_columns(cache, shards, records) -> dict[str, np.ndarray]:
    """Planning columns from ``cache``, or built from ``records()`` and written there.

    The cache names the shards it was made from; when they change it is made again.
    """
    stats = [(path.name, path.stat()) for path in shards]
    made_from = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    try:
        with open(cache, 'rb') as file, np.load(file, allow_pickle=False) as saved:
            if str(saved['made_from']) == made_from:
                return {name: saved[name] for name in record.COLUMNS}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # absent, or of an older layout
    columns = record.make_columns(records())
    try:
        _write_npz(cache, {**columns, 'made_from': np.array(made_from)})
    except OSError as error:  # a read-only dataset is fine, only slower to open
        logging.warning('%s is not cached (%s); it is built at every start.', cache, error)
    return columns


def _write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Atomic: several hosts may build the same cache at once."""
    temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex}.part')
    try:
        with open(temporary, 'wb') as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
