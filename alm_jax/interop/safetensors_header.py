"""The header of a safetensors file, believed only after it was compared with the file's size.

The layout is https://github.com/huggingface/safetensors#format: eight bytes of length, a JSON
object, then the tensors one behind the other. The library checks the same, but it and whoever maps
the file would each parse the header; here one reading of it is checked and used.
"""

import math
import pathlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from alm_jax import json_text
from alm_jax.config import ConfigError

LONGEST = 32 << 20  # bytes of a header: a hundred thousand tensors need a third of it
MAX_AXES = 32
_LARGEST = 1 << 62  # bytes of a tensor whose empty axes are taken for 1: what numpy can index
DTYPES = {  # as safetensors calls them
    **{f'F{bits}': np.dtype(f'f{bits // 8}') for bits in (16, 32, 64)},
    **{f'I{bits}': np.dtype(f'i{bits // 8}') for bits in (8, 16, 32, 64)},
    **{f'U{bits}': np.dtype(f'u{bits // 8}') for bits in (8, 16, 32, 64)},
    'BOOL': np.dtype(bool),
    'BF16': np.dtype(ml_dtypes.bfloat16),
    'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
    'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
}


class Entry(NamedTuple):
    """A tensor: ``start`` and ``end`` are bytes of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read(file: pathlib.Path) -> dict[str, Entry]:
    """The tensors of a file by name.

    Raises:
      ConfigError: the header is longer than the file or than LONGEST, is no JSON, or has an entry
        that cannot be: names the file and the tensor. Nothing of the size that it claims is made.
    """
    try:
        with file.open('rb') as content:
            size = file.stat().st_size
            length = int.from_bytes(content.read(8), 'little')
            if size < 8 or length > size - 8:
                raise _damaged(file, f'its header of {length} bytes does not fit its {size}')
            if length > LONGEST:
                raise _damaged(file, f'its header has {length} bytes; {LONGEST} are read')
            text = content.read(length)
    except OSError as error:
        raise ConfigError(f'{file} cannot be read: {error}.') from error
    header = json_text.parse_object(text, f'{file} cannot be read: its header', unique=True)
    if not isinstance(header.pop('__metadata__', {}), dict):
        raise _damaged(file, '__metadata__ is not an object')
    entries = {name: _entry(file, name, given, 8 + length) for name, given in header.items()}
    _check_places(file, entries, 8 + length, size)
    return entries


def _entry(file: pathlib.Path, name: str, given: Any, data: int) -> Entry:
    """``data`` is where the tensors begin."""
    if not isinstance(given, dict) or given.keys() != {'dtype', 'shape', 'data_offsets'}:
        raise _damaged(file, f'{name} has not just dtype, shape and data_offsets')
    dtype, shape, offsets = given['dtype'], given['shape'], given['data_offsets']
    if not isinstance(dtype, str) or not _whole(shape) or len(shape) > MAX_AXES:
        raise _damaged(file, f'{name} is {dtype!r:.40} of shape {shape!r:.80}')
    if not _whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(file, f'{name} lies at {offsets!r:.80}')
    found = offsets[1] - offsets[0]
    if dtype in DTYPES:
        item = DTYPES[dtype].itemsize
        if math.prod(shape) * item != found:
            raise _damaged(file, f'{name} {shape} of {dtype} is not {found} bytes')
        if math.prod(max(axis, 1) for axis in shape) * item >= _LARGEST:
            raise _damaged(file, f'{name} {shape} of {dtype} has no place in memory')
    return Entry(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _whole(numbers: Any) -> bool:
    """Whether it is a list of whole numbers, none of them below 0."""
    return isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)


def _check_places(file: pathlib.Path, entries: dict[str, Entry], data: int, size: int) -> None:
    """Tensors lie one behind the other, without a gap, to the end of the file."""
    at = data
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.end > size:
            raise _damaged(file, f'{name} ends at byte {entry.end} of {size}')
        if entry.start != at:
            problem = 'overlaps the one before it' if entry.start < at else 'leaves a gap before it'
            raise _damaged(file, f'{name}, from byte {entry.start}, {problem}')
        at = entry.end
    if at != size:
        raise _damaged(file, f'{size - at} bytes follow its last tensor')


def _damaged(file: pathlib.Path, problem: str) -> ConfigError:
    return ConfigError(f'{file} cannot be read: {problem}. Fetch it again.')
