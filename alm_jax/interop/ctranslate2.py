"""Variables of a Whisper model.bin in CTranslate2's format, read without CTranslate2.

The layout is that of python/ctranslate2/specs/model_spec.py and src/models/model.cc in
https://github.com/OpenNMT/CTranslate2, little-endian throughout:

  uint32 version, string spec, uint32 revision (from version 2 on)
  uint32 count of variables, each: string name, uint8 rank, uint32 sizes, uint8 type, uint32 bytes,
    data. Before version 4: the item's size instead of the type, the number of items for the bytes
  uint32 count of aliases (from version 3 on), each: string alias, string name

A string is uint16 length, including the zero byte at its end. An integer variable has beside it
NAME_scale, float32, one for each row of int8 and one for all of int16: value = integer / scale.
"""

import math
import mmap
import struct
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from alm_jax.config import ConfigError

VERSION, WHISPER_SPEC, WHISPER_REVISION = 6, 'WhisperSpec', 3  # the newest that are read
DTYPES = ('<f4', 'i1', '<i2', '<i4', '<f2', ml_dtypes.bfloat16)
DTYPES_BEFORE_4 = {4: '<f4', 2: '<i2', 1: 'i1'}
MAX_AXES = 8
MAX_VALUES = 1 << 58  # of a variable, empty axes taken for 1: numpy can index no more
INT16_SCALE = 1000.0  # of files that store none


class CTranslate2Error(ConfigError):
    """A file that is not a Whisper model of this format, or is damaged."""


class _Reader:
    """Numbers and strings of a buffer, one after the other; nothing beyond its end."""

    def __init__(self, data, file: str):
        self.data, self.file, self.position, self.what = data, file, 0, 'its head'

    def take(self, size: int):
        """The next ``size`` bytes. Raises CTranslate2Error naming file and variable."""
        start, self.position = self.position, self.position + size
        if self.position > len(self.data):
            raise self.error(f'needs {size} bytes at {start}, and the file has {len(self.data)}')
        return memoryview(self.data)[start : self.position]

    def number(self, kind: str) -> int:
        return struct.unpack('<' + kind, self.take(struct.calcsize(kind)))[0]

    def string(self) -> str:
        content = bytes(self.take(self.number('H')))
        if not content.endswith(b'\0'):
            raise self.error('a name without its end')
        try:
            return content[:-1].decode()
        except UnicodeDecodeError as error:
            raise self.error(f'a name that is not UTF-8 ({error})') from error

    def error(self, problem: str) -> CTranslate2Error:
        return CTranslate2Error(f'{self.file}: {self.what}: {problem}.')


def read_variables(data: bytes | mmap.mmap, file: str = 'model.bin') -> dict[str, np.ndarray]:
    """Every variable of a Whisper model, aliases included; integers with a scale as float32.

    Args:
      data: content of model.bin. Other arrays are views of it.
      file: for messages.

    Raises:
      CTranslate2Error: another model, a newer version, or content that does not fit its sizes;
        names the file and the variable.
    """
    reader = _Reader(data, file)
    version = reader.number('I')
    if not 2 <= version <= VERSION:
        raise reader.error(f'version {version}; 2 to {VERSION} are read')
    spec, revision = reader.string(), reader.number('I')
    if spec != WHISPER_SPEC or revision > WHISPER_REVISION:
        raise reader.error(
            f'a {spec!r} of revision {revision}; {WHISPER_SPEC!r} to {WHISPER_REVISION} is read'
        )
    stored: dict[str, np.ndarray] = {}
    for _ in range(reader.number('I')):
        name, value = _variable(reader, version)
        if name in stored:
            raise reader.error('it stands there twice')
        stored[name] = value
    reader.what = 'aliases'
    aliases = {}
    for _ in range(reader.number('I') if version >= 3 else 0):
        alias, name = reader.string(), reader.string()
        if name not in stored:
            raise reader.error(f'{alias} stands for {name}, which is not there')
        aliases[alias] = name
    if reader.position != len(data):
        raise reader.error(f'{len(data) - reader.position} bytes follow the end')
    variables = {n: _unscaled(n, stored, reader) for n in stored if not n.endswith('_scale')}
    return variables | {alias: variables[name] for alias, name in aliases.items()}


def _variable(reader: _Reader, version: int) -> tuple[str, np.ndarray]:
    reader.what = 'a variable'
    name = reader.what = reader.string()
    axes = reader.number('B')
    if axes > MAX_AXES:
        raise reader.error(f'{axes} axes; {MAX_AXES} are read')
    shape = [reader.number('I') for _ in range(axes)]
    kind, size = reader.number('B'), reader.number('I')
    if version >= 4:
        dtype = DTYPES[kind] if kind < len(DTYPES) else None
    else:
        dtype, size = DTYPES_BEFORE_4.get(kind), size * kind
    if dtype is None:
        raise reader.error(f'type {kind} is not known')
    dtype = np.dtype(dtype)
    if size != dtype.itemsize * math.prod(shape):
        raise reader.error(f'shape {shape} of {dtype} is not {size} bytes')
    if not size and math.prod(axis or 1 for axis in shape) >= MAX_VALUES:
        raise reader.error(f'no values, and axes of {shape}')
    return name, np.frombuffer(reader.take(size), dtype).reshape(shape)


def _unscaled(name: str, stored: Mapping[str, np.ndarray], reader: _Reader) -> np.ndarray:
    """The variable itself, or what its integers stand for."""
    value, scale = stored[name], stored.get(f'{name}_scale')
    if value.ndim == 0 or value.dtype.kind != 'i':
        return value
    if scale is None and value.dtype == np.int16:
        scale = np.float32(INT16_SCALE)
    reader.what = name
    if scale is None or scale.size not in (1, len(value)) or not np.all(scale):
        raise reader.error(f'its {value.dtype} has no scale, or one that does not fit its rows')
    rows = np.float32(scale).reshape(-1, *(1,) * (value.ndim - 1))
    return value.astype(np.float32) / rows
