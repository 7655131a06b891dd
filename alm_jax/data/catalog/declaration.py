"""What a dataset of the catalog is: a declaration of what its official files say.

A module of this package declares one dataset as ``DATASET = Dataset(...)``; the module is called
like the dataset. Its ``items`` reads the distribution's own tables through ``files.Files`` and says
for every record where its audio lies and what is known of it. All else (decoding, resampling,
statistics, shards, checksums, the index, the card) is done for every dataset alike by ``builder``.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alm_jax.data import record

if TYPE_CHECKING:
    from alm_jax.data.catalog.files import Files

# What the builder finds out itself; an item cannot say it.
MEASURED = frozenset(
    {'audio', 'rate', 'num_samples', 'clip_samples', 'duration', 'id'}
    | {'loudness', 'peak', 'silence'}
)
FIELDS = frozenset(record.DEFAULTS) - MEASURED
_NAME = re.compile(r'[a-z][a-z0-9_]*$')


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """Where the audio of one clip lies.

    Attributes:
      path: an audio file, or the archive that holds it.
      member: name in the archive; '' when ``path`` is the audio file itself.
      start: where the clip begins in it, seconds.
      seconds: how long it is; None is to the end. A file that ends earlier gives a shorter clip.
      span: how the bytes of the member are found without the archive's table (archives.py).
    """

    path: str
    member: str = ''
    start: float = 0.0
    seconds: float | None = None
    span: tuple[int, ...] = ()

    def cut(self, start: float, seconds: float | None = None) -> 'Clip':
        """A part of the clip, in seconds from its start."""
        return dataclasses.replace(self, start=self.start + start, seconds=seconds)

    def __str__(self) -> str:
        place = f'{self.path}/{self.member}' if self.member else self.path
        if self.start or self.seconds is not None:
            end = '' if self.seconds is None else f'{self.start + self.seconds:g}'
            return f'{place} [{self.start:g}:{end} s]'
        return place


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One record, before anything of its audio is read.

    Attributes:
      split: 'train', 'validation', 'test', or the dataset's own name for what is none of them.
      id: unique in the dataset and its config, the same in every run.
      audio: the clips of the record, in order; () means that it is listed but not on disk.
      fields: fields of ``alm_jax.data.record`` (captions, tags, turns, times, label, kind,
        recording_id, ...). What the dataset says of all its records (licence, provenance, package,
        language, kind) is filled in, and so are recording_id ('PACKAGE/ID'), group (the
        recording_id) and source (the file's name) when they are left out.
    """

    split: str
    id: str
    audio: tuple[Clip, ...]
    fields: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset of the catalog.

    Attributes:
      name: as in 'NAME/CONFIG:SPLIT' and in the module's name.
      version: of the prepared form, '1.0.0'; a change of what records hold raises it.
      title: the name its authors use, with the release that is read.
      homepage: where it is described and fetched.
      licence: of text and audio, in words where no SPDX name says it; an item may be more exact.
      provenance: of the text, see record.PROVENANCES: 'human', 'web' or 'generated: BY WHAT'.
      layout: what ``manual_dir`` must hold, a line a file or folder, and where it is fetched.
        Shown when something is missing, and by ``prepare --list``.
      items: (files, config) -> every record of every split, in any order.
      configs: the variants; the first is the default. '' is 'there is only one'.
      downloads: config -> {file in manual_dir: address}, only where licence and host allow; their
        SHA-256 stand in downloads.sha256.
      joined: whether items of one id and split are one record, whose lists (captions, tags, turns,
        times) are put end to end; each item's turns are dialogues of their own. The audio is that
        of the first, a single field that of the first that has it. Works for any number of items,
        in any order.
      language: BCP-47, of the speech, or '' when there is none.
      kind: what most records are: sound, instrument, music or speech.
    """

    name: str
    version: str
    title: str
    homepage: str
    licence: str
    provenance: str
    layout: str
    items: Callable[['Files', str], Iterator[Item]]
    configs: Sequence[str] = ('',)
    downloads: Callable[[str], Mapping[str, str]] = lambda config: {}
    joined: bool = False
    language: str = ''
    kind: str = 'sound'

    def __post_init__(self):
        if not _NAME.match(self.name) or not re.fullmatch(r'\d+\.\d+\.\d+', self.version):
            raise ValueError(f'not a dataset name and version: {self.name!r} {self.version!r}')
        if self.provenance.split(':')[0] not in record.PROVENANCES:
            raise ValueError(f'{self.name}: provenance {self.provenance!r}')

    def fields(self, item: Item) -> dict[str, Any]:
        """All fields of a record but the MEASURED ones.

        Raises:
          TypeError: a field that records do not have, or that is not an item's to say.
        """
        if unknown := set(item.fields) - FIELDS:
            raise TypeError(f'{self.name}, {item.id}: not fields of an item: {sorted(unknown)}')
        package = item.fields.get('package', self.name)
        first = item.audio[0] if item.audio else None
        recording = item.fields.get('recording_id') or f'{package}/{item.id}'
        source = (first.member or first.path).rsplit('/', 1)[-1] if first else ''
        return {
            **{name: record.DEFAULTS[name] for name in sorted(FIELDS)},
            'licence': self.licence,
            'provenance': self.provenance,
            'language': self.language,
            'kind': self.kind,
            'package': package,
            'source': source,
            'group': recording,
            **item.fields,
            'recording_id': recording,
        }


def youtube(video: str) -> str:
    """The recording_id of a YouTube video, the same in every dataset: 'youtube/ID'."""
    return f'youtube/{video}'


def freesound(number: str | int) -> str:
    """The recording_id of a Freesound upload: 'freesound/NUMBER'."""
    return f'freesound/{int(number)}'


def bbc(number: str) -> str:
    """The recording_id of a BBC sound effect, in capitals: 'bbc/07075051', 'bbc/NHU05030045'."""
    return f'bbc/{number.upper()}'


_CC = re.compile(r'creativecommons\.org/(?:licenses|publicdomain)/([a-z+-]+)/([\d.]+)')


def licence_name(text: str) -> str:
    """'CC-BY-3.0' for the address of a Creative Commons licence; other text as it is."""
    if not (match := _CC.search(text.lower())):
        return text
    name, version = match.groups()
    return f'CC0-{version}' if name == 'zero' else f'CC-{name.upper()}-{version}'


_YOUTUBE = re.compile(r'(?:^|.*/)Y?(?P<id>[A-Za-z0-9_-]{11})(?:_\d[\d._]*)?(?:\.[a-z0-9]{3,4})?$')


def youtube_id(name: str) -> str:
    """The 11 characters of a video in a file name, '' when there are none.

    'Y-abc_efghij.wav', '-abc_efghij_30.000.flac', 'x/-abc_efghij_30000_40000' all give
    '-abc_efghij'.
    """
    match = _YOUTUBE.match(name)
    return match['id'] if match else ''


def turn(question: str, answer: str, dialogue: int = 0) -> dict[str, Any]:
    """One question with its answer."""
    return {'question': question, 'answer': answer, 'dialogue': dialogue}


def time(onset: float, offset: float, text: str) -> dict[str, Any]:
    """When something is heard: seconds from the start of the record."""
    return {'onset': float(onset), 'offset': float(offset), 'text': text}


def words(text: str, separator: str = ',') -> list[str]:
    """Parts of a cell, stripped, without empty ones: 'rain; wind;' with ';' is [rain, wind]."""
    return [part.strip() for part in text.split(separator) if part.strip()]
