"""Reading a tensor bundle: one written here byte by byte, YAMNet's own, and damaged ones.

Checksums are not read, so a flipped byte may name or cut another variable; what is held here is
that whatever comes out lies inside the shard, and that nothing but SavedModelError is raised.
"""

import tracemalloc

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from alm_jax.interop.savedmodel import SavedModelError, read_variables

SETTINGS = hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
ARRAYS = {
    'layer-0/bias': np.array([1, -2], '<i8'),
    'layer-0/kernel': np.arange(24, dtype='<f4').reshape(2, 3, 4),
    'layer-1/bias': np.array(0.5, '<f4'),
    'layer-1/kernel': np.linspace(0, 1, 7).astype('<f8'),
}
CODES = {'f4': 1, 'f8': 2, 'i8': 9}


def _varint(number):
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def _field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _entry(code, dims, offset, size):
    """A BundleEntryProto; a dim is a number, or the bytes of a field that should be one."""
    shape = b''.join(_field(2, _field(1, dim)) for dim in dims)
    return _field(1, code) + _field(2, shape) + _field(4, offset) + _field(5, size)


def _block(pairs):
    """A LevelDB block whose keys share their prefixes, with its trailer."""
    block, last = b'', b''
    for key, value in pairs:
        shared = next((i for i, (a, b) in enumerate(zip(key, last)) if a != b), 0)
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        block += key[shared:] + value
        last = key
    return block + bytes(4) + (1).to_bytes(4, 'little') + bytes(5)


def _index(entries, compression=0, head=b''):
    data = bytearray(_block([(b'', head), *entries]))
    data[-5] = compression
    handle = _varint(0) + _varint(len(data) - 5)
    index = _block([(b'~', handle)])
    footer = _varint(0) + _varint(4) + _varint(len(data)) + _varint(len(index) - 5)
    return bytes(data) + index + footer.ljust(40, b'\0') + bytes.fromhex('57fb808b247547db')


def _bundle():
    shard, entries = b'', []
    for key, array in ARRAYS.items():
        code = CODES[array.dtype.str[1:]]
        entries.append((key.encode(), _entry(code, array.shape, len(shard), array.nbytes)))
        shard += array.tobytes()
    return _index(entries), shard


INDEX, SHARD = _bundle()


@pytest.fixture(scope='module')
def yamnet(wheel):
    return wheel('yamnet', 'index'), wheel('yamnet', 'shard')


def _read_or_refuse(index, shard):
    """The variables, or None for a SavedModelError; all of them within the shard."""
    tracemalloc.start()
    try:
        variables = read_variables(index, shard)
    except SavedModelError:
        variables = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100_000 + 50 * len(index)  # keys and Python objects; no copy of the shard
    whole = np.frombuffer(shard, np.uint8)
    for array in (variables or {}).values():
        assert array.nbytes <= len(shard)
        assert array.size == 0 or np.may_share_memory(array, whole)
    return variables


def _assert_same(variables, expected):
    assert set(variables) == set(expected)
    for key, value in expected.items():
        assert variables[key].dtype == value.dtype
        np.testing.assert_array_equal(variables[key], value)


def test_a_bundle_written_by_the_format_comes_back():
    _assert_same(_read_or_refuse(INDEX, SHARD), ARRAYS)


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, len(INDEX) - 1), st.integers(1, 255)), min_size=1, max_size=4)
)
@SETTINGS
def test_flipped_index(flips):
    damaged = bytearray(INDEX)
    for place, mask in flips:
        damaged[place] ^= mask
    _read_or_refuse(bytes(damaged), SHARD)


@hypothesis.given(st.integers(0, 7729), st.integers(1, 255))
@SETTINGS
def test_flipped_index_of_yamnet(yamnet, place, mask):
    damaged = bytearray(yamnet[0])
    damaged[place % len(damaged)] ^= mask
    _read_or_refuse(bytes(damaged), yamnet[1])


@hypothesis.given(st.binary(max_size=80), st.binary(max_size=40))
@SETTINGS
def test_any_entry_and_any_footer(value, footer):
    _read_or_refuse(_index([(b'variable', value)]), SHARD)
    _read_or_refuse(INDEX[:-48] + footer.ljust(40, b'\0') + INDEX[-8:], SHARD)


def test_every_truncation_is_refused():
    for length in range(len(INDEX)):
        with pytest.raises(SavedModelError, match=r'variables\.index'):
            read_variables(INDEX[:length], SHARD)
    for length in range(len(SHARD)):
        with pytest.raises(SavedModelError, match=r'layer-.*does not fit'):
            read_variables(INDEX, SHARD[:length])


@hypothesis.given(st.integers(0, len(SHARD) - 1), st.integers(1, 255))
@SETTINGS
def test_a_flipped_shard_changes_the_variable_of_that_byte_alone(place, mask):
    damaged = bytearray(SHARD)
    damaged[place] ^= mask
    variables = _read_or_refuse(INDEX, bytes(damaged))
    changed = [key for key, value in ARRAYS.items() if variables[key].tobytes() != value.tobytes()]
    ends = np.cumsum([value.nbytes for value in ARRAYS.values()])
    assert changed == [list(ARRAYS)[np.searchsorted(ends, place, side='right')]]


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (_entry(1, [b'abcd', 1 << 40], 0, 4), 'variable: .* damaged'),
        (_entry(1, [0, 1 << 63], 0, 0), 'variable: no array has shape'),
        (_entry(1, [1] * 70, 0, 4), 'variable: no array has shape'),
        (_entry(1, [1 << 62, 4], 0, 4), 'variable: .*does not fit'),
        (_entry(1, [1], len(SHARD), 4), 'variable: .*does not fit'),
        (_entry(1, [1], b'zero', 4), 'variable: .* damaged'),
        (_entry(19, [1], 0, 2), 'variable: data type 19 is not read'),
        (_field(1, 1) + b'\x12\x7f', 'overruns its message'),
        (b'\x0b', 'wire type 3'),
        (b'\x80' * 10, 'longer than 64 bits'),
    ],
)
def test_entries_that_fit_no_array(entry, message):
    with pytest.raises(SavedModelError, match=message):
        read_variables(_index([(b'variable', entry)]), SHARD)
    assert _read_or_refuse(_index([(b'variable', entry)]), SHARD) is None


def test_compressed_tables_and_several_shards_are_refused():
    with pytest.raises(SavedModelError, match='compressed'):
        read_variables(_index([], compression=1), SHARD)
    with pytest.raises(SavedModelError, match='3 shards'):
        read_variables(_index([], head=_field(1, 3)), SHARD)
