"""What a tar holds: where each member begins, how long recordings are, and the texts."""

import io
import os
import pathlib
import tarfile

import pyarrow as pa

from alm_jax.audio.decode import AudioError
from alm_jax.config import ConfigError
from alm_jax.data import archive_bounds
from alm_jax.data.inputs import files, headers

TEXTS = ('.json', '.txt', '.cls')
SCHEMA = pa.schema(
    [
        ('name', pa.string()),
        ('offset', pa.int64()),  # of the content, bytes from the start of the tar
        ('size', pa.int64()),
        ('samples', pa.int64()),
        ('rate', pa.int64()),
        ('text', pa.large_binary()),
        ('problem', pa.string()),  # why a member cannot be used
    ]
)
_BLOCK = 512
_PIECE = 1 << 16
_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZ': 'bzip2', b'\xfd7': 'xz', b'\x28\xb5': 'zstd'}
_NOT_PLAIN = 'a link or a sparse file'


def is_text(name: str) -> bool:
    """Whether a member of this name describes a recording."""
    return os.path.splitext(name)[1].lower() in TEXTS


def scan(path: pathlib.Path) -> pa.Table:
    """The members that are recordings or texts, in the tar's order.

    Of a recording only the header is read. A name that is not UTF-8 has its bytes as '\\xff'.

    Returns:
      a table of SCHEMA.

    Raises:
      ConfigError: the tar is compressed, cut off or damaged; names it and its last whole member.
    """
    rows = {name: [] for name in SCHEMA.names}
    last = ''
    try:
        # Members of hundreds of kB: larger buffers would only read what is skipped.
        with path.open('rb', buffering=8192) as file:
            _refuse_compressed(path, file)
            size = file.seek(0, os.SEEK_END)
            if not size:
                return SCHEMA.empty_table()
            file.seek(0)
            with tarfile.open(
                fileobj=file, mode='r:', encoding='utf-8', tarinfo=archive_bounds.CheckedInfo
            ) as tar:
                while (info := tar.next()) is not None:
                    tar.members.clear()  # else every header stays in memory
                    name = info.name.encode('utf-8', 'surrogateescape')
                    last = name.decode('utf-8', 'backslashreplace').removeprefix('./')
                    archive_bounds.check_member(info, size)
                    for column, value in zip(rows.values(), _row(file, info, last) or ()):
                        column.append(value)
                _check_end(file, tar.offset)
    except ConfigError:
        raise
    except archive_bounds.MALFORMED as error:
        after = f'after member {last!r}' if last else 'before its first member'
        raise ConfigError(
            f'{path} is cut off or damaged {after} ({error}). Fetch it again.'
        ) from error
    return pa.table({name: pa.array(rows[name], SCHEMA.field(name).type) for name in rows})


def _row(file: io.BufferedReader, info: tarfile.TarInfo, name: str) -> tuple | None:
    """The cells of a member, None for one that is of no interest."""
    if not headers.is_audio(name) and not is_text(name):
        return None
    if name.rpartition('/')[2].startswith('._'):  # what macOS puts beside every file
        return None
    place = (name, info.offset_data, info.size)
    if info.isdir():
        return None
    if not info.isreg() or info.issparse():
        return *place, 0, 0, b'', _NOT_PLAIN
    window = files.Window(file.fileno(), info.offset_data, info.size)
    if is_text(name) and info.size > files.LARGEST_TEXT:
        return *place, 0, 0, b'', f'{info.size} bytes long, of which {files.LARGEST_TEXT} are read'
    if is_text(name):
        text = window.read(info.size)
        if len(text) < info.size:
            raise tarfile.ReadError('unexpected end of data')
        return *place, 0, 0, text, ''
    try:
        return *place, *headers.read(window), b'', ''
    except AudioError as error:
        return *place, 0, 0, b'', str(error)


def _refuse_compressed(path: pathlib.Path, file: io.BufferedReader) -> None:
    if form := _COMPRESSED.get(file.read(2)):
        raise ConfigError(
            f'{path} is compressed ({form}), which allows no random access; unpack it to a .tar.'
        )


def _check_end(file: io.BufferedReader, offset: int) -> None:
    """tarfile takes a damaged header for the end; the true end is zeros, or that of the file."""
    at = offset
    while piece := os.pread(file.fileno(), _PIECE, at):
        if piece.strip(b'\0'):
            reason = 'no header' if at == offset and piece[:_BLOCK].strip(b'\0') else 'more follows'
            raise tarfile.ReadError(f'{reason} at byte {offset}')
        at += len(piece)
