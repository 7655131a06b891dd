"""A small dataset as TFDS writes it, with the schema of packaged_sounds."""

import pathlib
import sys

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds
from etils import epath

from alm_jax.data import record
from alm_jax.data.index import SCHEMA, Index, write_batches

# Loader workers import what the tests hand them, from makers.py.
sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'text'))  # chat_templates.py

TEXT = ('caption_own', 'label', 'kind', 'language', 'transcript', 'package', 'source', 'licence')
TEXT += ('author', 'recording_id', 'id', 'group')
RATES = (16_000, 22_050, 44_100)


def small_record(index: int) -> dict:
    """Record ``index``: a tone of its own pitch; one in three is speech."""
    rate = RATES[index % 3]
    num_samples = rate // 4 + 101 * index
    tone = np.sin(2 * np.pi * (200 + 30 * index) * np.arange(num_samples) / rate)
    pcm = np.round(20_000 * tone).astype('<i2')
    speech = index % 3 == 0
    return {
        'audio': pcm.tobytes(),
        'rate': rate,
        'num_samples': num_samples,
        'duration': num_samples / rate,
        'captions': [f'Tone number {index} sounds.', f'The tone called {index}.'][: 1 + index % 2],
        'caption_own': 'Ein Ton: größer.' if speech else '',
        'tags': ['tone', 'pure'] if index % 2 else [],
        'label': f'tone{index % 4}',
        'kind': 'speech' if speech else 'sound',
        'language': 'de' if speech else '',
        'transcript': 'größer' if speech else '',
        'package': f'package{index % 2}',
        'source': f'tones 1.0/tone{index}.wav',
        'licence': 'CC0-1.0',
        'author': '',
        'recording_id': f'tones/{index}',
        'id': f'tones/{(index * 7) % 40:03d}',
        'group': f'tones/{index}',
    }


class SmallSounds(tfds.core.GeneratorBasedBuilder):
    """Forty tones: 33 in train, over several shards, and 7 in test."""

    code_path = epath.Path(__file__)  # tfds would look for it in a package; tests are none
    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name='small'),)

    def _info(self):
        text = tfds.features.Text()
        features = dict.fromkeys(TEXT, text)
        features['audio'] = tfds.features.Scalar(np.object_)
        features |= {'rate': np.int32, 'num_samples': np.int64, 'duration': np.float32}
        features |= {name: tfds.features.Sequence(text) for name in ('captions', 'tags')}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._records(range(33)), 'test': self._records(range(33, 40))}

    def _generate_examples(self):
        raise NotImplementedError

    def _records(self, indices):
        for index in indices:
            yield index, small_record(index)


@pytest.fixture(scope='session')
def small_records():
    """What small_data_dir holds: 33 records of train, 7 of test."""
    return [small_record(index) for index in range(40)]


@pytest.fixture(scope='session')
def small_data_dir(tmp_path_factory):
    """data_dir with 'small_sounds/small'."""
    data_dir = tmp_path_factory.mktemp('data')
    builder = SmallSounds(data_dir=data_dir, file_format='array_record', config='small')
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=3, try_download_gcs=False)
    )
    return data_dir


@pytest.fixture(scope='session')
def million(tmp_path_factory):
    """An index of a million records of a million recordings, in several stretches, mapped."""
    count, part = 1_000_000, 250_000
    ids = [f'recordings/{i}' for i in range(count)]
    hashes = np.array([record.stable_hash(text) for text in ids], np.uint64)

    def column(field, start):
        if field.name in record.TEXTS:
            return pa.array(ids[start : start + part])
        if field.name == 'recording_hash':
            return pa.array(hashes[start : start + part])
        if field.name in record.CATEGORIES:
            return pa.array([''] * part).dictionary_encode()
        return pa.array(np.zeros(part, record.NUMBERS[field.name]))

    path = tmp_path_factory.mktemp('index') / 'million.arrow'
    write_batches(
        path,
        (
            pa.record_batch(
                [column(field, start).cast(field.type) for field in SCHEMA],
                schema=SCHEMA,
            )
            for start in range(0, count, part)
        ),
    )
    return Index.open(path)
