"""Decodes every clip once, on two processes, into files that a killed build finds again.

Clips are decoded in chunks of one source. A chunk is three files under ``decoded/``: the PCM end to
end, the fingerprint pictures end to end, and a JSON index, which is written last and alone makes
the chunk complete. Its name is a hash of the package files, the code that reads them and the
members; the text of a clip is not in it, so a change of captions decodes nothing again.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from alm_jax import config as config_lib
from alm_jax.audio import decode
from alm_jax.data.catalog.packaged_sounds.clip import Clip
from alm_jax.data.catalog.packaged_sounds.package import Package, write_atomic
from alm_jax.data.catalog.packaged_sounds.sources import reading
from alm_jax.data.hygiene import fingerprint

# Modules of sources/, in the order of the records.
SOURCES = (
    'opensfx',
    'tuxpaint_effects',
    'gcompris',
    'ufoai',
    'minetest',
    'wesnoth',
    'sonic_pi',
    'soundfont',
    'asterisk',
    'tuxpaint',
    'fillets',
    'klettres',
)
_CHUNK = 200  # clips
_PROCESSES = 2
_SHORTEST = 0.02  # seconds
_UNREADABLE = (OSError, ValueError, RuntimeError, EOFError)  # of soundfile, av and MemberError


@dataclasses.dataclass(frozen=True)
class Recording:
    """A decoded clip.

    Attributes:
      clip: its text.
      rate: Hz.
      num_samples: samples.
      pcm_sha256: of the int16 samples and the rate.
      source: Debian package, version and member.
    """

    clip: Clip
    rate: int
    num_samples: int
    pcm_sha256: str
    source: str
    chunk: pathlib.Path
    offset: int  # samples
    picture_offset: int  # frames
    picture_frames: int

    def pcm(self) -> np.ndarray:
        """int16 [num_samples]."""
        return np.fromfile(
            self.chunk.with_suffix('.pcm'), '<i2', self.num_samples, offset=2 * self.offset
        )

    def picture(self) -> np.ndarray:
        """uint8 [frames, 32], see hygiene/fingerprint.py."""
        bands = len(fingerprint._EDGES) - 1
        flat = np.fromfile(
            self.chunk.with_suffix('.bands'),
            np.uint8,
            self.picture_frames * bands,
            offset=self.picture_offset * bands,
        )
        return flat.reshape(-1, bands)


@dataclasses.dataclass(frozen=True)
class Decoded:
    """All recordings of a build, in order, and what was left out.

    Attributes:
      recordings: as the sources list them.
      left_out: (source, member, reason) of clips that do not decode.
      dropped: reason -> clips that the sources themselves leave out.
      used: Debian package -> member -> sha256 of what was read.
    """

    recordings: list[Recording]
    left_out: list[tuple[str, str, str]]
    dropped: collections.Counter
    used: dict[str, dict[str, str]]


def source_module(name: str):
    """The module sources/<name>.py."""
    return importlib.import_module(f'{__package__}.sources.{name}')


def decode_all(packages: Mapping[str, Package], folder: pathlib.Path) -> Decoded:
    """Every clip that the sources find in ``packages``; chunks found in ``folder`` are reused.

    Raises ConfigError when more than half of a source cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dropped: collections.Counter = collections.Counter()
    listed = {name: _clips(name, packages, dropped) for name in SOURCES}
    chunks = [
        _Chunk(name, clips[start : start + _CHUNK], _packages_of(name, packages), folder)
        for name, clips in listed.items()
        for start in range(0, len(clips), _CHUNK)
    ]
    _decode_chunks([chunk for chunk in chunks if not chunk.path.exists()])
    used = {name: dict(package.used) for name, package in packages.items()}
    decoded = Decoded([], [], dropped, used)
    for chunk in chunks:
        _collect(chunk, decoded)
    _check_readable(listed, decoded)
    return decoded


class _Chunk:
    """Some clips of one source, and the file that says that they are decoded."""

    def __init__(self, source: str, clips: list[Clip], packages: dict, folder: pathlib.Path):
        self.source, self.clips, self.packages = source, clips, packages
        digest = hashlib.sha256()
        for module in (source_module(source), reading, decode):
            digest.update(inspect.getsource(module).encode())
        digest.update(_picture_of_noise())
        digest.update(json.dumps([package.sha256 for package in packages.values()]).encode())
        digest.update(json.dumps([clip.member for clip in clips]).encode())
        self.path = folder / f'{source}-{digest.hexdigest()[:20]}.json'


def _clips(name: str, packages: Mapping[str, Package], dropped: collections.Counter) -> list[Clip]:
    given = _packages_of(name, packages)
    if not given:
        return []
    clips = sorted(source_module(name).clips(given, dropped), key=lambda clip: clip.member)
    members = [clip.member for clip in clips]
    if len(set(members)) < len(members):
        raise RuntimeError(f'sources/{name}.py yields a member twice.')
    return clips


@functools.cache
def _picture_of_noise() -> bytes:
    """Changes when the fingerprint pictures do."""
    noise = np.random.Generator(np.random.Philox(0)).integers(-9999, 9999, 8000, np.int16)
    return fingerprint.picture(noise, 8000).tobytes()


def _packages_of(name: str, packages: Mapping[str, Package]) -> dict[str, Package]:
    wanted = source_module(name).PACKAGES
    return {package: packages[package] for package in wanted if package in packages}


def _decode_chunks(chunks: Sequence[_Chunk]) -> None:
    if not chunks:
        return
    context = multiprocessing.get_context('spawn')  # fork is unsafe beside a runtime's threads
    with (
        concurrent.futures.ProcessPoolExecutor(
            _PROCESSES, mp_context=context, initializer=_exit_with_parent
        ) as pool,
        tqdm(total=sum(len(chunk.clips) for chunk in chunks), desc='Decoding', unit='clip') as bar,
    ):
        futures = {pool.submit(_decode_chunk, chunk): chunk for chunk in chunks}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                bar.set_postfix_str(futures[future].source)
                bar.update(len(futures[future].clips))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _exit_with_parent() -> None:
    """A worker would wait for work for ever when its parent is killed."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_chunk(chunk: _Chunk) -> None:
    """Decodes the clips into the three files of ``chunk.path``."""
    entries, left_out, pcm_parts, picture_parts = [], [], [], []
    for clip in chunk.clips:
        try:
            pcm, rate = clip.read()
        except _UNREADABLE as error:
            left_out.append((clip.member, f'unreadable: {error}'))
            continue
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise TypeError(f'{chunk.source}: {clip.member} is {pcm.dtype} {pcm.shape}.')
        if len(pcm) < _SHORTEST * rate or not np.any(pcm):
            left_out.append((clip.member, 'silent or empty'))
            continue
        data = pcm.astype('<i2').tobytes()
        levels = fingerprint.picture(pcm, rate)
        digest = hashlib.sha256(data + str(rate).encode()).hexdigest()
        entries.append((clip.member, int(rate), len(pcm), digest, len(levels)))
        pcm_parts.append(data)
        picture_parts.append(levels.tobytes())
    # The packages came with the clips in one pickle, so these are the objects that were read.
    used = {name: package.used for name, package in chunk.packages.items()}
    write_atomic(chunk.path.with_suffix('.pcm'), b''.join(pcm_parts))
    write_atomic(chunk.path.with_suffix('.bands'), b''.join(picture_parts))
    index = {'clips': entries, 'left_out': left_out, 'used': used}
    write_atomic(chunk.path, json.dumps(index).encode())


def _collect(chunk: _Chunk, into: Decoded) -> None:
    index = json.loads(chunk.path.read_text())
    clips = {clip.member: clip for clip in chunk.clips}
    offset = picture_offset = 0
    for member, rate, num_samples, digest, frames in index['clips']:
        into.recordings.append(
            Recording(
                clip=clips[member],
                rate=rate,
                num_samples=num_samples,
                pcm_sha256=digest,
                source=' + '.join(f'{p.name} {p.version}' for p in chunk.packages.values()),
                chunk=chunk.path,
                offset=offset,
                picture_offset=picture_offset,
                picture_frames=frames,
            )
        )
        offset += num_samples
        picture_offset += frames
    into.left_out.extend((chunk.source, member, why) for member, why in index['left_out'])
    for name, used in index['used'].items():
        into.used[name].update(used)


def _check_readable(listed: Mapping[str, Sequence[Clip]], decoded: Decoded) -> None:
    """A few broken members are listed in the card; a source that is mostly broken is an error."""
    for name, clips in listed.items():
        failed = [
            (member, why)
            for source, member, why in decoded.left_out
            if source == name and why.startswith('unreadable')
        ]
        if len(failed) > len(clips) / 2:
            raise config_lib.ConfigError(
                f'{len(failed)} of {len(clips)} clips of {name} cannot be read, the first: '
                f'{failed[0][0]}: {failed[0][1]}\n'
                f'Delete its packages ({", ".join(source_module(name).PACKAGES)}) from downloads/ '
                'and prepare again.'
            )
