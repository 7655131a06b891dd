"""One job of preparing: the items of a file become one ArrayRecord shard with its index part.

``write_shard`` is all that a process of the pool or a Beam worker calls. The same items and options
give the same bytes everywhere. The result file is written last and alone makes a shard finished, so
that a killed run goes on.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.proto import tf_example_pb2

from alm_jax.audio.decode import AudioError
from alm_jax.audio.resample import resample
from alm_jax.data import index, record
from alm_jax.data.catalog.building import clip_audio, listing, statistics
from alm_jax.data.catalog.declaration import Clip

FORMAT = 1  # raised when the same items give other bytes
STORAGES = ('flac', 'pcm16')
# Every record is read by itself; FLAC does not shrink, and PCM is chosen for speed.
_WRITER = 'group_size:1,uncompressed'
_KINDS = {str: tfds.features.Text(), int: np.int64, float: np.float32}


@dataclasses.dataclass(frozen=True)
class Job:
    """What makes one shard.

    Attributes:
      items: file of listing.items_of.
      shard: file to write.
      result: file to write last; the index part lies beside it, as .arrow.
      sampling_rate: Hz of all records, 0 keeps their own.
      max_seconds: of each clip, from its start; 0 is all.
      storage: of STORAGES.
    """

    items: str
    shard: str
    result: str
    sampling_rate: int = 0
    max_seconds: float = 0.0
    storage: str = 'flac'

    def digest(self) -> str:
        """Of the items, of the state of their files, and of the options."""
        kept = (FORMAT, self.sampling_rate, self.max_seconds, self.storage)
        options = repr((*kept, os.path.basename(self.shard)))
        content = pathlib.Path(self.items).read_bytes()
        return hashlib.sha256(options.encode() + content).hexdigest()

    def index_part(self) -> pathlib.Path:
        """The planning columns of the shard."""
        return pathlib.Path(self.result).with_suffix('.arrow')

    def read(self) -> dict[str, Any]:
        """The result file, as ``write_shard`` returned it."""
        return json.loads(pathlib.Path(self.result).read_text(encoding='utf-8'))

    def finished(self) -> dict[str, Any] | None:
        """The result, when the shard is there, made from these items, with no record left out."""
        try:
            result = self.read()
            whole = os.path.getsize(self.shard) == result['bytes']
        except (OSError, ValueError, KeyError):
            return None
        good = whole and not result['unusable'] and result['digest'] == self.digest()
        return result if good else None


def features() -> tfds.features.FeaturesDict:
    """The record as TFDS describes it: ``alm_jax.data.record``, and ``encoding`` of the audio."""
    described: dict[str, Any] = {'encoding': tfds.features.Text()}
    for name, default in record.DEFAULTS.items():
        if name in record.STRUCTURES:
            fields = {key: _KINDS[type(value)] for key, value in record.STRUCTURES[name].items()}
            described[name] = tfds.features.Sequence(fields)
        elif isinstance(default, tuple):
            kind = np.int64 if name == 'clip_samples' else tfds.features.Text()
            described[name] = tfds.features.Sequence(kind)
        else:
            described[name] = _KINDS.get(type(default))
    described['audio'] = tfds.features.Scalar(np.object_)
    return tfds.features.FeaturesDict(described)


def write_shard(job: Job) -> dict[str, Any]:
    """Writes the shard of a job, its index part and its result.

    Returns:
      digest: of the job. sha256, bytes, records: of the shard. samples: split by rate,
      {rate: samples}. unusable: [id, reason] of items whose audio cannot be decoded; they are not
      in the shard.
    """
    result, shard = pathlib.Path(job.result), pathlib.Path(job.shard)
    part = shard.with_name(f'.{shard.name}.{os.getpid()}.part')
    rows, unusable, samples = [], [], {}
    writer = array_record_module.ArrayRecordWriter(str(part), _WRITER)
    try:
        for identity, clips, fields in listing.items_of(pathlib.Path(job.items)):
            try:
                made = make_record(identity, clips, fields, job.sampling_rate, job.max_seconds)
                serialized = serialize(made, job.storage)
            except AudioError as error:
                unusable.append([identity, str(error)])
                continue
            writer.write(serialized)
            rows.append(record.columns_of(made))
            samples[made['rate']] = samples.get(made['rate'], 0) + made['num_samples']
        writer.close()
        index.write(job.index_part(), rows)
        made_from = {'digest': job.digest(), 'sha256': sha256(part), 'bytes': part.stat().st_size}
        counted = {'records': len(rows), 'samples': dict(sorted(samples.items()))}
        os.replace(part, shard)
    finally:
        part.unlink(missing_ok=True)
    found = {**made_from, **counted, 'unusable': unusable}
    write_text(result, json.dumps(found))
    return found


def make_record(
    identity: str,
    clips: Sequence[Clip],
    fields: Mapping[str, Any],
    sampling_rate: int,
    max_seconds: float = 0.0,
) -> dict[str, Any]:
    """The record of an item, its audio decoded, resampled and measured.

    Several clips are stored end to end, at the highest of their rates unless one is asked for.

    Raises:
      AudioError: a clip that cannot be decoded.
    """
    if max_seconds:
        clips = [clip.cut(0.0, min(clip.seconds or max_seconds, max_seconds)) for clip in clips]
    read = [clip_audio.read(clip) for clip in clips]
    rate = sampling_rate or max(rate for _, rate in read)
    parts = [resample(pcm, native, rate) for pcm, native in read]
    pcm = parts[0] if len(parts) == 1 else np.concatenate(parts)
    lengths = tuple(map(len, parts)) if len(parts) > 1 else ()
    measured = statistics.measure(pcm, rate)
    return record.make_record(pcm, rate, **fields, **measured, id=identity, clip_samples=lengths)


def serialize(made: Mapping[str, Any], storage: str) -> bytes:
    """A record as the bytes of a tf.train.Example, the same in every process."""
    pcm, rate = made['audio'], made['rate']
    audio = _flac(pcm, rate) if storage == 'flac' else pcm.astype('<i2').tobytes()
    plain = {**made, 'audio': audio, 'encoding': storage}
    encoded = features_once().encode_example(plain)
    example = tf_example_pb2.Example.FromString(_serializer().serialize_example(encoded))
    # A protobuf map has another order on the wire in every process unless it is asked for.
    return example.SerializeToString(deterministic=True)


features_once = functools.cache(features)


@functools.cache
def _serializer() -> example_serializer.ExampleSerializer:
    return example_serializer.ExampleSerializer(features_once().get_serialized_info())


def _flac(pcm: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate, 'PCM_16', format='FLAC')
    return buffer.getvalue()


def sha256(path: pathlib.Path) -> str:
    """Of a file's content."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_text(path: pathlib.Path, text: str) -> None:
    """Atomic."""
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    part.write_text(text, encoding='utf-8')
    os.replace(part, path)
