"""Prepared datasets: ArrayRecord shards of tf.train.Example, in the layout that TFDS writes.

They are read here directly: opening one costs milliseconds and needs no TensorFlow.
"""

import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from absl import logging
from array_record.python import array_record_module
from google.protobuf.message import DecodeError, Message
from tensorflow_datasets.proto import tf_example_pb2

from alm_jax import json_text
from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError, did_you_mean
from alm_jax.data import index, record

_SHARD = re.compile(r'-(?P<split>[^-]+)\.array_record-(?P<shard>\d{5})-of-(?P<count>\d{5})$')
OPEN_SHARDS = 128  # at once: a corpus has thousands, a process some hundred handles
_RECORDS_A_READ = 64  # while building columns: bounds memory to tens of MB
_REASON = 200  # letters
# What reading and parsing a damaged record raises.
_DAMAGE = (RuntimeError, ValueError, LookupError, TypeError, DecodeError)


class ArrayRecords:
    """The shards of one split, as the reader behind a Source; at most OPEN_SHARDS are open."""

    def __init__(self, folder_path: pathlib.Path, split: str):
        self._paths = shards(folder_path, split)
        self._open: tuple[int, dict] = (0, {})
        counts = _shard_lengths(folder_path, split)
        told = counts if len(counts) == len(self._paths) else [None] * len(self._paths)
        self.index = _cached_index(folder_path, split, self._paths, lambda: self._all_records(told))
        if len(counts) != len(self._paths) or sum(counts) != len(self.index):
            counts = [self._count(shard) for shard in range(len(self._paths))]
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, row: int) -> dict[str, Any]:
        """Record ``row``; FLAC audio stays bytes.

        Raises:
          AudioError: the record is damaged; names its shard.
        """
        shard = self._shard(row)
        return self._parsed(shard, row - int(self._starts[shard]))

    def shard(self, row: int) -> str:
        """The name of the shard that holds record ``row``."""
        return self._paths[self._shard(row)].name

    def __reduce__(self) -> tuple:
        return ArrayRecords._again, (self._paths, self.index, self._starts)

    @classmethod
    def _again(
        cls, paths: Sequence[pathlib.Path], of: index.Index, starts: np.ndarray
    ) -> 'ArrayRecords':
        """What another process has opened: neither is the folder looked at nor an index made."""
        made = cls.__new__(cls)
        made._paths, made.index, made._starts, made._open = paths, of, starts, (0, {})
        return made

    def _reader(self, shard: int) -> array_record_module.ArrayRecordReader:
        """An open file; a forked child must not share its parent's offsets.

        The one opened first makes room; a thread that still reads it keeps it until it is done.
        """
        if self._open[0] != os.getpid():
            self._open = (os.getpid(), {})
        readers = self._open[1]
        reader = readers.get(shard)
        if reader is None:
            options = 'readahead_buffer_size:0,max_parallelism:0'  # random access
            reader = array_record_module.ArrayRecordReader(
                str(self._paths[shard]), options, file_reader_buffer_size=1 << 16
            )
            while len(readers) >= OPEN_SHARDS:
                readers.pop(next(iter(readers)), None)
            readers[shard] = reader
        return reader

    def _shard(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side='right')) - 1

    def _parsed(self, shard: int, row: int) -> dict[str, Any]:
        try:
            return parse_example(self._reader(shard).read([row])[0])
        except _DAMAGE as error:
            reason = str(error).split(';')[0][:_REASON]
            message = f'{self._paths[shard]}: record {row} is damaged ({reason}).'
            raise AudioError(message) from error

    def _count(self, shard: int) -> int:
        """Records of a shard. Raises ConfigError: it is cut off, or no ArrayRecord file."""
        reader = self._reader(shard)
        # Without its end, where the number stands, it opens nevertheless, and says 0.
        if not reader.ok() or not reader.num_records():
            raise ConfigError(
                f'{self._paths[shard]} is cut off or damaged: no record can be found in it. Fetch '
                'it again, or delete the folder and prepare the dataset again.'
            )
        return reader.num_records()

    def _all_records(self, told: Sequence[int | None]) -> Iterator[dict[str, Any]]:
        """All that the index is made from; of a damaged record its place alone."""
        for shard, expected in enumerate(told):
            count = self._count(shard) if expected != 0 else 0
            for start in range(0, count, _RECORDS_A_READ):
                stop = min(start + _RECORDS_A_READ, count)
                try:
                    found = list(map(parse_example, self._reader(shard).read(start, stop)))
                except _DAMAGE:
                    found = [self._whatever(shard, row) for row in range(start, stop)]
                yield from found

    def _whatever(self, shard: int, row: int) -> dict[str, Any]:
        try:
            return self._parsed(shard, row)
        except AudioError as error:  # as will happen again to whoever reads it
            logging.warning('%s', error)
            return {**record.DEFAULTS, 'id': f'{self._paths[shard].name}/{row}'}


def _shard_lengths(folder_path: pathlib.Path, split: str) -> list[int]:
    """Records of each shard as dataset_info.json tells; [] where it does not."""
    try:
        content = (folder_path / 'dataset_info.json').read_bytes()
        info = json_text.parse(content, 'dataset_info.json')
        found = [s['shardLengths'] for s in info['splits'] if s['name'] == split]
        return [int(length) for lengths in found for length in lengths]
    except (OSError, ValueError, KeyError, TypeError):
        return []


class Joined:
    """Several readers one after another, as the reader behind a Source."""

    def __init__(self, parts: Sequence[ArrayRecords]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        made_from = repr([part.index.made_from for part in parts])
        table = pa.concat_tables(part.index.table.replace_schema_metadata() for part in parts)
        self.index = index.Index(table.replace_schema_metadata({'made_from': made_from}))

    def __reduce__(self) -> tuple:
        return Joined, (self._parts,)  # the joined index is made again, not copied

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, row: int) -> dict[str, Any]:
        """Record ``row``, counted over all parts."""
        part = self._part(row)
        return self._parts[part].read(row - int(self._starts[part]))

    def shard(self, row: int) -> str:
        """The name of the shard that holds record ``row``."""
        part = self._part(row)
        return self._parts[part].shard(row - int(self._starts[part]))

    def _part(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side='right')) - 1


def shards(folder_path: pathlib.Path, split: str) -> list[pathlib.Path]:
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
        if name in record.STRUCTURES:
            parsed[name] = _structures(features, name, record.STRUCTURES[name])
            continue
        values = _values(features[name]) if name in features else ()
        if name == 'audio':
            parsed[name] = _audio(features, values[0] if values else b'')
        elif isinstance(default, tuple):
            parsed[name] = [v.decode() if isinstance(v, bytes) else v for v in values]
        elif isinstance(default, str):
            parsed[name] = values[0].decode() if values else default
        else:
            parsed[name] = values[0] if values else default
    return parsed


def _audio(features: Mapping, stored: bytes) -> bytes | np.ndarray:
    """int16 [n], or the bytes of a FLAC file, as the field ``encoding`` says ('' is PCM)."""
    encoding = _values(features['encoding']) if 'encoding' in features else ()
    return stored if b'flac' in encoding else np.frombuffer(stored, '<i2')


def _structures(features: Mapping, name: str, template: Mapping) -> list[dict[str, Any]]:
    """The turns or times of a record, stored as one list a field."""
    columns = []
    for field, default in template.items():
        key = f'{name}/{field}'
        values = _values(features[key]) if key in features else ()
        columns.append([v.decode() if isinstance(default, str) else v for v in values])
    return [dict(zip(template, row)) for row in zip(*columns)]


def _values(feature: Message) -> Sequence:
    kind = feature.WhichOneof('kind')  # None where an empty list was written
    return getattr(feature, kind).value if kind else ()


def _cached_index(folder_path: pathlib.Path, split: str, paths, records) -> index.Index:
    """The index beside the shards: the builder's, or one built from ``records()`` and kept.

    It names the shards it was made from; when they change it is made again.
    """
    cache = folder_path / f'index-{split}.arrow'
    made_from = shards_digest(paths)
    prepared = (folder_path / 'checksums.json').exists()
    if not prepared:  # nothing else would tell one content from another of the same size
        made_from += repr([path.stat().st_mtime_ns for path in paths])
    try:
        found = index.Index.open(cache)
        if found.made_from == made_from or (prepared and found.made_from.startswith(made_from)):
            return found
    except (OSError, ConfigError):
        pass  # absent, damaged or of an older layout
    try:
        index.write(cache, map(record.columns_of, records()), made_from)
        return index.Index.open(cache)
    except OSError as error:  # a read-only dataset is fine, only slower to open
        logging.warning('%s is not cached (%s); it is built at every start.', cache, error)
        return index.Index.of(records())


def shards_digest(paths: Sequence[pathlib.Path]) -> str:
    """Names and sizes of shards: the first part of what an index says it was made from."""
    return repr([(path.name, path.stat().st_size) for path in paths])
