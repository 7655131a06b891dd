"""The files of an official distribution under ``manual_dir``: the shared readers of all datasets.

Tables and audio may lie in folders, as unpacked, or still in the zip and tar archives that were
fetched. Names come from the dataset's own tables, so none may lead out of ``manual_dir``.
"""

import io
import itertools
import os
import pathlib
import re
import shutil
import tempfile
import unicodedata
import uuid
import weakref
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from alm_jax.config import ConfigError
from alm_jax.data.catalog import archives, plain_tables, plain_yaml, rows
from alm_jax.data.catalog.declaration import Clip

_COLON = ('_', '-', '')  # what file systems and downloaders write for a colon
_SPACED_COLON = re.compile(r'\s*:\s*')  # or for one with the spaces around it


class Files:
    """Readers over one ``manual_dir``.

    A ``name`` is a path in it, with '/'. A table that is not there is looked for in the archives
    that lie at its top or carry its folder's name ('a/b.csv' in a.zip). Several names may be given
    where releases differ; the first that is there is read.
    """

    def __init__(
        self,
        manual_dir: str | os.PathLike,
        layout: str = '',
        scratch: str | os.PathLike | None = None,
    ):
        """Reads nothing yet.

        Args:
          manual_dir: holds the distribution.
          layout: what it should hold, for messages.
          scratch: where compressed tars are laid out; by default a temporary folder that is gone
            with this object.

        Raises:
          ConfigError: no such folder.
        """
        self.root = pathlib.Path(manual_dir).expanduser().absolute()
        self._root = os.path.normpath(self.root)
        self._below = os.path.join(self._root, '')
        self._layout = layout
        if not self.root.is_dir():
            raise ConfigError(f'manual_dir {str(manual_dir)!r} does not exist.{self._wanted()}')
        own = pathlib.Path(tempfile.gettempdir(), f'alm_jax-{uuid.uuid4().hex}')
        self._scratch = pathlib.Path(scratch or own)
        weakref.finalize(self, shutil.rmtree, own, ignore_errors=True)
        self._archives: dict[str, list[pathlib.Path]] = {}  # folder -> archives
        self._members: dict[pathlib.Path, archives.Members] = {}
        self._stems: dict[str, np.ndarray] = {}  # folder -> sorted hashes
        self._found_last: dict[str, str] = {}  # folder -> the ending its last file had

    def csv(self, *names: str, **options: Any) -> Iterator[rows.Row]:
        """Rows of a CSV or TSV (delimiter='\\t'); options as in ``rows.read_csv``."""
        name, file = self._open(names)
        return rows.read_csv(file, name, **options)

    def jsonl(self, *names: str) -> Iterator[rows.Row]:
        """The objects of a JSONL file."""
        name, file = self._open(names)
        return rows.read_jsonl(file, name)

    def parquet(self, pattern: str, *folders: str) -> Iterator[rows.Row]:
        """Rows of all Parquet files that ``files`` finds, in the order of their names.

        Raises:
          ConfigError: there is none.
        """
        names = self.files(pattern, *folders)
        if not names:
            raise self.missing(*(f'{folder}/{pattern}' for folder in folders or ('',)))
        for name in names:
            name, file = self._open([name])
            yield from rows.read_parquet(file, name)

    def json(self, *names: str) -> Any:
        """The value of a JSON file."""
        return rows.json_value(*self._open(names)[::-1])

    def json_rows(self, *names: str, key: str = '') -> Iterator[tuple[str, rows.Row]]:
        """(key or number, object) of a JSON array or object, one at a time: for any size.

        ``key`` says where it stands in the file's top object; '' is the whole file.
        """
        name, file = self._open(names)
        return rows.read_json_rows(file, name, key)

    def yaml(self, *names: str) -> Any:
        """The plain value of a YAML file; tags that would make objects are refused."""
        name, file = self._open(names)
        with file:
            return plain_yaml.parse(file.read(), name)

    def table(self, *names: str) -> Any:
        """The plain value of a .pkl file, read without pickle (plain_tables.py)."""
        name, file = self._open(names)
        with file:
            return plain_tables.parse(file.read(), name)

    def lines(self, *names: str, encoding: str = 'utf-8') -> Iterator[str]:
        """The lines of a text file, stripped, without empty ones."""
        name, file = self._open(names)
        try:
            with io.TextIOWrapper(file, encoding.replace('utf-8', 'utf-8-sig')) as text:
                yield from filter(None, map(str.strip, text))
        except UnicodeDecodeError as error:
            raise ConfigError(f'{name} is not {encoding} text.') from error

    def has(self, *names: str) -> bool:
        """Whether one of the names is there, as a file, a folder or an archive's member."""
        return any(self._path(n).exists() or self._members_called(n) for n in names)

    def files(self, pattern: str, *folders: str) -> list[str]:
        """Names of the files that match, on disk and in archives, sorted.

        Args:
          pattern: matched from the right at a '/', as in '*.trans.txt' or 'Actor_*/*.wav'.
          folders: where to look, with all below; all of ``manual_dir`` by default.
        """
        found = set()
        for folder in folders or ('',):
            found.update(path.relative_to(self.root).as_posix() for path in self._walk(folder))
            for archive in self._archives_below(folder):
                found.update(self._names_in(archive))
        return sorted(name for name in found if pathlib.PurePosixPath(name).match(pattern))

    def _names_in(self, archive: pathlib.Path) -> Iterator[str]:
        """Of members, as if the archive were unpacked where it lies, in a folder of its name."""
        above = archive.parent.relative_to(self.root)
        own = archive.name.removesuffix(archives.suffix_of(archive.name))
        for name in self._index(archive).names:
            deep = above.parts and not name.startswith(f'{own}/')
            yield (above / own / name if deep else above / name).as_posix()

    def audio(self, name: str, *folders: str) -> Clip | None:
        """The clip called ``name``; None when it is not there.

        Any ending of AUDIO will do, whatever ending ``name`` has or lacks; a colon in it may have
        become '_', '-' or nothing; and so may the form of accents have changed.

        Args:
          name: file name, or path below a folder ('yes/0a7c2a8d_nohash_0.wav').
          folders: where to look, in turn; ``manual_dir`` itself by default. A folder stands also
            for the archive of its name and for archives inside it.

        Raises:
          ConfigError: a name that leads out of ``manual_dir``, or that two members could be.
        """
        given = archives.audio_ending(name)
        stem = name[: -len(given) or None]
        for folder in folders or ('',):
            for spelling in _spellings(stem):
                if clip := self._audio_file(folder, spelling, given):
                    return clip
            for spelling in _spellings(stem):
                if clip := self._audio_member(folder, spelling):
                    return clip
        return None

    def samples(self, folder: str) -> Iterator[tuple[str, rows.Row, Clip | None]]:
        """(key, JSON object, audio) of the WebDataset samples in a folder's tars, with all below.

        A sample is N.json with N.flac or another audio file beside it. Unpacked tars will do. The
        key is the path below the folder, with the tar's name, without the ending.

        Raises:
          ConfigError: the folder is not there, nor a tar of its name.
        """
        root = self._path(folder)
        if not root.is_dir() and not self._archives_of(folder):
            raise self.missing(folder)
        for path in sorted(path for path in self._walk(folder) if path.suffix == '.json'):
            if path.name != 'sizes.json':  # how many samples each tar has
                stem = path.relative_to(root).with_suffix('').as_posix()
                row = rows.as_row(rows.json_value(path.open('rb'), str(path)), str(path))
                yield stem, row, self.audio(f'{folder}/{stem}')
        for archive in self._archives_below(folder):
            place = archive.relative_to(root if archive.is_relative_to(root) else root.parent)
            key = place.as_posix().removesuffix(archives.suffix_of(archive.name))
            yield from self._tar_samples(archive, key)

    def _tar_samples(
        self, archive: pathlib.Path, key: str
    ) -> Iterator[tuple[str, rows.Row, Clip | None]]:
        members = archives.Members(archive, self._scratch)  # not kept: there may be thousands
        for name in filter(lambda name: name.endswith('.json'), members.names):
            path, member, span = members.file(name)
            content, where = archives.read(path, span, member), f'{archive}/{name}'
            row = rows.as_row(rows.json_value(io.BytesIO(content), where), where)
            stem = name.removesuffix('.json')
            audio = members.audio(stem)
            yield f'{key}/{stem.rsplit("/", 1)[-1]}', row, _clip(audio) if audio else None

    def youtube(self, video: str, start: float, *folders: str, seconds: float = 10) -> Clip | None:
        """The clip of a YouTube video under one of the names that downloaders give it.

        With a start: 'ID_30', 'ID_30.000', 'ID_30_40', 'ID_30.000_40.000', 'ID_30000_40000'
        (milliseconds), 'ID_000030'; without: 'ID'. A 'Y' may stand before any of them. The file is
        taken to be the clip, not the whole video.
        """
        end = start + seconds
        times = [
            *(f'_{start:g}', f'_{start:.3f}', f'_{start:g}_{end:g}', f'_{start:.3f}_{end:.3f}'),
            *(f'_{1000 * start:.0f}_{1000 * end:.0f}', f'_{int(start):06d}', ''),
        ]
        for time, prefix in itertools.product(times, ('', 'Y')):
            if clip := self.audio(f'{prefix}{video}{time}.wav', *folders):
                return clip
        return None

    def missing(self, *names: str) -> ConfigError:
        """What to raise when none of the names is there."""
        listed = ' or '.join(map(repr, names))
        return ConfigError(f'{listed} is not in {self.root}.{self.packed()}{self._wanted()}')

    def packed(self) -> str:
        """Which files must be unpacked first, '' when there are none: for messages."""
        paths = [path for path in self._walk('') if path.suffix in ('.7z', '.rar')]
        paths += [path.with_suffix('.zip') for path in self._walk('') if path.suffix == '.z01']
        listed = ', '.join(sorted(path.relative_to(self.root).as_posix() for path in paths))
        return f'\nUnpack first (7z x FILE unpacks zips in parts, too): {listed}.' if listed else ''

    def _wanted(self) -> str:
        return f'\nWhat --manual_dir must hold:\n{self._layout}' if self._layout else ''

    def _path(self, name: str) -> pathlib.Path:
        return pathlib.Path(self._place(name))

    def _place(self, name: str) -> str:
        """``name`` as a path; text, because audio is looked up millions of times."""
        place = os.path.normpath(os.path.join(self._root, name))  # links stay links
        if not (place == self._root or place.startswith(self._below)) or '\0' in name:
            raise ConfigError(f'{name!r} leads out of {self.root}.')
        return place

    def _open(self, names: Sequence[str]) -> tuple[str, IO[bytes]]:
        for name in names:
            path = self._path(name)
            if path.is_file():
                return str(path), path.open('rb')
            if clip := self._members_called(name):
                content = archives.read(clip.path, clip.span, clip.member)
                return str(clip), io.BytesIO(content)
        raise self.missing(*names)

    def _members_called(self, name: str) -> Clip | None:
        """The member of exactly this name, in the archives of its folders."""
        parts = name.split('/')
        for split in range(len(parts)):
            folder, rest = '/'.join(parts[:split]), '/'.join(parts[split:])
            for archive in self._archives_of(folder):
                if found := self._index(archive).file(rest):
                    return _clip(found)
        return None

    def _audio_file(self, folder: str, stem: str, given: str) -> Clip | None:
        place = self._place(f'{folder}/{stem}' if folder else stem)
        if not self._may_hold(place):
            return None
        likely = [ending for ending in (given, self._found_last.get(folder)) if ending]
        for ending in dict.fromkeys([*likely, *archives.AUDIO, '.WAV', '.MP3', '.FLAC']):
            if os.path.isfile(place + ending):
                self._found_last[folder] = ending
                return Clip(place + ending)
        return None

    def _may_hold(self, place: str) -> bool:
        """Whether a folder holds an audio file of this name, with any ending.

        Most names that are looked for are not there, and asking the disk for each with each ending
        would take longer than all else; so a folder is listed once, at 8 bytes a file.
        """
        folder, name = os.path.split(place)
        if folder not in self._stems:
            names = os.listdir(folder) if os.path.isdir(folder) else ()
            found = [hash(os.path.splitext(n)[0]) for n in names if archives.audio_ending(n)]
            self._stems[folder] = np.sort(np.array(found, np.int64))
        hashes, wanted = self._stems[folder], hash(name)
        at = hashes.searchsorted(wanted)
        return bool(at < len(hashes) and hashes[at] == wanted)

    def _audio_member(self, folder: str, stem: str) -> Clip | None:
        """The one in archives of the folder, else in those above it, by the path from there on."""
        parts = f'{folder}/{stem}'.strip('/').split('/')
        for split in range(len(parts) - 1, -1, -1):
            above, rest = '/'.join(parts[:split]), '/'.join(parts[split:])
            found = [
                clip
                for archive in self._archives_of(above)
                if (clip := self._index(archive).audio(rest))
            ]
            if len(found) > 1:
                listed = ', '.join(f'{path}/{member}' for path, member, _ in found[:3])
                raise ConfigError(f'{rest!r} could be any of {listed}.')
            if found:
                return _clip(found[0])
        return None

    def _index(self, archive: pathlib.Path) -> archives.Members:
        if archive not in self._members:
            self._members[archive] = archives.Members(archive, self._scratch)
        return self._members[archive]

    def _archives_of(self, folder: str) -> list[pathlib.Path]:
        """Those in the folder itself, and those that carry its name."""
        if folder not in self._archives:
            path = self._path(folder)
            named = [path.with_name(path.name + s) for s in archives.SUFFIXES] if folder else []
            inside = sorted(path.iterdir()) if path.is_dir() else []
            self._archives[folder] = [p for p in (*named, *inside) if _is_archive(p)]
        return self._archives[folder]

    def _archives_below(self, folder: str) -> list[pathlib.Path]:
        """Those that carry the folder's name, and those in it or below."""
        below = [path for path in self._walk(folder) if _is_archive(path)]
        return list(dict.fromkeys([*self._archives_of(folder), *below]))

    def _walk(self, folder: str) -> Iterator[pathlib.Path]:
        for place, folders, names in os.walk(self._path(folder), followlinks=True):
            folders[:] = [name for name in folders if not _leads_back(place, name)]
            yield from (pathlib.Path(place, name) for name in names if not name.startswith('._'))


def _leads_back(place: str, name: str) -> bool:
    """Whether it is a link to a folder above itself, which would be walked without end."""
    path = os.path.join(place, name)
    return os.path.islink(path) and pathlib.Path(os.path.realpath(place)).is_relative_to(
        os.path.realpath(path)
    )


def _is_archive(path: pathlib.Path) -> bool:
    """Whether it can be read: the last part of a zip in several parts cannot."""
    is_part = path.suffix == '.zip' and path.with_suffix('.z01').exists()
    return bool(archives.suffix_of(path.name)) and not is_part and path.is_file()


def _clip(found: tuple[str, str, archives.Span]) -> Clip:
    path, member, span = found
    return Clip(path, member, span=span)


def _spellings(name: str) -> list[str]:
    """The forms that a name may have on disk, the given one first."""
    if name.isascii() and ':' not in name:
        return [name]
    plain = [name, *(name.replace(':', other) for other in _COLON), _SPACED_COLON.sub('_', name)]
    forms = [unicodedata.normalize(form, text) for text in plain for form in ('NFC', 'NFD')]
    return list(dict.fromkeys([*plain, *forms]))
